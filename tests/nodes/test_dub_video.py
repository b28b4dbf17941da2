"""Dub Video: which face speaks, how long the result is, and what stays as filmed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from talking_portrait.nodes.render.dub_video import DubVideo
from talking_portrait.nodes.standalone.core_nodes import VideoPayload
from talking_portrait.pipelines.files.frame_stream import write_stream
from talking_portrait.pipelines.instant.driver.driver import drive

from ..robustness.inputs import FPS, buzz, face

FRAMES = 6


def filmed(path: Path, pictures: list[torch.Tensor]) -> tuple[VideoPayload, torch.Tensor]:
    """A video of pictures (H, W, 3), and its frames as they are decoded."""
    write_stream(path, [torch.stack(pictures)], FPS)
    video = VideoPayload(path=path)
    return video, video.components()[0]


def dubbed(video: VideoPayload, seconds: float, **inputs: Any) -> tuple[torch.Tensor, torch.Tensor, float, Any, str]:
    audio = buzz(seconds)
    sound = {"waveform": audio.waveform[None], "sample_rate": audio.sample_rate}
    given = {"face": "largest", "index": 0, "end": "back and forth", "engine": "opencv", **inputs}
    return DubVideo.execute(video, sound, **given).args


@pytest.fixture(scope="module")
def couple(tmp_path_factory: pytest.TempPathFactory) -> tuple[VideoPayload, torch.Tensor]:
    """Two people, the right one a little smaller and further from the centre."""
    small = torch.nn.functional.interpolate(face().permute(2, 0, 1)[None], (112, 112), mode="area")[0].permute(1, 2, 0)
    right = torch.nn.functional.pad(small, (0, 0, 24, 0, 8, 8), value=0.5)
    return filmed(tmp_path_factory.mktemp("couple") / "film.mp4", [torch.cat([face(), right], dim=1)] * FRAMES)


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        (FRAMES, None),
        (2, "The motion lasts 0.08 s and the sound 0.24 s, so its last pose is held."),
        (9, "The motion lasts 0.36 s and the sound 0.24 s, so the motion is cut where the sound ends."),
    ],
)
def test_a_motion_that_is_not_as_long_as_the_speech_is_reported(couple, frames, said):
    motion = drive(buzz(frames / 25), fps=25)
    images, _, _, _, report = dubbed(couple[0], FRAMES / 25, motion=motion)
    assert len(images) == FRAMES
    assert ("motion" in report) == (said is not None)
    assert said is None or said in report


MASK = torch.zeros(1, 128, 264)
MASK[:, :, 140:] = 1


@pytest.mark.parametrize(
    ("inputs", "speaker"),
    [
        ({"face": "nearest"}, "left"),
        ({"face": "index", "index": 1}, "right"),
        ({"mask": MASK}, "right"),
    ],
)
def test_the_chosen_face_speaks_and_the_other_stays_as_filmed(couple, inputs, speaker):
    video, frames = couple
    images, masks, fps, _, report = dubbed(video, FRAMES / 25, **inputs)
    left, right = ((images != frames)[:, :, half].any() for half in (slice(0, 130), slice(130, None)))
    assert (bool(left), bool(right)) == (speaker == "left", speaker == "right")
    assert torch.equal(images[masks == 0], frames[masks == 0])
    assert fps == 25
    assert report.startswith(f"The face is found in {FRAMES} of {FRAMES} frames.")


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> tuple[VideoPayload, torch.Tensor]:
    """A person, and then as long a picture of nobody."""
    nobody = torch.full((128, 128, 3), 0.4)
    return filmed(tmp_path_factory.mktemp("half") / "film.mp4", [face()] * FRAMES + [nobody] * FRAMES)


@pytest.mark.parametrize(
    ("end", "frames", "order", "said"),
    [
        ("cut", 8, range(8), ""),
        ("cut", 16, range(12), "so the result ends with it"),
        ("hold", 16, [*range(12), 11, 11, 11, 11], "so its last frame is held"),
        ("back and forth", 16, [*range(12), 10, 9, 8, 7], "so it is played back and forth"),
    ],
)
def test_the_result_lasts_as_long_as_is_said_and_frames_without_a_face_stay(half, end, frames, order, said):
    video, film = half
    images, masks, _, _, report = dubbed(video, frames / 25, end=end)
    assert len(images) == len(masks) == len(order)
    empty = [place for place, number in enumerate(order) if number >= FRAMES]
    assert torch.equal(images[empty], film[[order[place] for place in empty]])
    assert not masks[empty].any()
    assert masks[:FRAMES].any()
    read = min(frames, 2 * FRAMES)
    assert f"The face is found in {FRAMES} of {read} frames; the others stay as they are filmed." in report
    assert said in report
    assert ("speech" in report) == (frames > 2 * FRAMES)


def test_without_the_jaw_chin_and_cheeks_stay_as_filmed(couple):
    video, frames = couple
    rows = {}
    for jaw in (0.0, 1.0):
        images, masks, *_ = dubbed(video, FRAMES / 25, jaw=jaw)
        assert torch.equal(images[masks == 0], frames[masks == 0])
        rows[jaw] = np.flatnonzero((masks > 0).any(dim=0).any(dim=1).numpy())
    # The lips' own skin moves in both; the chin's, further down, with the jaw alone.
    changed = {jaw: (rows[jaw].min(), rows[jaw].max()) for jaw in rows}
    assert changed[0.0][1] < changed[1.0][1]
