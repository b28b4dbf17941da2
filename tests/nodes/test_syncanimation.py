"""SyncAnimation's nodes: a person trained, loaded and driven."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from talking_portrait.__main__ import main
from talking_portrait.nodes import extension, host
from talking_portrait.nodes.standalone.core_nodes import VideoPayload
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.files.video import open_video
from talking_portrait.pipelines.instant.driver.driver import drive
from talking_portrait.pipelines.person.person import Person, open_person
from talking_portrait.pipelines.syncanimation import avatar as avatar_files
from talking_portrait.pipelines.training.syncanimation import settings as settings_module
from talking_portrait.pipelines.training.syncanimation.settings import Settings

from ..toy_avatar import FRAME, make_avatar
from ..toy_person import make_person, speech, toy_model

NODES = {node.__name__: node for node in extension.NODES}
SIZE = 64


@pytest.fixture(scope="module", autouse=True)
def small() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(avatar_files, "SIZES", (SIZE,))
        patch.setitem(settings_module.RAYS, "small", 64)
        # What the syncers learn is for the training's own tests.
        patch.setattr(Settings, "__init__", partialmethod(Settings.__init__, syncer_steps=3))
        yield


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory, small: None) -> Person:
    return open_person(make_avatar(tmp_path_factory.mktemp("people") / "ann", seconds=1, size=SIZE))


@pytest.fixture(scope="module")
def model(person: Person) -> Any:
    with torch.inference_mode():  # as the host runs nodes
        loaded, report = NODES["TrainSyncAnimation"].execute(person, 20.0, "all", "first", steps=6).args
    assert report.startswith(str(person.folder / "runs" / "first" / "person.safetensors"))
    assert "held-out psnr" in report
    return loaded


def sound(seconds: float) -> dict[str, Any]:
    audio = speech(seconds, seed=5)
    return {"waveform": audio.waveform[None], "sample_rate": audio.sample_rate}


def run(model: Any, *given: Any, **inputs: Any) -> tuple[Any, ...]:
    picture, seed = inputs.pop("picture", "avatar"), inputs.pop("seed", 0)
    return NODES["SyncAnimationDrive"].execute(model, *given, picture, seed, **inputs).args


def test_a_trained_person_is_driven_by_speech_and_by_another_motion(model: Any) -> None:
    with torch.inference_mode():
        images, masks, fps, video = run(model, sound(0.5))
        moved, *_ = run(model, sound(0.5), motion=drive(speech(0.5, seed=5)), motion_use="pose")
    assert images.shape == moved.shape == (13, SIZE, SIZE, 3)
    assert (masks.shape, fps) == ((13, SIZE, SIZE), 25)
    assert isinstance(video, VideoPayload)


def test_a_portrait_has_the_size_of_the_video_and_needs_it(model: Any, person: Person) -> None:
    images, *_ = run(model, sound(0.2), picture="portrait", person=person)
    assert images.shape == (5, *FRAME, 3)
    video = VideoPayload(path=person.source, encoded=True)
    same, *_ = run(model, sound(0.2), picture="portrait", video=video)
    torch.testing.assert_close(images, same, atol=1.01 / 255, rtol=0)
    with pytest.raises(TalkingPortraitError, match="SyncAnimation Drive: There are no frames to put the face into"):
        run(model, sound(0.2), picture="portrait")


def test_frames_are_encoded_as_they_come_where_only_the_video_is_connected(
    model: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(NODES["SyncAnimationDrive"], "keeps_frames", classmethod(lambda cls: False))
    images, masks, fps, video = run(model, sound(0.4))
    assert (images, masks, fps) == (None, None, 25.0)
    video.save_to(str(tmp_path / "out.mp4"))
    assert len(list(open_video(tmp_path / "out.mp4").frames())) == 10


def test_a_model_is_loaded_from_the_models_folder(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALKING_PORTRAIT_MODELS", str(tmp_path))
    with pytest.raises(TalkingPortraitError, match=r"no 'ann.safetensors' in .*train one with Train SyncAnimation"):
        NODES["LoadSyncAnimation"].execute("ann.safetensors")
    (tmp_path / host.OWN_CATEGORY).mkdir()
    model.person.save(tmp_path / host.OWN_CATEGORY / "ann.safetensors")
    (loaded,) = NODES["LoadSyncAnimation"].execute("ann.safetensors").args
    assert loaded.person.stage == "lips"


@pytest.mark.slow
def test_more_minutes_go_on_with_the_lips_once(person: Person, model: Any) -> None:
    def steps(minutes: float) -> int:
        NODES["TrainSyncAnimation"].execute(person, minutes, "all", "first")
        return len((person.folder / "runs" / "first" / "lips" / "log.jsonl").read_text().splitlines())

    before = steps(20.0)
    assert steps(40.0) == steps(40.0) == before + 4  # as many more as face and lips had
    assert before == 2


def test_files_of_something_else_are_one_sentence_in_nodes_and_commands(
    model: Any, person: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TALKING_PORTRAIT_MODELS", str(tmp_path))
    folder = tmp_path / host.OWN_CATEGORY
    folder.mkdir()
    model.person.save(folder / "whole.safetensors")
    replace(model.person, stage="torso").save(folder / "torso.safetensors")
    toy_model(make_person(tmp_path / "bob", seconds=0.5)).save(folder / "dvp.safetensors")
    (folder / "cut.safetensors").write_bytes((folder / "whole.safetensors").read_bytes()[:-1000])
    motion = "down_blocks.0.motion_modules.0.temporal_transformer"
    layer = f"{motion}.transformer_blocks.0.attention_blocks.0"
    names = [*(f"{layer}.to_{part}.weight" for part in "qkv"), f"{layer}.pos_encoder.pe", f"{motion}.proj_in.weight"]
    names.append(names[-1].replace("down_blocks.0", "mid_block"))
    save_file({name: torch.zeros(2, 2) for name in names}, folder / "aniportrait.safetensors")

    def said(command: list[str]) -> str:
        voice, out = str(person.folder / "audio.wav"), tmp_path / "out.mp4"
        assert main([*command, "--audio", voice, "--out", str(out)]) == 2
        error: str = capsys.readouterr().err.strip()
        assert error.startswith("error: ")
        assert len(error.splitlines()) == 1
        assert not out.exists()
        return error

    no_head, cut = "first stage (torso) only and has no head yet", "cut.safetensors is damaged or cut short"
    expected: dict[str, dict[str, str]] = {  # by file, of person drive, live, Load AudioDVP, Load SyncAnimation
        "torso": {"drive": no_head, "live": no_head, "LoadAudioDVP": "is a SyncAnimation model of one person"},
        "dvp": {"live": "is AudioDVP's model of one person", "LoadSyncAnimation": "a person's SyncAnimation model"},
        "cut": dict.fromkeys(("drive", "live", "LoadAudioDVP", "LoadSyncAnimation"), cut),
        "aniportrait": {
            "drive": "motion module, but a person's model (as train audiodvp or train syncanimation writes it)",
            "live": "motion module, but a person's SyncAnimation model",
            "LoadAudioDVP": "motion module, but a person's AudioDVP model",
            "LoadSyncAnimation": "motion module, but a person's SyncAnimation model",
        },
    }
    for name, doors in expected.items():
        path = str(folder / f"{name}.safetensors")
        for door, words in doors.items():
            if door.startswith("Load"):
                with pytest.raises(TalkingPortraitError, match=re.escape(words)):
                    NODES[door].execute(f"{name}.safetensors")
            else:
                assert words in said(["person", "drive", path] if door == "drive" else ["live", "--model", path])
    with_offset = said(["person", "drive", str(folder / "whole.safetensors"), "--offset", "3"])
    assert "--offset was given, but SyncAnimation takes --portrait, --torso-scale, " in with_offset
    (torso,) = NODES["LoadSyncAnimation"].execute("torso.safetensors").args
    with pytest.raises(TalkingPortraitError, match="SyncAnimation Drive: .*has no head yet"):
        run(torso, sound(0.2))
    with pytest.raises(TalkingPortraitError, match="a person's AudioDVP model is expected; connect Train AudioDVP"):
        NODES["AudioDVPDrive"].execute(model, sound(0.2), person)


def test_a_model_of_another_kind_is_named() -> None:
    with pytest.raises(TalkingPortraitError, match="a person's SyncAnimation model is expected; connect Train Sync"):
        run("model", sound(0.2))


def test_a_background_and_a_use_of_motion_from_links_are_checked(model: Any) -> None:
    for background in (torch.zeros(1, 8, 8, 2), torch.zeros(0, 8, 8, 3), "x"):
        with pytest.raises(TalkingPortraitError, match='^SyncAnimation Drive: The input "background" is'):
            run(model, sound(0.2), background=background)
    with pytest.raises(TalkingPortraitError, match="'x' .str., but pose and expression, pose or expression is"):
        run(model, sound(0.2), motion_use="x")
