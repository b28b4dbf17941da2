"""Bundle adjustment finds the poses that landmarks were projected with, and the camera's motion is measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from talking_portrait.models.face.face_mesh import face_mesh
from talking_portrait.pipelines.audiodvp.morphable.head_shape import MorphableHead
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.face.head_pose import euler_to_matrix, matrix_to_euler
from talking_portrait.pipelines.packages import load_opencv
from talking_portrait.pipelines.person.over_frames import smooth_within
from talking_portrait.pipelines.syncanimation.preparation import head_tracking
from talking_portrait.pipelines.syncanimation.preparation.camera_motion import MOVES, CameraMotion, Views
from talking_portrait.pipelines.syncanimation.preparation.head_place import HeadPlace
from talking_portrait.pipelines.syncanimation.preparation.head_tracking import (
    HeadTrack,
    project,
    track_head,
)

from ...morphable_face import morphable_face

SIZE, FOCAL, FRAMES = 256, 620.0, 60


@pytest.fixture(autouse=True)
def some_focal_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them take long."""
    monkeypatch.setattr(head_tracking, "FOCAL_LENGTHS", np.array([1.3, 1.7, 2.15, 2.4, 2.8]))


def poses(noise: float = 0.3, shape: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Landmarks (N, 468, 3) of a head that turns, with its rotations and translations.

    `shape` (468, 3) or (N, 468, 3) is the head's, by default one of its own.
    """
    random = np.random.default_rng(0)
    time = np.arange(FRAMES) / 25
    angles = np.stack([8 * np.sin(1.9 * time), 15 * np.sin(1.3 * time), 5 * np.cos(2.3 * time)], axis=1)
    rotation = euler_to_matrix(angles)
    translation = np.stack([2 * np.sin(time), np.cos(time) - 2, -60 + 3 * np.sin(0.7 * time)], axis=1)
    if shape is None:
        shape = face_mesh().vertices * [1.04, 0.97, 1.02] + random.normal(0, 0.1, (468, 3))
    in_camera = shape @ rotation.transpose(0, 2, 1) + translation[:, None]
    pixels = project(in_camera, FOCAL, SIZE / 2) + random.normal(0, noise, (FRAMES, 468, 2))
    depth = -(in_camera[..., 2:] - translation[:, None, 2:]) * FOCAL / 60
    return np.concatenate([pixels, depth], axis=2), rotation, translation


def test_poses_are_found_and_frames_with_wrong_landmarks_are_named() -> None:
    points, rotation, translation = poses()
    points[20] += np.random.default_rng(1).normal(0, 9, points[20].shape)
    points[40, :, 0] = 256 - points[40, :, 0]  # another face for a frame
    usable = np.ones(FRAMES, bool)
    usable[50:53] = False
    points[50:53] = 0
    head = track_head(points, usable, [(0, FRAMES)], SIZE, 25.0)
    assert not head.usable[[20, 40, 50, 51, 52]].any()
    assert head.usable.sum() == FRAMES - 5
    found, true = matrix_to_euler(head.rotation), matrix_to_euler(rotation)
    for angle in range(3):
        assert np.corrcoef(found[:, angle], true[:, angle])[0, 1] > 0.99
        assert np.polyfit(true[:, angle], found[:, angle], 1)[0] == pytest.approx(1, abs=0.12)
    turned = matrix_to_euler(head.rotation @ rotation.transpose(0, 2, 1))
    assert np.abs(turned - np.median(turned, axis=0))[head.usable].max() < 2
    assert head.error < 0.8
    assert len(head.vertices) == 100
    place = head.project(head.shape)[head.usable] - points[head.usable][:, head.vertices, :2]
    assert np.abs(place).mean() < 0.8
    across, true_across = (moved[:, 0] / moved[:, 2] for moved in (head.translation, translation))
    assert np.corrcoef(across, true_across)[0, 1] > 0.99


def test_a_face_models_shape_gives_better_poses() -> None:
    """Of a person whom the model can show, far from the canonical face, and who speaks meanwhile."""
    model = morphable_face(6, 5, identities=8)
    random = np.random.default_rng(5)
    identity = torch.from_numpy(random.normal(0, 1, model.id_base.shape[1])).float()
    swing = np.sin(np.arange(FRAMES)[:, None] / 25 * (3 + np.arange(6)) + np.arange(6))
    spoken = model.geometry(identity[None, :, None], torch.from_numpy(swing).float()[..., None])
    points, rotation, _ = poses(shape=spoken.double().numpy() * [-10, 10, 10])
    usable = np.ones(FRAMES, bool)

    def error(head: HeadTrack) -> float:
        """Degrees that the turns are off, but for one by which the head's axes differ in all frames."""
        off = matrix_to_euler(head.rotation @ rotation.transpose(0, 2, 1))
        return float(np.sqrt(np.square(off - np.median(off, axis=0)).mean()))

    without = track_head(points, usable, [(0, FRAMES)], SIZE, 25.0)
    head = MorphableHead(model)
    calls: list[float] = []
    fitted = track_head(
        points, usable, [(0, FRAMES)], SIZE, 25.0, head, lambda done, total, *_: calls.append(done / total)
    )
    assert error(without) > 0.6
    assert error(fitted) < 0.35
    assert fitted.focal == pytest.approx(FOCAL, rel=0.15)
    assert calls == sorted(calls)
    assert head.name != MorphableHead(morphable_face(6, 4)).name
    with pytest.raises(TalkingPortraitError, match="has 67 landmarks, but 68 are expected"):
        MorphableHead(replace(model, landmark_index=model.landmark_index[1:]))


def test_a_camera_in_the_heads_frame_gives_the_place_of_the_head() -> None:
    points, _, _ = poses(noise=0.0)
    head = track_head(points, np.ones(FRAMES, bool), [(0, FRAMES)], SIZE, 25.0)
    c2w = head.c2w(0.01).astype(float)
    back = np.linalg.inv(c2w[7])
    np.testing.assert_allclose(back[:3, 3] * 100, head.translation[7], atol=0.01)
    place = HeadPlace.of_camera(c2w[7], head.focal, head.centre, points[7, :36, :2], 0.01, 0.5)
    nose = np.array([[0.0, 0, 0], [0, 5.0, 0]])
    expected = head.project(nose)[7] / 2
    np.testing.assert_allclose(place.origin, expected[0], atol=0.1)
    column, row = np.round(expected[1]).astype(int)
    assert place.coordinates(SIZE // 2)[1][row, column] == pytest.approx(5, abs=0.8)


def test_each_shot_is_smoothed_for_itself() -> None:
    values = np.concatenate([np.zeros((20, 1)), np.ones((20, 1)), [[5.0]]])
    smoothed = smooth_within(values, [(0, 20), (20, 40), (40, 41)], 7, 2)
    np.testing.assert_allclose(smoothed, values, atol=1e-9)


FACE = np.array([130.0, 60, 190, 140])


def filmed(shift: float = 0.0, wall: int = 0) -> np.ndarray:
    """A room (240, 320, 3) with a person, seen `shift` pixels further to the right."""
    cv2 = load_opencv()
    texture = np.random.default_rng(wall).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    room = cv2.resize(texture, (480, 320), interpolation=cv2.INTER_CUBIC)
    frame = cv2.warpAffine(room, np.array([[1, 0, -40 - shift], [0, 1, -20.0]]), (320, 240))
    cv2.ellipse(frame, (160, 100), (40, 55), 0, 0, 360, (210, 170, 150), -1)
    cv2.rectangle(frame, (90, 165), (230, 240), (40, 40, 90), -1)
    return frame


def test_a_still_camera_is_still_and_a_moving_one_is_measured() -> None:
    still, moving = CameraMotion(), CameraMotion()
    for number in range(12):
        still.add(filmed(), FACE + number)
        moving.add(filmed(1.5 * number), FACE)
    assert still.amount == pytest.approx(0, abs=0.002)
    assert moving.amount == pytest.approx(1.5 * 10.5 / 320, abs=0.006)
    assert moving.amount > MOVES > 2 * still.amount


def test_a_cut_is_no_motion_and_a_plain_wall_says_nothing() -> None:
    cut, plain = CameraMotion(), CameraMotion()
    for number in range(8):
        if number == 4:
            cut.begin_shot()
        cut.add(filmed(wall=number // 4), FACE)
        plain.add(np.full((240, 320, 3), 120, np.uint8), FACE)
    assert cut.amount == pytest.approx(0, abs=0.002)
    assert plain.amount is None


def test_shots_of_another_view_are_found() -> None:
    views = Views()
    for number in range(3):
        views.add(0, filmed(), FACE)
        views.add(1, filmed(), FACE + [number, 0, number, 0])
        views.add(2, filmed(wall=1), FACE)
        views.add(3, filmed(), FACE * 0.7)
    assert views.others({0: 100, 1: 40, 2: 50, 3: 60}) == [2, 3]
    assert Views().others({}) == []
