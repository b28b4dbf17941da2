"""Motions as pose images of AniPortrait: any driver's motion on any portrait; speech to motion at any rate."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from talking_portrait.pipelines.aniportrait import face_motion
from talking_portrait.pipelines.aniportrait.pose_drawings import PoseDrawings
from talking_portrait.pipelines.aniportrait.pose_image import draw_pose_image
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.face.head_pose import head_matrix, project
from talking_portrait.pipelines.face.metric_mesh import metric_mesh
from talking_portrait.pipelines.files.example import example_portrait
from talking_portrait.pipelines.motion.edit import fit_length
from talking_portrait.pipelines.motion.reenact import reenact


@pytest.fixture(scope="module")
def portrait():
    return example_portrait()[1]


def speaking(portrait, frames: int = 4, fps=30, pose="head"):
    random = np.random.default_rng(0)
    offsets = 0.1 * random.standard_normal((frames, 468, 3))
    poses = random.standard_normal((frames, 3)), 0.3 * random.standard_normal((frames, 3))
    return offsets, poses, face_motion.motion_of_offsets(offsets, portrait, poses, pose=pose, fps=fps)


def test_a_drawing_is_the_published_chain(portrait):
    """Offsets on the portrait's mesh, its head matrix times the pose, perspective, lines on a square of 512."""
    offsets, poses, motion = speaking(portrait)
    mesh, matrix = metric_mesh(portrait.points[0], portrait.image_size)
    drawings = PoseDrawings(motion, (512, 512), portrait)
    assert len(drawings) == 4
    assert motion.pucker.shape == motion.lip_press.shape == (4,)
    for frame in range(4):
        head = matrix @ head_matrix(poses[0][frame], poses[1][frame])
        expected = draw_pose_image(project(mesh + offsets[frame], head, (512, 512)), (512, 512))
        drawn = (drawings[frame] * 255).round().byte().numpy()
        assert (drawn != expected).any(axis=-1).mean() < 2e-3, "single precision may move a point by a pixel"
        assert expected.any(axis=-1).mean() > 0.01


def test_a_published_reenactment_puts_the_same_face_where_it_was(portrait):
    motion = reenact(portrait, portrait, fps=25, pose="absolute", transfer="published")
    points = portrait.points[0][:468, :2]
    drawn = PoseDrawings(motion, (512, 512), portrait)[0]
    expected = torch.from_numpy(draw_pose_image(points, (512, 512))) / 255
    y, x = torch.nonzero(drawn.sum(dim=-1), as_tuple=True)
    ey, ex = torch.nonzero(expected.sum(dim=-1), as_tuple=True)
    for one, other in ((x, ex), (y, ey)):
        assert abs(int(one.min()) - int(other.min())) <= 3
        assert abs(int(one.max()) - int(other.max())) <= 3


def test_another_faces_motion_moves_this_face(portrait):
    _, _, motion = speaking(portrait)
    shift = np.array([0.0, 0.5, 0.0], dtype=np.float32)
    other = replace(motion, vertices=motion.vertices * 1.2 + shift, neutral=motion.neutral * 1.2 + shift)
    still = replace(other, vertices=np.repeat(other.neutral[None], 4, axis=0))
    own = replace(motion, vertices=np.repeat(motion.neutral[None], 4, axis=0))
    drawn, expected = (PoseDrawings(m, (256, 256), portrait)[2] for m in (still, own))
    assert (drawn != expected).any(dim=-1).float().mean() < 5e-3, "rounding may move a point by a pixel"


def test_what_cannot_be_drawn_is_reported(portrait):
    _, _, motion = speaking(portrait)
    with pytest.raises(TalkingPortraitError, match="portrait's landmarks are expected"):
        PoseDrawings(motion, (64, 64))
    assert PoseDrawings(replace(motion, pose="camera"), (64, 64))[0].shape == (64, 64, 3)
    with pytest.raises(TalkingPortraitError, match="no frames"):
        PoseDrawings(fit_length(motion, 0), (64, 64), portrait)


@settings(max_examples=20)
@given(frames=st.integers(1, 40), fps=st.sampled_from([10, 24, 25, 30, 60, Fraction(24000, 1001)]))
def test_a_motion_covers_the_speech_at_any_rate(frames, fps):
    portrait = example_portrait()[1]
    motion = face_motion.motion_of_offsets(
        np.zeros((frames, 468, 3)), portrait, face_motion.still_poses(frames), fps=fps
    )
    assert motion.fps == fps
    assert motion.frames == -(-frames * fps // 30)


@settings(max_examples=30)
@given(length=st.integers(1, 12), frames=st.integers(1, 60))
def test_a_template_plays_forward_and_back_without_a_jump(length, frames):
    template = np.arange(length * 6.0).reshape(length, 6)
    rotation, translation = face_motion.template_poses(template, frames)
    assert rotation.shape == translation.shape == (frames, 3)
    assert (abs(np.diff(rotation[:, 0])) <= 6).all()


def test_template_files_are_read_and_refused(tmp_path):
    path = tmp_path / "pose.npy"
    np.save(path, np.ones((5, 6), dtype=np.float32))
    assert face_motion.read_template(path).shape == (5, 6)
    for content, words in (
        (np.ones((5, 3)), r"an array of the shape \(5, 3\)"),
        (np.ones((0, 6)), "holds no poses"),
        (np.full((2, 6), np.nan), "NaN"),
        (np.array([["a"] * 6]), "head-pose template"),
    ):
        np.save(path, content)
        with pytest.raises(TalkingPortraitError, match=words):
            face_motion.read_template(path)
    for damaged in (b"", b"\x93NUMPY", b"text"):
        path.write_bytes(damaged)
        with pytest.raises(TalkingPortraitError, match="no array of numbers"):
            face_motion.read_template(path)
