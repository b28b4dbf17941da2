from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from talking_portrait.models.gfpgan import GFPGAN
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.face.restoration import TEMPLATE, alignment, report_on, restored_frames
from talking_portrait.pipelines.image.affine_sampling import apply_map
from talking_portrait.pipelines.memory import Resident
from talking_portrait.pipelines.types import FaceTrack

from ...tiny_weights.gfpgan import CONFIG, gfpgan
from ..evicting_host import EvictingHost
from .test_crop import a_track, noise, ramps

SIZE = (240, 320)


class Painter(GFPGAN):
    """Returns the given picture in the face's place, and counts its calls."""

    def __init__(self, paint, limit: int = 99) -> None:
        super().__init__(CONFIG)
        self.paint, self.limit, self.batches = paint, limit, []

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        if len(faces) > self.limit:
            raise torch.OutOfMemoryError("too many")
        self.batches.append(len(faces))
        return self.paint(faces)


def restore(images: torch.Tensor, tracks, paint=torch.neg, limit: int = 99, **options) -> tuple[torch.Tensor, Painter]:
    network = Painter(paint, limit)
    tracks = [tracks] if isinstance(tracks, FaceTrack) else tracks
    return torch.stack(list(restored_frames(images, tracks, Resident(network), **options))), network


def moving(frames: int = 6, tremble: float = 0.0) -> FaceTrack:
    random = np.random.default_rng(0)
    track = a_track(SIZE, [(150 + 2 * i, 110 + i) for i in range(frames)], face=90.0, roll=10.0)
    return replace(track, points=track.points + random.normal(0, tremble, track.points.shape))


# --- where the face is cut ---


@pytest.mark.parametrize("roll", [0.0, 35.0, -90.0])
def test_the_eyes_nose_and_mouth_are_aligned_to_the_network_template(roll):
    track = a_track(SIZE, [(160, 120), (100, 80)], face=90.0, roll=roll)
    maps = alignment(track, 0)
    assert maps.shape == (2, 2, 3)
    for matrix, points in zip(maps, track.points, strict=True):
        placed = apply_map(matrix, TEMPLATE)
        eyes = np.stack([points[[33, 133]].mean(axis=0), points[[362, 263]].mean(axis=0)])[:, :2]
        scale = np.linalg.norm(eyes[1] - eyes[0])
        assert np.linalg.norm(placed[:2] - eyes, axis=1).max() < 0.15 * scale
        assert np.linalg.norm(placed[3:] - points[[61, 291], :2], axis=1).max() < 0.15 * scale
        assert np.allclose(matrix[0, 0], matrix[1, 1])
        assert np.allclose(matrix[0, 1], -matrix[1, 0])


def test_the_crop_follows_the_head_and_not_the_jitter():
    def unsteadiness(maps: np.ndarray) -> float:
        return float(np.abs(np.diff(maps, n=2, axis=0)[2:-2]).max())

    trembling, steady = moving(30, 1.0), moving(30)
    assert np.allclose(alignment(steady, 1), alignment(steady, 0), atol=0.01)
    assert unsteadiness(alignment(trembling, 1)) < 0.25 * unsteadiness(alignment(trembling, 0))


def test_smoothing_stops_at_a_cut_in_the_video():
    track = a_track(SIZE, [(80, 120)] * 10 + [(240, 100)] * 10, face=90.0)
    assert np.allclose(alignment(track, 1), alignment(track, 0), atol=1e-6)


# --- what is pasted ---


def test_the_network_takes_and_changes_the_face_alone():
    images, track = ramps(*SIZE, frames=3), moving(3)
    result, network = restore(images, track, colour_match=0)
    assert network.batches == [3]
    changed = (result - images).abs().amax(dim=(0, 3)) > 0
    x, y = track.points[1, :, 0], track.points[1, :, 1]
    assert changed[int(y.mean()), int(x.mean())]
    assert not changed[:, : int(x.min()) - 35].any()
    assert not changed[: int(y.min()) - 35].any()
    middle = result[1, int(y.mean()), int(x.mean())]
    torch.testing.assert_close(middle, 1 - images[1, int(y.mean()), int(x.mean())], atol=0.02, rtol=0)


