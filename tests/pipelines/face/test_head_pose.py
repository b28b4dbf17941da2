from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from talking_portrait.models.face.face_mesh import face_mesh
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.face.head_pose import (
    euler_to_matrix,
    head_matrix,
    matrix_to_euler,
    nearest_rotation,
    pose_template,
    project,
    smooth_poses,
    split_matrix,
    tile_template,
)

angles = st.tuples(st.floats(-179, 179), st.floats(-89, 89), st.floats(-179, 179))


@given(angles)
def test_angles_survive_the_matrix(degrees):
    matrix = euler_to_matrix(np.array(degrees))
    assert np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1)
    assert np.allclose(matrix_to_euler(matrix), degrees, atol=1e-6)


@pytest.mark.parametrize("y", [90, -90])
def test_gimbal_lock_gives_the_same_rotation(y):
    matrix = euler_to_matrix(np.array([25.0, y, -40.0]))
    again = matrix_to_euler(matrix)
    assert again[2] == 0
    assert np.allclose(euler_to_matrix(again), matrix, atol=1e-9)


@given(angles)
def test_a_rounded_matrix_becomes_a_rotation_again(degrees):
    matrix = euler_to_matrix(np.array(degrees))
    rough = (matrix * 1.000003).astype(np.float32)
    assert np.allclose(nearest_rotation(rough), matrix, atol=1e-5)


def test_signs_of_the_angles():
    nose, crown = np.array([0.0, 0, 1]), np.array([0.0, 1, 0])
    assert (euler_to_matrix(np.array([20.0, 0, 0])) @ nose)[1] < 0  # nods down
    assert (euler_to_matrix(np.array([0, 20.0, 0])) @ nose)[0] > 0  # turns to the face's left
    assert (euler_to_matrix(np.array([0, 0, 20.0])) @ crown)[0] < 0  # leans to the face's right


def test_split_undoes_head_matrix():
    rotation, translation = np.array([[10.0, -20, 5], [0, 40, -3]]), np.array([[1.0, 2, -40], [0, -3, -60]])
    back = split_matrix(head_matrix(rotation, translation))
    assert np.allclose(back[0], rotation)
    assert np.allclose(back[1], translation)


def test_projection_is_a_pinhole():
    """A point on the axis falls on the centre; a point at the edge of the field of view falls on the border."""
    matrix = head_matrix(np.zeros(3), np.array([0.0, 0, -50]))
    edge = 50 * np.tan(np.radians(31.5))
    points = np.array([[0.0, 0, 0], [0, edge, 0], [edge * 1.5, 0, 0], [-edge * 1.5, -edge, 0]])
    pixels = project(points, matrix, (400, 600))
    assert np.allclose(pixels, [[300, 200], [300, 0], [600, 200], [0, 400]], atol=0.05)


def test_projection_takes_batches():
    matrices = head_matrix(np.random.default_rng(0).normal(0, 5, (4, 3)), np.array([[0.0, 0, -50]] * 4))
    vertices = face_mesh().vertices.astype(np.float64)
    together = project(vertices, matrices, (512, 512))
    assert together.shape == (4, 468, 2)
    assert np.allclose(together[2], project(vertices, matrices[2], (512, 512)))


@given(st.integers(1, 30), st.integers(1, 9))
def test_smoothing_averages_what_the_window_holds(frames, window):
    poses = np.random.default_rng(frames).normal(size=(frames, 6))
    smooth = smooth_poses(poses, window)
    half = window // 2
    slow = np.stack([poses[max(0, i - half) : i + half + 1].mean(axis=0) for i in range(frames)])
    assert np.allclose(smooth, slow)


def test_template_of_a_still_head_is_still():
    matrix = head_matrix(np.array([10.0, 20, 30]), np.array([1.0, 2, -50]))
    template = pose_template(np.stack([matrix] * 50), 25)
    assert template.shape == (60, 6)
    assert np.abs(template).max() < 1e-4


def test_template_of_nothing_is_refused():
    with pytest.raises(TalkingPortraitError, match="no frames"):
        pose_template(np.empty((0, 4, 4)), 25)


@given(st.integers(1, 12), st.integers(0, 60))
def test_a_tiled_template_goes_there_and_back(length, frames):
    template = np.arange(length, dtype=np.float64)[:, None] * np.ones(6)
    tiled = tile_template(template, frames)[:, 0]
    assert len(tiled) == frames
    assert np.array_equal(tiled[:length], np.arange(length)[:frames])
    if length > 1:
        assert (np.abs(np.diff(tiled)) == 1).all()
