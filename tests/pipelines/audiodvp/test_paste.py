"""The generated lower face in the whole frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from talking_portrait.pipelines.audiodvp.paste import blend_weights, paste_lower_face
from talking_portrait.pipelines.person.person import CropBox

SIDE = 64


def mask(first: int = 16, last: int = 56) -> np.ndarray:
    result = np.zeros((SIDE, SIDE), np.uint8)
    result[first:last, first:last] = 255
    return result


@given(st.integers(-80, 90), st.integers(-80, 90), st.integers(1, 150), st.integers(1, 70), st.integers(1, 70))
def test_only_what_the_mask_covers_changes(left: int, top: int, side: int, height: int, width: int) -> None:
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    before, box = frame.copy(), CropBox(left, top, side)
    face = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    result, whole = paste_lower_face(frame, face, blend_weights(mask(), box, frame.shape[:2]), box)
    np.testing.assert_array_equal(frame, before)
    assert (result.shape, result.dtype) == (frame.shape, np.uint8)
    assert (whole.shape, whole.dtype) == (frame.shape[:2], np.float32)
    assert whole.min() >= 0
    assert whole.max() <= 1
    np.testing.assert_array_equal(result[whole == 0], frame[whole == 0])


@pytest.mark.parametrize("side", [20, 64, 150])
def test_the_face_lands_where_its_box_is(side: int) -> None:
    frame = np.zeros((200, 220, 3), np.uint8)
    box = CropBox(30, 40, side)
    face = np.zeros((SIDE, SIDE, 3), np.uint8)
    face[...] = 10 + np.arange(SIDE)[None, :, None] * 3  # brighter to the right
    result, whole = paste_lower_face(frame, face, blend_weights(mask(), box, (200, 220)), box)
    inside = whole > 0.999
    rows, columns = np.nonzero(inside)
    # The mask, 9 pixels smaller and softened by 2, scaled to the box.
    expected = 40 + side * np.array([27, 45]) / SIDE
    assert rows.min() == pytest.approx(expected[0], abs=2 + side / SIDE)
    assert rows.max() == pytest.approx(expected[1], abs=2 + side / SIDE)
    shown = 10 + ((columns + 0.5 - 30) * SIDE / side - 0.5) * 3
    np.testing.assert_allclose(result[inside][:, 0], shown, atol=2)


def test_a_box_of_the_crops_own_size_gives_the_published_composite() -> None:
    from talking_portrait.pipelines.audiodvp.composite import blurred, composite, eroded

    rng = np.random.default_rng(1)
    frame = rng.integers(0, 256, (SIDE + 20, SIDE + 20, 3), dtype=np.uint8)
    face = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    box = CropBox(10, 10, SIDE)
    result, _ = paste_lower_face(frame, face, blend_weights(mask(), box, frame.shape[:2]), box)
    expected = composite(face, frame[10:-10, 10:-10], blurred(eroded(mask())))
    np.testing.assert_allclose(result[10:-10, 10:-10], expected, atol=0.51)


def test_a_face_that_reaches_beyond_the_crop_leaves_no_line_but_fills_the_frame_to_its_border() -> None:
    whole = np.full((SIDE, SIDE), 255, np.uint8)
    inside = blend_weights(whole, CropBox(10, 10, SIDE), (100, 100))
    assert not inside[0].any()
    assert not inside[:, -1].any()
    assert inside[SIDE // 2, SIDE // 2] == pytest.approx(1)
    at_the_bottom = blend_weights(whole, CropBox(10, 100 - SIDE, SIDE), (100, 100))
    assert at_the_bottom[-1, SIDE // 2] == pytest.approx(1)
    assert not at_the_bottom[0].any()


def test_faces_are_shrunk_by_areas() -> None:
    """A checkerboard becomes its mean, where single pixels would flicker as the face moves."""
    face = (np.indices((SIDE, SIDE)).sum(0) % 2 * 200).astype(np.uint8)[..., None].repeat(3, axis=2)
    box = CropBox(0, 0, SIDE // 2)
    frame = np.zeros((SIDE // 2, SIDE // 2, 3), np.uint8)
    result, whole = paste_lower_face(frame, face, blend_weights(mask(), box, frame.shape[:2]), box)
    np.testing.assert_allclose(result[whole > 0.999], 100, atol=1)


def chin(row: int) -> np.ndarray:
    """What lies between a chin at this row and the film's at row 52."""
    result = np.zeros((SIDE, SIDE), np.uint8)
    result[row:52, 16:56] = 255
    return result


def test_of_two_chins_only_the_films_is_seen_where_it_is_the_lower_one() -> None:
    box = CropBox(0, 0, SIDE)
    usual = blend_weights(mask(), box, (SIDE, SIDE))  # ends at row 47
    wide = blend_weights(mask(), box, (SIDE, SIDE), chin(40))
    assert not wide[37:].any(), "neither the generated chin nor what is below it is shown"
    np.testing.assert_allclose(wide[:28], usual[:28])
    assert np.all(np.diff(wide[28:37, 36]) < 0), "it fades in above"
    assert (wide <= usual).all()
    np.testing.assert_allclose(blend_weights(mask(), box, (SIDE, SIDE), chin(50)), usual)  # the chin is not seen
    np.testing.assert_allclose(blend_weights(mask(), box, (SIDE, SIDE), chin(52)), usual)


def test_a_chin_gives_way_little_by_little() -> None:
    steps = [blend_weights(mask(), CropBox(0, 0, SIDE), (SIDE, SIDE), chin(row))[44, 36] for row in range(49, 42, -1)]
    assert steps[0] == pytest.approx(1)
    assert steps[-1] == 0
    assert np.all(np.diff(steps) <= 0)
    assert any(0.1 < step < 0.9 for step in steps)
