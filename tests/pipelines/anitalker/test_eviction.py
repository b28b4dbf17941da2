"""AniTalker on a host that moves every other network out at each load, and all of them between two frames."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from talking_portrait.models.anitalker.loading import build_stage1
from talking_portrait.pipelines.anitalker.animate import MotionSettings, animate, motion_from_speech, motion_from_video
from talking_portrait.pipelines.files.example import example_portrait
from talking_portrait.pipelines.memory import Resident
from talking_portrait.pipelines.types import MotionLatents

from ...tiny_weights.anitalker import STAGE2, stage1_state
from ..evicting_host import EvictingHost
from .test_anitalker import HERE, speech, stage2_of


def test_every_network_is_resident_when_frames_are_rendered() -> None:
    motion = MotionLatents(torch.linspace(-1, 1, 100).reshape(5, 20), Fraction(25))
    picture, host = example_portrait()[0], EvictingHost()
    expected = torch.cat(list(animate(Resident(build_stage1(stage1_state(), path=HERE)), picture, motion, batch=2)))
    frames = []
    for part in animate(host.manage(build_stage1(stage1_state(), path=HERE)), picture, motion, batch=2):
        frames.append(part)
        host.evict()
    torch.testing.assert_close(torch.cat(frames), expected, atol=5e-4, rtol=0)


@pytest.mark.parametrize("file", list(STAGE2))
def test_every_network_is_resident_when_motion_is_predicted(file: str) -> None:
    settings, picture, host = MotionSettings(steps=2), example_portrait()[0], EvictingHost()
    networks = build_stage1(stage1_state(), path=HERE), stage2_of(file)
    expected = motion_from_speech(*map(Resident, networks), speech(file, 6), picture, settings)
    found = motion_from_speech(*map(host.manage, networks), speech(file, 6), picture, settings)
    torch.testing.assert_close(found.codes, expected.codes, atol=5e-4, rtol=0)


def test_every_network_is_resident_when_a_video_is_encoded() -> None:
    picture, host = example_portrait()[0], EvictingHost()
    stage1 = build_stage1(stage1_state(), path=HERE)
    pictures = torch.stack([picture, picture.flip(1), picture**2])
    expected = motion_from_video(Resident(stage1), pictures, portrait=picture, batch=2)
    found = motion_from_video(
        host.manage(stage1), pictures, portrait=picture, batch=2, progress=lambda *_: host.evict()
    )
    torch.testing.assert_close(found.codes, expected.codes, atol=5e-4, rtol=0)