def test_a_network_that_changes_nothing_leaves_the_picture_nearly_as_it_is():
    images = ramps(*SIZE, frames=2)
    result, _ = restore(images, moving(2), paint=lambda faces: faces)
    assert (result - images).abs().max() < 0.01
    larger, _ = restore(images, moving(2), paint=lambda faces: faces, enlarge=2.0)
    assert larger.shape == (2, 480, 640, 3)
    torch.testing.assert_close(larger, ramps(480, 640, frames=2), atol=0.01, rtol=0)


def test_strength_mixes_and_zero_is_bit_for_bit_the_picture():
    images, track = noise(2, *SIZE, 3), moving(2)
    full, half = (restore(images, track, strength=s, colour_match=0)[0] for s in (1.0, 0.5))
    torch.testing.assert_close(half, (full + images) / 2, atol=1e-3, rtol=0)
    assert torch.equal(restore(images, track, strength=0.0)[0], images)


def test_frames_without_a_face_pass_and_are_counted():
    images = noise(5, *SIZE, 3)
    track = moving(5)
    track = replace(track, found=np.array([True, False, True, False, False]))
    result, network = restore(images, track, batch=2)
    assert sum(network.batches) == 2
    for number in (1, 3, 4):
        assert torch.equal(result[number], images[number])
    assert not torch.allclose(result[0], images[0], atol=0.1)
    report = report_on([track], 5)
    assert (report.frames, report.restored) == (5, 2)
    assert "2 of 5 frames" in str(report)
    assert torch.equal(restore(images, [])[0], images)


def test_several_faces_and_one_track_for_all_frames():
    left, right = (a_track(SIZE, [(x, 120)], face=80.0) for x in (80, 240))
    images = ramps(*SIZE, frames=3)
    result, network = restore(images, [left, right], batch=2, colour_match=0)
    assert network.batches == [2, 2, 2]
    for x in (80, 240):
        torch.testing.assert_close(result[:, 120, x], 1 - images[:, 120, x], atol=0.02, rtol=0)
    assert torch.equal(result[:, :, 160], images[:, :, 160])


def test_the_batch_size_changes_nothing_and_shrinks_when_memory_runs_out():
    images, track = noise(5, *SIZE, 3), moving(5)
    one, _ = restore(images, track, batch=1)
    five, _ = restore(images, track, batch=5)
    short, network = restore(images, track, batch=5, limit=2)
    assert network.batches == [2, 2, 1]
    torch.testing.assert_close(one, five, atol=1e-6, rtol=0)
    torch.testing.assert_close(short, five, atol=1e-6, rtol=0)
    with pytest.raises(TalkingPortraitError, match="not suffice for even one face"):
        restore(images, track, limit=0)


def test_the_real_network_takes_part():
    images = noise(2, *SIZE, 4)
    reports = []
    frames = list(
        restored_frames(images, [moving(2)], Resident(gfpgan()), progress=lambda *now: reports.append(now[:2]))
    )
    assert reports == [(1, 2), (2, 2)]
    assert frames[0].shape == (*SIZE, 4)
    assert torch.equal(frames[0][..., 3], images[0, ..., 3])
    assert 0 <= frames[0].min() <= frames[0].max() <= 1
    assert not torch.allclose(frames[0], images[0], atol=0.01)


def test_bad_input_gets_a_sentence():
    images, track = noise(2, *SIZE, 3), moving(2)
    with pytest.raises(TalkingPortraitError, match="pictures are 320 x 240 pixels, but the landmarks were found in"):
        restore(images, replace(track, image_size=(100, 100)))
    with pytest.raises(TalkingPortraitError, match="2 pictures and landmarks for 6"):
        restore(images, moving(6))
    with pytest.raises(TalkingPortraitError, match="strength is 2"):
        restore(images, track, strength=2)
    with pytest.raises(TalkingPortraitError, match="not numbers"):
        restore(images, track, paint=lambda faces: faces * torch.nan)


def test_the_network_is_there_for_each_batch_whatever_ran_in_between():
    host = EvictingHost()
    network, images, track = gfpgan(), noise(3, *SIZE, 3), moving(3)
    expected = torch.stack(list(restored_frames(images, [track], Resident(network), batch=1)))
    frames = []
    for frame in restored_frames(images, [track], host.manage(network), batch=1):
        frames.append(frame)
        host.evict()
    torch.testing.assert_close(torch.stack(frames), expected, atol=5e-4, rtol=0)
