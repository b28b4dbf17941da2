"""SyncNet's way from video and sound to numbers, with networks whose embeddings are made by hand."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from talking_portrait.pipelines.evaluation.lip_sync import (
    LipSync,
    align,
    face_boxes,
    face_crop,
    lip_embeddings,
    lip_sync,
    sound_embeddings,
)
from talking_portrait.pipelines.evaluation.watched_face import watch_face
from talking_portrait.pipelines.files.video import open_video
from talking_portrait.pipelines.types import Audio, no_progress

from ...speaking_person import MARK, MarkLandmarker, Scene, picture, write_video

FRAMES = 60


@pytest.mark.parametrize("late", [-15, -4, 0, 7, 15])
def test_sound_that_is_moved_moves_the_offset_by_as_much(late: int) -> None:
    """Lips `late` frames after their sound."""
    lips = torch.randn(90, 16, generator=torch.Generator().manual_seed(0))
    found = align(lips, torch.roll(lips, -late, 0))
    assert found.offset == late
    assert found.distance < 0.2 * found.confidence + abs(late)
    parts = align(lips.repeat(25, 1), torch.roll(lips.repeat(25, 1), -late, 0))
    assert parts.offset == late, "also of more frames than are compared at once"
    assert found.confidence > 3


def test_distance_and_confidence_are_those_of_the_best_and_the_median_shift() -> None:
    lips = torch.zeros(40, 2)
    sounds = torch.tensor([3.0, 4.0]).repeat(40, 1)
    found = align(lips, sounds)  # 5 apart wherever there is sound, 0 beyond its ends
    assert abs(found.offset) == 15
    assert found.distance == pytest.approx(5 * 25 / 40, abs=1e-3)
    assert found.distance + found.confidence == pytest.approx(5 * 32 / 40, abs=1e-3)


class Echo:
    """Embeds what it is given by its first and last value."""

    def embed_sound(self, mfcc: torch.Tensor) -> torch.Tensor:
        assert mfcc.shape[1:] == (20, 13)
        return torch.stack([mfcc[:, 0, 3], mfcc[:, -1, 3]], 1)

    def embed_lips(self, crops: torch.Tensor) -> torch.Tensor:
        assert crops.shape[1:] == (5, 3, 4, 4)
        return torch.stack([crops[:, 0, 2, 1, 1], crops[:, -1, 2, 1, 1]], 1)


@pytest.mark.parametrize("count", [1, 8, 21])
def test_frames_from_t_on_belong_to_rows_from_4t_on(count: int) -> None:
    times = np.arange(count)
    rows = torch.arange(4 * count + 30.0)[:, None].repeat(1, 13)
    sounds = sound_embeddings(Echo(), rows, count, no_progress)  # type: ignore[arg-type]
    assert sounds.tolist() == np.stack([4 * times, 4 * times + 19], 1).tolist()
    crops = (np.full((3, 4, 4), number, np.uint8) for number in range(count + 9))
    lips = lip_embeddings(Echo(), crops, count, no_progress)  # type: ignore[arg-type]
    assert lips.tolist() == np.stack([times, times + 4], 1).tolist()


class Brightness:
    """Embeds crops by their brightness over time, and sound by its energy; both are 1 where it is high."""

    def embed_sound(self, mfcc: torch.Tensor) -> torch.Tensor:
        return (mfcc[:, :, 0].unflatten(1, (5, 4)).mean(2) > 18).float()

    def embed_lips(self, crops: torch.Tensor) -> torch.Tensor:
        assert crops.shape[1:] == (5, 3, 224, 224)
        return (crops[..., 80:150, 80:150].mean((2, 3, 4)) > 60).float()


def flashing(scene: Scene) -> np.ndarray:
    """Bright where the scene's place is not 0, without moving anything."""
    frame = picture(Scene())
    frame[MARK:] = 120 if scene.place else 20
    return frame


@pytest.mark.parametrize(("late", "fps"), [(0, 25), (-4, 25), (6, 50)])
def test_a_video_and_its_sound_meet_where_they_belong_together(tmp_path: Path, late: int, fps: int) -> None:
    on = np.random.default_rng(0).random(FRAMES) < 0.5
    scenes = [Scene(place=int(on[number * 25 // fps])) for number in range(FRAMES * fps // 25)]
    path = write_video(tmp_path / "v.mp4", scenes, fps=Fraction(fps), sound=None, drawn=flashing)
    noise = np.random.default_rng(1).standard_normal(FRAMES * 640)
    wave = np.roll(noise * np.repeat(np.where(on, 0.2, 1e-4), 640), -late * 640)
    video = open_video(path)
    face = watch_face(video, MarkLandmarker(), progress=no_progress)
    audio = Audio(torch.from_numpy(wave).float()[None], 16000)
    found = lip_sync(video, face, audio, Brightness(), progress=no_progress)  # type: ignore[arg-type]
    assert isinstance(found, LipSync)
    assert found.offset == late
    assert found.confidence > 0.5
    short = Audio(audio.waveform[:, :30000], 16000)
    assert lip_sync(video, face, short, Brightness(), progress=no_progress) is None  # type: ignore[arg-type]


def test_boxes_follow_the_face_without_outliers(tmp_path: Path) -> None:
    scenes = [Scene(persons=2 if number == 10 else 1) for number in range(20)]
    video = open_video(write_video(tmp_path / "v.mp4", scenes, sound=None))
    steps: list[tuple[int, int]] = []
    face = watch_face(video, MarkLandmarker(), progress=lambda done, total, _=None: steps.append((done, total)))
    assert steps == [(number, 20) for number in range(1, 21)], "without sound too"
    boxes = face_boxes(face)
    assert boxes.shape == (20, 3)
    low, high = face.flat[0, :468].min(axis=0), face.flat[0, :468].max(axis=0)
    expected = [*(low + high) / 2, (high - low).max() / 2]
    np.testing.assert_allclose(boxes, np.tile(expected, (20, 1)), atol=0.5)


@pytest.mark.parametrize("box", [(60.0, 50.0, 20.0), (8.0, 5.0, 25.0), (118.0, 95.0, 30.0), (-90.0, 50.0, 10.0)])
def test_a_crop_has_room_beside_and_below_and_grey_beyond_the_picture(box: tuple[float, float, float]) -> None:
    """A picture whose red grows to the right and whose blue grows downwards."""
    frame = np.zeros((100, 120, 3), np.uint8)
    frame[..., 0] = np.arange(120) * 2
    frame[..., 2] = np.arange(100)[:, None] * 2
    x, y, half = box
    crop = face_crop(frame, np.array(box)).astype(float)
    across = x - 1.4 * half + 2.8 * half * (np.arange(224) + 0.5) / 224 - 0.5
    down = y - half + 2.8 * half * (np.arange(224) + 0.5) / 224 - 0.5
    inside_x, inside_y = (across > 1) & (across < 118), (down > 1) & (down < 98)
    if inside_x.any():
        inner = np.ix_(inside_y, inside_x)
        np.testing.assert_allclose(crop[2][inner], np.tile(2 * across[inside_x], (inside_y.sum(), 1)), atol=3)
        np.testing.assert_allclose(crop[0][inner], np.tile(2 * down[inside_y], (inside_x.sum(), 1)).T, atol=3)
    assert (np.abs(crop[:, :, (across < -1) | (across > 121)] - 110) < 1).all()
    assert (np.abs(crop[:, (down < -1) | (down > 101)] - 110) < 1).all()
