"""AudioDVP's nodes: a person trained, loaded and driven."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from talking_portrait.models.audiodvp.audio_features import AudioFeatures, AudioFeaturesConfig
from talking_portrait.nodes import extension, host
from talking_portrait.nodes.loaded_models import LoadedAudioDVP
from talking_portrait.nodes.standalone.core_nodes import VideoPayload
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.files.video import open_video
from talking_portrait.pipelines.person.person import Person, open_person
from talking_portrait.pipelines.training.audiodvp import settings as settings_module
from talking_portrait.pipelines.training.core.loss_curve import LEAST_WIDTH

from ..toy_person import SIZE, TINY, make_person, speech, toy_model

NODES = {node.__name__: node for node in extension.NODES}


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Person:
    return open_person(make_person(tmp_path_factory.mktemp("people") / "ann", seconds=1))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(settings_module._NETWORKS, "small", TINY)
    monkeypatch.setenv("TALKING_PORTRAIT_MODELS", str(tmp_path))


def sound(seconds: float) -> dict[str, Any]:
    audio = speech(seconds, seed=5)
    return {"waveform": audio.waveform[None], "sample_rate": audio.sample_rate}


def test_a_person_is_trained_where_the_host_runs_nodes_without_gradients(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures: list[torch.Tensor] = []

    def show(done: int, total: int, picture: torch.Tensor | None = None) -> None:
        pictures.extend([] if picture is None else [picture])

    monkeypatch.setattr(host, "progress", lambda: show)
    with torch.inference_mode():
        model, report = NODES["TrainAudioDVP"].execute(person, 20.0, "small", "first", steps=3).args
        again, _ = NODES["TrainAudioDVP"].execute(person, 20.0, "small", "first", steps=3).args
        assert (person.folder / "runs" / "first" / "person.safetensors").is_file()
        assert report.startswith(str(person.folder / "runs" / "first" / "person.safetensors"))
        assert "held-out lower face psnr" in report
        assert len(pictures) == 2, "of each network"
        assert all(picture.shape[1] >= LEAST_WIDTH for picture in pictures), "with the loss beneath them"
        images, masks, fps, video = NODES["AudioDVPDrive"].execute(model, sound(0.5), person).args
        same, *_ = NODES["AudioDVPDrive"].execute(again, sound(0.5), person).args
    assert images.shape == (13, *SIZE, 3)
    assert masks.shape == (13, *SIZE)
    assert fps == 25
    assert isinstance(video, VideoPayload)
    torch.testing.assert_close(images, same, atol=1.01 / 255, rtol=0)


def test_frames_outside_of_the_mask_are_those_of_the_video(person: Person) -> None:
    model = LoadedAudioDVP.of(toy_model(person.folder))
    images, masks, _, _ = NODES["AudioDVPDrive"].execute(model, sound(1.4), person, offset=3, batch_size=5).args
    truth = list(person.full_frames())
    assert len(images) == 35
    for number, frame in enumerate(truth[3:]):
        outside = masks[number].numpy() == 0
        shown = (images[number].numpy()[outside] * 255).round().astype(np.uint8)
        np.testing.assert_array_equal(shown, frame[outside])  # the same bytes, as floats and back


def test_the_video_takes_the_persons_place(person: Person) -> None:
    model = LoadedAudioDVP.of(toy_model(person.folder))
    video = VideoPayload(path=person.source, encoded=True)
    one, *_ = NODES["AudioDVPDrive"].execute(model, sound(0.2), video=video).args
    other, *_ = NODES["AudioDVPDrive"].execute(model, sound(0.2), person).args
    torch.testing.assert_close(one, other, atol=1.01 / 255, rtol=0)
    with pytest.raises(TalkingPortraitError, match="AudioDVP Drive: There is no head"):
        NODES["AudioDVPDrive"].execute(model, sound(0.2))


def test_frames_are_encoded_as_they_come_where_only_the_video_is_connected(
    person: Person, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    node = NODES["AudioDVPDrive"]
    monkeypatch.setattr(node, "keeps_frames", classmethod(lambda cls: False))
    model = LoadedAudioDVP.of(toy_model(person.folder))
    images, masks, fps, video = node.execute(model, sound(1.0), person).args
    assert (images, masks, fps) == (None, None, 25.0)
    video.save_to(str(tmp_path / "out.mp4"))
    assert len(list(open_video(tmp_path / "out.mp4").frames())) == 25


def test_a_model_is_loaded_from_the_models_folder(person: Person, tmp_path: Path) -> None:
    with pytest.raises(TalkingPortraitError, match=r"There is no 'ann.safetensors' in .*train one with Train AudioDVP"):
        NODES["LoadAudioDVP"].execute("ann.safetensors")
    folder = tmp_path / host.OWN_CATEGORY
    folder.mkdir()
    toy_model(person.folder).save(folder / "ann.safetensors")
    (loaded,) = NODES["LoadAudioDVP"].execute("ann.safetensors").args
    assert loaded.person.speech == person.speech().model
    assert NODES["LoadAudioDVP"].GET_NODE_INFO_V1()["input"]["required"]["file"][1]["options"] == ["ann.safetensors"]


def test_more_minutes_go_on_with_a_finished_run_once(person: Person) -> None:
    def steps(minutes: float) -> int:
        NODES["TrainAudioDVP"].execute(person, minutes, "small", "longer", steps=4 if minutes == 2 else 0)
        return len((person.folder / "runs" / "longer" / "renderer" / "log.jsonl").read_text().splitlines())

    assert [steps(minutes) for minutes in (2.0, 1.0, 3.0, 3.0)] == [4, 4, 6, 6]


@pytest.mark.parametrize("run", ["", "..", "a/b", "/tmp/x"])
def test_a_run_lies_in_the_persons_folder(person: Person, run: str) -> None:
    with pytest.raises(TalkingPortraitError, match="Train AudioDVP: The run's name is"):
        NODES["TrainAudioDVP"].execute(person, 1.0, "small", run, steps=1)


def test_a_model_of_another_kind_is_named(person: Person) -> None:
    with pytest.raises(TalkingPortraitError, match="a person's AudioDVP model is expected; connect Train AudioDVP"):
        NODES["AudioDVPDrive"].execute("model", sound(0.2), person)


def test_atnet_is_chosen_for_driving_and_has_to_be_what_the_person_was_prepared_with(
    person: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "atnet"
    models.mkdir()
    monkeypatch.setattr(host, "model_folders", lambda *categories: [models])
    model = LoadedAudioDVP.of(toy_model(person.folder))
    with pytest.raises(TalkingPortraitError, match=r"AudioDVP Drive: There is no 'atnet\.pth' in .*ATVGnet"):
        NODES["AudioDVPDrive"].execute(model, sound(0.2), person, atnet="atnet.pth")
    network = AudioFeatures(AudioFeaturesConfig((2, 2, 2, 2, 4), hidden=8, features=6))
    torch.save({f"module.{name}": tensor for name, tensor in network.state_dict().items()}, models / "atnet.pth")
    with pytest.raises(TalkingPortraitError, match="features are 6 channels of atnet, but the model was trained on"):
        NODES["AudioDVPDrive"].execute(model, sound(0.2), person, atnet="atnet.pth")
