"""Damaged folders of prepared clips: each ends in one sentence that names the file, in a reading process as in this."""

from __future__ import annotations

import json
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from talking_portrait.__main__ import main
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.training.aniportrait.datasets import PortraitVideos, SpokenPoses, SpokenShapes
from talking_portrait.pipelines.training.apasco.datasets import SpokenVideos
from talking_portrait.pipelines.training.core.loop import train
from talking_portrait.pipelines.training.core.trainer import Plan
from talking_portrait.pipelines.training.data.clips import Clip, read_clips

from . import training_bench as bench
from .toy_trainer import Plain

FRAMES = 30


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    clip = bench.make_clip(folder, "one", frames=FRAMES, fps=25)
    np.save(clip.folder / "speech_features.npy", np.ones((FRAMES, 2, 8), np.float16))
    np.save(clip.folder / "identity.npy", np.ones(512, np.float32))
    return folder


@pytest.fixture
def clip(whole: Path, tmp_path: Path) -> Clip:
    shutil.copytree(whole, tmp_path / "data")
    return read_clips(tmp_path / "data")[0]


def sentence(error: BaseException) -> str:
    said = str(error)
    assert "\n" not in said
    return said


def test_a_whole_folder_is_read(clip: Clip) -> None:
    PortraitVideos([clip], 0, 4)[0]
    SpokenVideos([clip], 0, 4)[0]
    assert clip.fps == Fraction(25)


@pytest.mark.parametrize(
    "change",
    [
        {"frames": "30"},
        {"frames": 0, "start": 0},
        {"frames": 30.0},
        {"frames": True},
        {"frames": 10**400},
        {"size": -64},
        {"size": None},
        {"start": -1},
        {"start": [0]},
        {"person": ["ann"]},
        {"source": {}},
        {"fps": "1/0"},
        {"fps": "0"},
        {"fps": "-25"},
        {"fps": 1e300},
        {"fps": float("inf")},
        {"fps": float("nan")},
        {"fps": None},
        {"more": 1},
    ],
)
def test_a_description_of_wrong_values(clip: Clip, change: dict[str, Any]) -> None:
    path = clip.folder / "clip.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(TalkingPortraitError, match="is no prepared clip"):
        read_clips(clip.folder.parents[1])


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"5", b"null", b"\xff\xfe", b"[" * 100_000, b"9" * 5000])
def test_a_description_that_is_none(clip: Clip, text: bytes) -> None:
    (clip.folder / "clip.json").write_bytes(text)
    with pytest.raises(TalkingPortraitError, match="is no prepared clip"):
        read_clips(clip.folder.parents[1])


@pytest.mark.parametrize("name", ["points", "matrix", "vertices", "blendshapes", "speech", "identity"])
@pytest.mark.parametrize(
    "damage", ["missing", "empty", "short", "text", "nan", "huge", "whole numbers", "objects", "zip"]
)
def test_a_damaged_array(clip: Clip, name: Any, damage: str) -> None:
    path = clip.folder / f"{name}.npy"
    array = np.array(clip.array(name))
    if damage == "missing":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "short":
        path.write_bytes(path.read_bytes()[:-9])
    elif damage == "text":
        path.write_bytes(b"somebody's text")
    elif damage == "zip":
        with path.open("wb") as file:
            np.savez(file, array=array)
    else:
        array.flat[array.size // 2] = {"nan": np.nan, "huge": 1e30}.get(damage, 0)
        kind = {"whole numbers": np.int64, "objects": object}.get(damage, np.float32)
        np.save(path, array.astype(kind), allow_pickle=True)
    with pytest.raises(TalkingPortraitError) as caught:
        clip.array(name)
    assert sentence(caught.value).startswith(f"{path} can't be used (")


@pytest.mark.parametrize("name", ["points", "matrix", "vertices", "blendshapes", "speech", "identity"])
def test_an_array_of_another_form(clip: Clip, name: Any) -> None:
    array = np.array(clip.array(name))
    for other in (array[:-1], array[..., None], array.reshape(-1)[0]):
        np.save(clip.folder / f"{name}.npy", other)
        with pytest.raises(TalkingPortraitError, match=r"its form is \(.*\), but \(.+\) is expected"):
            clip.array(name)


def test_an_array_that_has_changed_is_looked_at_again(clip: Clip) -> None:
    good = np.array(clip.array("points"))
    path = clip.folder / "points.npy"
    np.save(path, np.where(good > 0, np.nan, good))
    with pytest.raises(TalkingPortraitError, match="some of its values are no numbers"):
        clip.array("points")


@pytest.mark.parametrize("shape", [(3,), (0, 2, 8), (FRAMES, 16), (FRAMES, 2, 8, 1)])
def test_speech_features_of_another_form(clip: Clip, shape: tuple[int, ...]) -> None:
    np.save(clip.folder / "speech_features.npy", np.ones(shape, np.float16))
    with pytest.raises(TalkingPortraitError, match=r"The speech features of .+ are of the form \("):
        SpokenVideos([clip], 0, 4)


def test_speech_features_unlike_those_of_the_first_clip(clip: Clip, tmp_path: Path) -> None:
    shutil.copytree(clip.folder, clip.folder.with_name("two"))
    clips = read_clips(tmp_path / "data")
    samples = SpokenVideos(clips, 0, 4)
    np.save(clips[1].folder / "speech_features.npy", np.ones((FRAMES, 3, 8), np.float16))
    with pytest.raises(TalkingPortraitError, match="as in the other clips is expected"):
        [samples[number] for number in range(2)]


@pytest.mark.parametrize("damage", ["missing", "empty", "short", "text", "size"])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_picture_stops_training_in_a_sentence(clip: Clip, tmp_path: Path, damage: str, workers: int) -> None:
    for frame in range(FRAMES):
        path = clip.picture_path(frame)
        content = path.read_bytes()
        if damage == "missing":
            path.unlink()
        elif damage == "size":
            Image.new("RGB", (32, 64)).save(path)
        else:
            path.write_bytes({"empty": b"", "short": content[:500], "text": b"somebody's text"}[damage])
    with pytest.raises(TalkingPortraitError) as caught:
        train(Plain(), PortraitVideos([clip], 0), Plan(steps=1, workers=workers), tmp_path / "out")
    assert "can't be used (" in sentence(caught.value)
    assert ".jpg" in sentence(caught.value)


@pytest.mark.parametrize("kind", [PortraitVideos, SpokenShapes, SpokenPoses, SpokenVideos])
@pytest.mark.parametrize("frames", [0, -5])
def test_samples_without_frames_are_refused(clip: Clip, kind: type, frames: int) -> None:
    with pytest.raises(TalkingPortraitError, match=f"Samples of {frames} frames were requested"):
        kind([clip], 0, frames)


def test_the_command_ends_in_a_sentence(clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    clip.folder.joinpath("identity.npy").write_bytes(b"")
    work = bench.make_work(tmp_path / "work")
    files = ["--unet", str(work / "unet.safetensors"), "--vae", str(work / "vae.safetensors")]
    plan = ["--batch", "1", "--precision", "fp32", "--workers", "1", "--steps", "1", "--picture-every", "0"]
    out = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    assert main(["train", "apasco-stage1", *files, *plan, *out]) == 2
    assert "identity.npy can't be used" in sentence(Exception(capsys.readouterr().err.strip()))
