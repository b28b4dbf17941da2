"""The node that learns one's own way of speaking."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from talking_portrait.nodes import extension, host
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.person.person import Person, open_person

from ..toy_person import make_person, speech

NODES = {node.__name__: node for node in extension.NODES}


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Person:
    return open_person(make_person(tmp_path_factory.mktemp("people") / "ann", seconds=5))


def test_a_persons_driver_moves_the_mouth_in_its_own_way(person: Person, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("talking_portrait.nodes.host.output_folder", lambda: tmp_path)
    with torch.inference_mode():  # as the host runs nodes
        driver, report = NODES["TrainInstantDriver"].execute("ann", person=person, steps=2).args
        path = tmp_path / "drivers" / "ann.safetensors"
        assert report.startswith(str(path))
        audio = speech(1.0, seed=5)
        sound = {"waveform": audio.waveform[None], "sample_rate": audio.sample_rate}
        amounts = (sound, 25, 0, 1.0, 1.0, 1.0, 1.0, 1.0)
        own = NODES["InstantDriver"].execute(*amounts, driver=driver).args[0]
        monkeypatch.setenv("TALKING_PORTRAIT_MODELS", str(tmp_path))
        with pytest.raises(TalkingPortraitError, match="no .mine.* in .*train one with Train Instant Driver"):
            NODES["LoadInstantDriver"].execute("mine.safetensors")
        (tmp_path / host.OWN_CATEGORY).mkdir()
        path.rename(tmp_path / host.OWN_CATEGORY / "mine.safetensors")
        (loaded,) = NODES["LoadInstantDriver"].execute("mine.safetensors").args
        again = NODES["InstantDriver"].execute(*amounts, driver=loaded).args[0]
        usual = NODES["InstantDriver"].execute(*amounts).args[0]
    assert np.allclose(own.vertices, again.vertices, atol=0.02)  # half precision in the file
    assert np.allclose(own.rotation, usual.rotation, atol=1e-3)
    assert own.frames == usual.frames


def test_one_of_video_and_person_is_needed(person: Person) -> None:
    with pytest.raises(TalkingPortraitError, match="Neither a video nor a person"):
        NODES["TrainInstantDriver"].execute("ann")
    with pytest.raises(TalkingPortraitError, match="A video and a person"):
        NODES["TrainInstantDriver"].execute("ann", video=object(), person=person)
    with pytest.raises(TalkingPortraitError, match="plain one"):
        NODES["TrainInstantDriver"].execute("a/b", person=person)


@pytest.mark.parametrize("steps", [0, -1])
def test_no_steps_make_no_driver(person: Person, tmp_path: Path, monkeypatch, steps: int) -> None:
    """A link gives a widget what its range does not allow."""
    monkeypatch.setattr("talking_portrait.nodes.host.output_folder", lambda: tmp_path)
    with pytest.raises(TalkingPortraitError, match=f'"steps" is {steps}, but a number from 1 to 2000'):
        NODES["TrainInstantDriver"].execute("ann", person=person, steps=steps)
    assert list(tmp_path.iterdir()) == []
