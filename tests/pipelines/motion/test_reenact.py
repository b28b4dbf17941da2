from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from talking_portrait.models.face.eyelid_shapes import eyelid_closure
from talking_portrait.models.face.face_mesh import BLENDSHAPES, face_mesh, mouth_opening
from talking_portrait.models.face.mouth_shapes import neutral_vertices
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.face.head_pose import euler_to_matrix, head_matrix
from talking_portrait.pipelines.face.metric_mesh import metric_mesh
from talking_portrait.pipelines.motion.reenact import most_neutral_frame, reenact, transfer_poses, transfer_vertices

from ..face.moving_faces import face_motion, in_camera_pose

FRAMES = 40


@pytest.fixture(scope="module")
def talking_track():
    """A video in which the mouth opens and closes, the eyes blink once and the head turns by known angles."""
    jaw = np.clip(0.5 * np.sin(np.arange(FRAMES) / 3), 0, 1)
    closed = np.zeros(FRAMES)
    closed[25:29] = [0.5, 1, 0.6, 0.2]
    motion = face_motion(FRAMES, seed=2, jaw=jaw, closed=closed)
    track = in_camera_pose(motion.vertices, motion.rotation, motion.translation + [1, -2, -50])
    return motion, replace(track, blendshapes=motion.blendshapes)


@pytest.fixture(scope="module")
def nodding_track():
    """A closed mouth, brows and a head that move: MediaPipe's head matrix nods a little with the jaw, so it rests."""
    motion = face_motion(FRAMES, seed=2, jaw=np.zeros(FRAMES))
    track = in_camera_pose(motion.vertices, motion.rotation, motion.translation + [1, -2, -50])
    return motion, replace(track, blendshapes=motion.blendshapes)


def portrait(stretch=(1.0, 1.0, 1.0), gap=0.0, pose=(0.0, 0.0, 0.0)):
    """Another person: the canonical face scaled along its axes, with lips `gap` cm apart."""
    vertices = neutral_vertices().astype(np.float64)
    vertices[face_mesh().vertices[:, 1] < -4.4, 1] -= gap
    return in_camera_pose(
        (vertices * stretch)[None], np.array([pose], dtype=float), np.array([[0.0, 1, -45]]), (600, 480)
    )


def test_lips_follow_and_closures_close(talking_track):
    motion, track = talking_track
    for face in (portrait(), portrait((1.15, 0.9, 1.0)), portrait(gap=0.6)):
        result = reenact(track, face, fps=25)
        before, after = mouth_opening(motion.vertices), mouth_opening(result.vertices)
        assert result.frames == FRAMES
        assert mouth_opening(result.neutral) < 1e-3
        assert np.corrcoef(before, after)[0, 1] > 0.99
        assert 0.8 < after.std() / before.std() < 1.25
        assert after[before < 1e-3].max() < 0.01


def test_the_eyes_look_where_the_drivers_do(talking_track):
    _, track = talking_track
    scores = np.zeros_like(track.blendshapes)
    for name in ("eyeLookOutLeft", "eyeLookInRight", "eyeLookDownLeft", "eyeLookDownRight"):
        scores[20:, BLENDSHAPES.index(name)] = 0.5
    gaze = reenact(replace(track, blendshapes=scores), portrait(), fps=25).gaze
    assert np.abs(gaze[:20]).max() == 0
    assert gaze[20:, 0].min() > 10  # to the face's left
    assert gaze[20:, 1].max() < -10
    assert reenact(replace(track, blendshapes=None), portrait(), fps=25).gaze is None


def test_lips_that_a_landmarker_leaves_ajar_close(talking_track):
    motion, _ = talking_track
    ajar = motion.vertices.copy()
    ajar[:, face_mesh().vertices[:, 1] < -4.4, 1] -= 0.1  # about 0.011 eye distances
    track = in_camera_pose(ajar, motion.rotation, motion.translation + [0, 0, -50])
    result = reenact(track, portrait(), fps=25)
    assert mouth_opening(track.points).min() > 0.008
    assert mouth_opening(result.vertices).min() < 0.002


def test_eyes_shut_together_with_the_driver(talking_track):
    motion, track = talking_track
    result = reenact(track, portrait((1.1, 1.0, 1.0)), fps=25)
    before, after = (eyelid_closure(m.vertices, m.neutral) for m in (motion, result))
    assert after[26].min() > 0.97
    assert np.abs(after - before)[:20].max() < 0.05
    assert np.corrcoef(before[:, 0], after[:, 0])[0, 1] > 0.97


