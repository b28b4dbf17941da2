from __future__ import annotations

import numpy as np
import pytest
from talking_portrait.models.face.face_mesh import face_mesh
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.face.metric_mesh import metric_mesh, similarity
from talking_portrait.pipelines.types import Camera


def turn(x: float, y: float, z: float) -> np.ndarray:
    """R = Rz Ry Rx from degrees."""
    x, y, z = np.radians([x, y, z])
    rx = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    ry = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    rz = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return rz @ ry @ rx


def photograph(rotation: np.ndarray, translation: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Landmarks (468, 3) in pixels of the canonical head, as from a perfect landmarker."""
    height, width = size
    in_camera = face_mesh().vertices @ rotation.T + translation
    focal = Camera().focal * height / 2
    distance = -in_camera[:, 2]
    x = in_camera[:, 0] / distance * focal + width / 2
    y = height / 2 - in_camera[:, 1] / distance * focal
    return np.stack([x, y, (distance / distance.mean() - 1) * focal], axis=1)


@pytest.mark.parametrize("angles", [(0, 0, 0), (10, 30, -5), (-15, -35, 20), (0, 5, 90)])
@pytest.mark.parametrize("size", [(512, 512), (480, 640), (1000, 300)])
def test_a_photographed_canonical_head_comes_back(angles, size):
    rotation, translation = turn(*angles), np.array([3.0, -2.0, -45.0])
    vertices, matrix = metric_mesh(photograph(rotation, translation, size), size)
    block = matrix[:3, :3]
    error = block / np.cbrt(np.linalg.det(block)) @ rotation.T
    assert np.degrees(np.arccos(np.clip((np.trace(error) - 1) / 2, -1, 1))) < 0.5
    assert np.abs(vertices - face_mesh().vertices).max() < 0.05
    assert np.abs(matrix[:3, 3] - translation).max() < 0.6


def test_a_video_is_its_frames_one_by_one():
    size = (480, 640)
    frames = np.stack([photograph(turn(0, angle, 0), np.array([0, 0, -40.0 - angle]), size) for angle in range(5)])
    vertices, matrix = metric_mesh(frames, size)
    for frame, shape, pose in zip(frames, vertices, matrix, strict=True):
        alone = metric_mesh(frame, size)
        np.testing.assert_allclose(alone[0], shape, atol=1e-9)
        np.testing.assert_allclose(alone[1], pose, atol=1e-9)


def test_only_the_aspect_of_the_picture_matters_and_irises_are_ignored():
    points = photograph(turn(5, 20, 3), np.array([0, 0, -40.0]), (480, 640))
    small = metric_mesh(points, (480, 640))
    large = metric_mesh(np.concatenate([points * 4, np.full((10, 3), 7.0)]), (1920, 2560))
    np.testing.assert_allclose(small[0], large[0], atol=1e-9)
    np.testing.assert_allclose(small[1], large[1], atol=1e-9)


def test_the_wrong_number_of_points_is_named():
    with pytest.raises(TalkingPortraitError, match=r"\(68, 3\)"):
        metric_mesh(np.zeros((68, 3)), (512, 512))


def test_similarities_come_back_whatever_the_points_without_weight_do():
    generator = np.random.default_rng(3)
    source, weight = generator.normal(size=(40, 3)), generator.uniform(0.1, 1, 40)
    weight[30:] = 0
    expected = np.tile(np.eye(4), (3, 1, 1))
    for matrix, angles, scale in zip(expected, [(0, 0, 0), (20, -50, 10), (5, 170, 80)], [1.0, 0.5, 3.0], strict=True):
        matrix[:3, :3] = turn(*angles) * scale
        matrix[:3, 3] = generator.normal(size=3)
    target = source @ expected[:, :3, :3].transpose(0, 2, 1) + expected[:, None, :3, 3]
    target[:, 30:] += generator.normal(size=(3, 10, 3))
    np.testing.assert_allclose(similarity(source, target, weight), expected, atol=1e-9)
