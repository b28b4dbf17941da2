from __future__ import annotations

import numpy as np
import pytest
from talking_portrait.models.face.face_mesh import face_mesh
from talking_portrait.pipelines.aniportrait.pose_image import contour_groups, draw_pose_image
from talking_portrait.pipelines.errors import TalkingPortraitError


def canonical_points(size: int) -> np.ndarray:
    vertices = face_mesh().vertices
    return (vertices[:, :2] * [1, -1] / 22 + 0.5) * size


def test_there_are_114_edges_in_13_colours():
    groups = contour_groups()
    assert len({colour for colour, _ in groups}) == len(groups) == 13
    assert sum(len(edges) for _, edges in groups) == 114


def test_a_face_is_drawn_in_every_colour():
    image = draw_pose_image(canonical_points(512), (512, 512))
    assert image.shape == (512, 512, 3)
    drawn_colours = {tuple(colour) for colour in image.reshape(-1, 3).tolist()}
    assert drawn_colours == {(0, 0, 0), *(colour for colour, _ in contour_groups())}
    assert tuple(image[int(canonical_points(512)[152, 1]), 256]) == (10, 200, 10)


def test_the_drawing_is_resized_to_the_picture():
    image = draw_pose_image(canonical_points(100) * [3, 2], (200, 300))
    assert image.shape == (200, 300, 3)
    full = draw_pose_image(canonical_points(512), (512, 512))
    assert image.mean() == pytest.approx(full.mean(), rel=0.05)  # bilinear smears lines, but adds no light


def test_points_outside_take_their_edges_along():
    points = canonical_points(512)
    whole = draw_pose_image(points, (512, 512))
    points[13] = [-1, 100]
    parts = draw_pose_image(points, (512, 512))
    upper_inner = [(120, 100, 200), (150, 120, 100)]
    count = [sum((image == colour).all(axis=-1).sum() for colour in upper_inner) for image in (whole, parts)]
    assert 0 < count[1] < count[0]
    points[:] = 600
    assert not draw_pose_image(points, (512, 512)).any()


def test_too_few_landmarks_are_refused():
    with pytest.raises(TalkingPortraitError, match="468"):
        draw_pose_image(np.zeros((68, 2)), (512, 512))
