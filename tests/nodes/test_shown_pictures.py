"""Pictures that nodes show on themselves, in a host that keeps them and in others."""

from __future__ import annotations

import dataclasses
import errno
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from talking_portrait.nodes import host
from talking_portrait.nodes.extension import NODES
from talking_portrait.nodes.standalone.core_nodes import VideoPayload
from talking_portrait.pipelines.files.example import example_speech
from talking_portrait.pipelines.types import Audio

from ..tiny_weights import gfpgan

BY_ID = {node.GET_SCHEMA().node_id.removeprefix("TalkingPortrait"): node for node in NODES}
DRIVE = (0, 1.0, 1.0, 1.0, 1.0, 1.0)


class PreviewImage:
    """Takes what ComfyUI's own takes, a list or batch of pictures, and keeps it."""

    def __init__(self, pictures: Any) -> None:
        for picture in pictures:
            assert picture.dtype == torch.float32
            assert picture.device.type == "cpu"
            assert picture.shape[-1] == 3
        self.pictures = list(pictures)


@pytest.fixture
def keeping(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose Schema has the field."""
    latest, ui = ModuleType("comfy_api.latest"), ModuleType("ui")
    monkeypatch.setattr(ui, "PreviewImage", PreviewImage, raising=False)
    monkeypatch.setattr(latest, "ui", ui, raising=False)
    monkeypatch.setitem(sys.modules, "comfy_api", ModuleType("comfy_api"))
    monkeypatch.setitem(sys.modules, "comfy_api.latest", latest)
    monkeypatch.setattr(host, "KEEPS_PICTURES", True)
    newer = dataclasses.make_dataclass(
        "Schema",
        [("has_intermediate_output", bool, dataclasses.field(default=False))],
        bases=(host.io.Schema,),
    )
    monkeypatch.setattr(host.io, "Schema", newer)


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gfpgan.write_models(tmp_path)
    monkeypatch.setenv("TALKING_PORTRAIT_MODELS", str(tmp_path))


def motion() -> Any:
    _, sound, _ = BY_ID["Sample"].execute().args
    return BY_ID["InstantDriver"].execute({**sound, "waveform": sound["waveform"][..., :1600]}, 10, *DRIVE).args[0]


def restored() -> Any:
    portrait, _, landmarks = BY_ID["Sample"].execute().args
    (restorer,) = BY_ID["LoadFaceRestorer"].execute("GFPGANv1.4.pth").args
    return BY_ID["RestoreFaces"].execute(portrait, 1.0, "centre", restorer, landmarks=landmarks, enlarge=2.0)


def evaluated() -> Any:
    """A second of a face that keeps still."""
    portrait, _, _ = BY_ID["Sample"].execute().args
    speech = Audio(example_speech().waveform[:, :16000], 16000)
    return BY_ID["EvaluateVideo"].execute(VideoPayload(portrait.repeat(25, 1, 1, 1), speech, Fraction(25)))


SHOWN: dict[str, tuple[Callable[[], Any], list[tuple[int, int]]]] = {
    "PreviewMotion": (lambda: BY_ID["PreviewMotion"].execute(motion(), 64, None, 320, 240), [(240, 320)]),
    "DrawPose": (
        lambda: BY_ID["DrawPose"].execute(motion(), 72, 64, BY_ID["Sample"].execute().args[2]),
        [(64, 72)],
    ),
    "DetectLandmarks": (
        lambda: BY_ID["DetectLandmarks"].execute(
            BY_ID["Sample"].execute().args[0], "largest", 0, "hold", engine="opencv"
        ),
        [(512, 512)],
    ),
    "CropPortrait": (
        lambda: BY_ID["CropPortrait"].execute(*BY_ID["Sample"].execute().args[::2], 96, "head", 1.0, False, False),
        [(96, 96)],
    ),
    "RegionMasks": (
        lambda: BY_ID["RegionMasks"].execute(1.2, 2.0, BY_ID["Sample"].execute().args[2]),
        [(512, 512)],
    ),
    "EvaluateVideo": (evaluated, [(960, 1280)]),
    "RestoreFaces": (restored, [(512, 512), (1024, 1024)]),
}
"""What each node does, and the sizes of what it shows."""


def test_nodes_that_show_pictures_say_so(keeping: None) -> None:
    saying = {name for name, node in BY_ID.items() if node.define_schema().has_intermediate_output}
    assert saying == set(SHOWN)


@pytest.mark.parametrize("name", SHOWN)
def test_a_node_shows_its_first_picture(name: str, keeping: None, models: None) -> None:
    execute, sizes = SHOWN[name]
    pictures = execute().ui.pictures
    assert [tuple(picture.shape[:2]) for picture in pictures] == sizes
    assert all(picture.std() > 0.01 for picture in pictures), "it is not empty"


def test_a_node_whose_picture_can_not_be_written_still_gives_its_results(keeping: None, monkeypatch, caplog) -> None:
    def full(pictures: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys.modules["comfy_api.latest"].ui, "PreviewImage", full)
    result = SHOWN["DetectLandmarks"][0]()
    assert result.ui is None
    assert len(result.args[0]["frames"]) == 1
    assert "picture can't be shown" in caplog.text
    assert "(No space left on device)" in caplog.text


def test_detected_landmarks_are_dots_on_the_picture(keeping: None) -> None:
    portrait, _, landmarks = BY_ID["Sample"].execute().args
    (picture,) = SHOWN["DetectLandmarks"][0]().ui.pictures
    changed = (picture - portrait[0]).abs().amax(-1) > 0.05
    rows, columns = changed.nonzero(as_tuple=True)
    assert 100 < len(rows) < 0.05 * changed.numel()
    face = landmarks["frames"][0][0]["landmarks_xy"]
    assert abs(float(columns.float().mean()) - float(face[:, 0].mean())) < 20
    assert abs(float(rows.float().mean()) - float(face[:, 1].mean())) < 20


@pytest.mark.parametrize("name", SHOWN)
def test_elsewhere_nothing_is_shown(name: str, models: None) -> None:
    assert SHOWN[name][0]().ui is None
    assert "has_intermediate_output" not in {field.name for field in dataclasses.fields(host.io.Schema)}
