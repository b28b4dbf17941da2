"""Region masks: boxes that stay in the picture, soft regions, sizes for every resolution."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from talking_portrait.models.face.face_mesh import FACE_OVAL, LIPS_OUTER
from talking_portrait.pipelines.apasco.masks import (
    RegionMasks,
    bounds,
    expanded,
    filled,
    region_masks,
    training_masks,
    whole_picture,
)
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.files.example import example_portrait


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    return example_portrait()[1].points[0]


@pytest.fixture(scope="module")
def size() -> tuple[int, int]:
    return example_portrait()[1].image_size


@given(
    st.tuples(st.integers(0, 90), st.integers(1, 60), st.integers(0, 110), st.integers(1, 60)),
    st.floats(1.0, 6.0),
)
def test_a_widened_box_holds_the_old_one_and_no_more_than_the_picture(box, ratio):
    left, width, top, height = box
    right, bottom = min(left + width, 100), min(top + height, 120)
    if right - left < 2 or bottom - top < 2:
        return
    wide = expanded((left, right, top, bottom), (120, 100), ratio)
    assert wide[1] <= 100
    assert wide[3] <= 120
    mask = filled(wide, (120, 100))
    assert mask[top : bottom - 1, left : right - 1].all(), "one pixel may be lost to halving"
    assert (mask > 0).sum() <= 100 * 120


def test_a_box_wider_than_the_picture_covers_it_unless_counted_as_published():
    box = expanded((0, 99, 0, 119), (120, 100), 1.5)
    assert box == (-48, 100, -58, 120)
    assert filled(box, (120, 100)).all()
    assert (filled(box, (120, 100), wrap=True) > 0).sum() == 48 * 58


def test_regions_lie_where_the_face_is(points, size):
    masks = region_masks(points, size)
    assert masks.image_size == size

    def at(mask, numbers):
        x, y = points[list(numbers), :2].mean(axis=0)
        return mask[int(y / size[0] * 64), int(x / size[1] * 64)]

    assert at(masks.lip, LIPS_OUTER) > 240
    assert at(masks.full, FACE_OVAL) < 20
    assert masks.full[0, 0] > 240
    face = bounds(points, FACE_OVAL)
    assert masks.region[face[2] : face[3], face[0] : face[1]].all()
    wider = region_masks(points, size, face_ratio=1.6)
    assert wider.region.sum() > masks.region.sum()
    assert np.array_equal(wider.lip, masks.lip)


def test_levels_halve_and_carry_height_and_width(points, size):
    levels = region_masks(points, size).levels((9, 14))
    assert [tuple(level.shape) for level in levels] == [(3, 1, 9, 14), (3, 1, 5, 7), (3, 1, 3, 4), (3, 1, 2, 2)]
    assert all(level.min() >= 0 and level.max() <= 1 for level in levels)
    located = region_masks(points, size).located((64, 48))
    assert located.shape == (1, 3, 1, 64, 48)
    assert set(located.unique().tolist()) >= {0.0, 1.0}


def test_without_landmarks_all_of_the_picture_is_face():
    masks = whole_picture((30, 50))
    assert masks.region.all()
    assert masks.face.min() == 255
    assert not masks.lip.any()
    assert not masks.full.any()


def test_training_masks_hold_the_face_of_every_frame(points, size):
    moved = np.stack([points, points + [20, 5, 0]])
    masks: RegionMasks = training_masks(moved, size)
    for frame in moved:
        left, right, top, bottom = bounds(frame, FACE_OVAL)
        assert masks.region[top + 1 : bottom - 1, left + 1 : right - 1].all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"face_ratio": 0.0}, "widened 0.0 and 2.0 times"),
        ({"lip_ratio": 0.001}, "less than a pixel here; take larger ratios"),
        ({"lip_ratio": float("nan")}, "widened 1.2 and nan times"),
        ({"points": np.zeros((68, 2))}, r"shape \(68, 2\), but 468 or 478"),
        ({"points": np.full((478, 3), 5000.0)}, "lie outside the picture"),
        ({"points": np.full((478, 3), np.nan)}, "finite points"),
    ],
)
def test_what_gives_no_box_is_refused(points, size, change, message):
    given_points = change.pop("points", points)
    with pytest.raises(TalkingPortraitError, match=message):
        region_masks(given_points, size, **change)
