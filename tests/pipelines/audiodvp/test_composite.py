"""The mask of the lower face, and the composite within it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from talking_portrait.models.audiodvp.face_model import Coefficients, FaceModel, adjacent_triangles
from talking_portrait.pipelines.audiodvp.composite import (
    OPEN_MOUTH,
    blurred,
    build_mask,
    composite,
    dilated,
    eroded,
    lower_face_masks,
    old_chins,
)

from ...toy_person import fitted_face, speech


def square(side: int, first: int, last: int) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    mask[first:last, first:last] = 255
    return mask


def test_the_mask_is_both_mouths_grown_by_four_pixels() -> None:
    closed, opened = torch.zeros(40, 50), torch.zeros(40, 50)
    closed[10:20, 15:30] = 1
    opened[15:25, 15:30] = 1
    mask = build_mask(closed, opened)
    assert mask.dtype == np.uint8
    expected = np.zeros((40, 50), np.uint8)
    expected[6:29, 11:34] = 255
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("iterations", [0, 1, 4, 9])
def test_masks_grow_and_shrink_by_a_pixel_an_iteration(iterations: int) -> None:
    mask = square(60, 20, 40)
    np.testing.assert_array_equal(dilated(mask, iterations), square(60, 20 - iterations, 40 + iterations))
    np.testing.assert_array_equal(eroded(mask, iterations), square(60, 20 + iterations, 40 - iterations))


def test_a_mask_does_not_shrink_from_the_borders_of_the_image() -> None:
    whole = np.full((30, 20), 255, np.uint8)
    assert (eroded(whole) == 255).all()
    np.testing.assert_allclose(blurred(whole), 1)


def test_weights_fall_off_over_the_blurs_width() -> None:
    weights = blurred(square(40, 10, 30))
    assert (weights.dtype, weights.shape) == (np.float32, (40, 40))
    row = weights[20]
    assert not row[:8].any()
    np.testing.assert_allclose(row[12:28], 1)
    assert np.all(np.diff(row[7:13]) > 0)
    # The kernel is nearly flat: sigma 4 over 5 pixels. A sigma of 1 would leave 0.3 and not 0.39 outside.
    assert row[9] == pytest.approx(0.394, abs=0.01)


def test_the_face_replaces_the_frame_where_the_weights_are_1() -> None:
    face, frame = np.full((2, 3, 3), 200, np.uint8), np.full((2, 3, 3), 100, np.uint8)
    weights = np.array([[0, 0.25, 1], [1, 0.5, 0]], np.float32)
    result = composite(face, frame, weights)
    np.testing.assert_allclose(result[..., 0], [[100, 125, 200], [200, 150, 100]])
    assert result.shape == (2, 3, 3)


def test_a_frames_mask_covers_the_closed_and_the_wide_open_mouth() -> None:
    """A face of one triangle, whose first expression coefficient moves its lowest vertex: down where it is negative."""
    triangles, basis = torch.tensor([[0, 1, 2]], dtype=torch.int32), torch.zeros(9, 2)
    basis[3 * 2 + 1, 0] = 0.5 / -OPEN_MOUTH
    model = FaceModel(
        geo_mean=torch.tensor([-1.0, 0.5, 0, 1, 0.5, 0, 0, -0.5, 0])[:, None],
        id_base=torch.zeros(9, 0),
        exp_base=basis,
        tex_mean=torch.ones(9, 1),
        tex_base=torch.zeros(9, 0),
        triangles=triangles,
        lower_triangles=triangles,
        point_buf=adjacent_triangles(triangles, 3),
        landmark_index=torch.zeros(0, dtype=torch.int64),
    )
    delta, none, pose = torch.tensor([[[3.0], [1.0]], [[-1.0], [0.0]]]), torch.zeros(1, 0, 1), torch.zeros(1, 3, 1)
    face = Coefficients(none, delta, none, torch.zeros(1, 27, 1), pose, pose)
    masks = lower_face_masks(model, face, (256, 256))
    assert (masks.shape, masks.dtype) == ((2, 256, 256), np.uint8)
    np.testing.assert_array_equal(masks[0], masks[1])
    focal = 128 / np.tan(np.radians(12.5)) / 8
    lowest = np.flatnonzero(masks[0, :, 128]).max()
    assert lowest == pytest.approx(128 + focal + 4, abs=3), "the open mouth's chin and four pixels more"
    assert delta[0, 0] == 3, "the frame's own coefficients stay"


def test_the_films_chin_is_what_a_higher_one_uncovers() -> None:
    face = fitted_face(speech(0.2), Fraction(25), 3)
    model, size = face.face_model, (64, 64)
    opened, closed = (face.coefficients([0, 1, 2], torch.tensor([[value, 0.0]])) for value in (3.0, 0.0))
    lower = old_chins(model, opened, closed, size)
    alphas = [model.render(each, size, lower=True).alpha[:, 0].numpy() > 0 for each in (opened, closed)]
    uncovered = alphas[0] & ~alphas[1]
    uncovered[:, :32] = False
    assert uncovered.sum() > 100
    found = lower > 0
    assert (found & uncovered).sum() > 0.85 * uncovered.sum()
    assert (found & alphas[1]).sum() < 0.05 * uncovered.sum(), "the generated face covers the rest"
    assert old_chins(model, closed, opened, size).astype(bool).sum() < 0.05 * found.sum(), "a lower one uncovers none"