def test_relative_pose_is_the_turn_from_the_usual_pose(nodding_track):
    motion, track = nodding_track
    face = portrait(pose=(5.0, -20, 3))
    result = reenact(track, face, fps=25, window=1)
    assert result.pose == "head"
    usual = np.median(motion.rotation, axis=0)
    expected = euler_to_matrix(usual).T @ euler_to_matrix(motion.rotation)
    error = expected.transpose(0, 2, 1) @ euler_to_matrix(result.rotation)
    angle = np.degrees(np.arccos(np.clip((np.trace(error, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    assert angle.max() < 1.0
    assert np.abs(np.median(result.rotation, axis=0)).max() < 0.5


def test_absolute_pose_is_the_drivers(nodding_track):
    motion, track = nodding_track
    face = portrait()
    result = reenact(track, face, fps=25, pose="absolute", window=1)
    assert result.pose == "camera"
    assert np.abs(result.rotation - motion.rotation).max() < 1.0
    assert np.allclose(result.translation[0], [0, 1, -45], atol=1.0)


@pytest.mark.parametrize("pose", ["relative", "absolute"])
def test_amounts_of_zero_are_no_motion(talking_track, pose):
    _, track = talking_track
    result = reenact(track, portrait(), fps=25, expression=0, head=0, translation=0, pose=pose)
    assert np.abs(result.vertices - result.neutral).max() < 1e-6
    assert np.ptp(result.rotation, axis=0).max() < 1e-6
    assert np.ptp(result.translation, axis=0).max() < 1e-5
    assert not result.blendshapes.any()


def test_brows_are_transferred(nodding_track):
    motion, track = nodding_track
    result = reenact(track, portrait((1.1, 0.95, 1)), fps=25)
    brow = 105
    lift = result.vertices[:, brow, 1] - result.neutral[brow, 1]
    expected = motion.vertices[:, brow, 1] - motion.neutral[brow, 1]
    assert np.corrcoef(lift, expected)[0, 1] > 0.95
    assert 0.6 < lift.std() / expected.std() < 1.4


def test_the_scale_of_the_portraits_face_makes_no_difference(talking_track):
    """Landmarks cannot distinguish a large face far away from a small one near by."""
    _, track = talking_track
    small, large = (reenact(track, portrait((s, s, s)), fps=25) for s in (1, 1.2))
    assert np.allclose(small.vertices, large.vertices, atol=0.05)


def test_without_expression_scores_the_neutral_frames_are_found_by_shape(talking_track):
    motion, track = talking_track
    result = reenact(replace(track, blendshapes=None), portrait(), fps=25)
    assert result.blendshapes is None
    assert np.corrcoef(mouth_opening(motion.vertices), mouth_opening(result.vertices))[0, 1] > 0.99


def test_frames_without_a_face_are_never_the_neutral_frame(talking_track):
    _, track = talking_track
    found = np.zeros(FRAMES, dtype=bool)
    with pytest.raises(TalkingPortraitError, match="No frame"):
        reenact(replace(track, found=found), portrait(), fps=25)
    found[5:] = True
    scores = track.blendshapes.copy()
    scores[:5] = 0  # a detector's zeros where there was no face
    wild = track.points.copy()
    wild[:5, :, 1] = wild[:5, ::-1, 1]
    result = reenact(replace(track, found=found, blendshapes=scores, points=wild), portrait(), fps=25)
    sane = reenact(replace(track, found=found), portrait(), fps=25)
    assert np.allclose(result.vertices[5:], sane.vertices[5:], atol=0.2)


def test_impossible_requests_are_refused(talking_track):
    _, track = talking_track
    face = portrait()
    odd = ({"pose": "x"}, {"window": 0}, {"window": 2.5})
    for wrong in ({"expression": -1}, {"head": np.nan}, {"translation": 9}, {"fps": 0}, *odd):
        with pytest.raises(TalkingPortraitError, match="expected"):
            reenact(track, face, **{"fps": 25, **wrong})
    with pytest.raises(TalkingPortraitError, match="portrait hold no face"):
        reenact(track, replace(face, points=face.points * np.nan), fps=25)
    with pytest.raises(TalkingPortraitError, match="driving video hold no face"):
        reenact(replace(track, points=track.points[:0]), face, fps=25)


def test_progress_is_reported(talking_track):
    _, track = talking_track
    reports = []
    reenact(track, portrait(), fps=25, progress=lambda done, total, preview=None: reports.append((done, total)))
    assert reports[-1] == (FRAMES, FRAMES)


def test_the_published_chain():
    scores = np.array([[0.5, 0.2], [0.1, 0.1], [0.0, 0.3]])
    assert most_neutral_frame(scores) == 1
    source = np.random.default_rng(0).normal(size=(3, 468, 3))
    moved = transfer_vertices(source, 1, np.ones((468, 3)))
    assert np.allclose(moved[1], 1)
    assert np.allclose(moved[2] - moved[0], source[2] - source[0])
    rotation = np.array([[0.0, 10, 0], [0, 20, 0], [0, 60, 0]])
    matrices = head_matrix(rotation, np.array([[1.0, 2, -50], [2, 2, -50], [3, 2, -50]]))
    reference = head_matrix(np.zeros(3), np.array([0.0, 0, -30]))
    poses = transfer_poses(matrices, reference)
    assert np.allclose(poses[:, 1], [15, 30, 40])  # averaged over three frames, two at the ends
    assert np.allclose(poses[:, 3:], [[0.5, 0, -30], [1, 0, -30], [1.5, 0, -30]])


def test_the_published_transfer_is_aniportraits_chain(talking_track):
    _, track = talking_track
    face = portrait(gap=0.4)
    result = reenact(track, face, fps=25, pose="absolute", transfer="published")
    meshes, matrices = metric_mesh(track.points, track.image_size)
    own, own_matrix = metric_mesh(face.points[0], face.image_size)
    most_neutral = most_neutral_frame(track.blendshapes[:, 1:])
    np.testing.assert_allclose(result.vertices, transfer_vertices(meshes, most_neutral, own), atol=1e-4)
    np.testing.assert_allclose(
        np.hstack([result.rotation, result.translation]), transfer_poses(matrices, own_matrix), atol=1e-4
    )
    half = reenact(track, face, fps=25, expression=0.5, pose="absolute", transfer="published")
    np.testing.assert_allclose(half.vertices - own, (result.vertices - own) / 2, atol=1e-4)
