"""The Python API `import talking_portrait`: from files to files, and the steps between."""

from __future__ import annotations

import pytest
import talking_portrait as tp
import torch
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.files.example import SPEECH_FILE, example_portrait, example_speech
from talking_portrait.pipelines.files.images import write_image
from talking_portrait.pipelines.files.sound import read_audio
from talking_portrait.pipelines.files.video import open_video
from talking_portrait.pipelines.provenance.metadata import read_statement
from talking_portrait.pipelines.training.audiodvp import settings
from talking_portrait.pipelines.types import Audio

from .toy_person import TINY, make_person, speech


@pytest.fixture(scope="module")
def voice() -> Audio:
    sample = example_speech()
    return Audio(sample.waveform[:, : sample.sample_rate], sample.sample_rate)


def test_a_picture_and_a_voice_become_a_video(tmp_path, voice):
    write_image(tmp_path / "me.png", example_portrait()[0])
    path = tp.animate(tmp_path / "me.png", voice, tmp_path / "out.mp4", fps=10, longest_side=128, seed=3)
    assert open_video(path).size == (128, 128)
    assert len(list(open_video(path).frames())) == 10
    assert abs(float(read_audio(path).seconds) - 1) < 0.1


def test_its_steps_can_be_taken_one_by_one(voice):
    motion = tp.drive(voice, fps=5, mouth=0.5)
    frames = list(tp.render(example_portrait()[0], motion))
    assert len(frames) == motion.frames == 5
    assert frames[0].shape == example_portrait()[0].shape
    assert frames[0].dtype == torch.uint8
    assert float(tp.drive(SPEECH_FILE, fps=5).seconds) > 5


def test_a_person_is_opened_trained_and_driven(tmp_path, monkeypatch):
    monkeypatch.setitem(settings._NETWORKS, "small", TINY)
    person = tp.open_person(make_person(tmp_path / "ann", seconds=1))
    done = []
    model = tp.train_person(
        person,
        tmp_path / "run",
        steps=2,
        expression_steps=2,
        batch=2,
        progress=lambda part, whole, *_: done.append(part / whole),
    )
    assert done == sorted(done)
    for number, head in enumerate((person, tmp_path / "ann", person.source)):
        path = tp.drive_person(model, speech(0.2), tmp_path / f"{number}.mp4", head=head, mark=number > 0)
        assert len(list(open_video(path).frames())) == 5
        assert read_statement(path).invisible_mark == ("yes" if number else "turned off")
    with pytest.raises(TalkingPortraitError, match="Training takes no epochs; it takes batch, expression, "):
        tp.train_person(person, tmp_path / "other", epochs=3)
    with pytest.raises(TalkingPortraitError, match="too short|at least 2 s"):
        tp.prepare_person(person.source, tmp_path / "bob", crop_size=128)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: tp.animate("a.png", "a.wav", None), "The video to write is None, but a path is expected"),
        (lambda: tp.animate("a.png", "a.wav", "a.mp4", motion="a.npz"), "The motion is 'a.npz', but a FaceMotion"),
        (lambda: tp.animate("a.png", "a.wav", "a.mp4", crf=True), "The quality is True, but 0"),
        (lambda: next(tp.render("a.png", None)), "The motion is None, but a FaceMotion"),
        (lambda: tp.open_person(None), "The person's folder is None, but a path is expected"),
        (lambda: tp.prepare_person(5, "ann"), "The video is 5, but a path is expected"),
        (lambda: tp.prepare_person("a.mp4", None), "The person's folder is None, but a path is expected"),
        (lambda: tp.train_person(None, "run"), "The person is None, but a path is expected"),
        (lambda: tp.train_person("ann", None), "The folder of the training is None, but a path is expected"),
        (lambda: tp.drive_person(None, "a.wav", "a.mp4", head="ann"), "The model is None, but a path is expected"),
        (lambda: tp.drive_person("a", "a.wav", "a.mp4", head=None), "The head is None, but a path is expected"),
    ],
)
def test_what_is_of_another_kind_is_reported_in_a_sentence(call, sentence):
    with pytest.raises(tp.TalkingPortraitError, match=sentence):
        call()


def test_a_size_is_a_whole_number_of_pixels(tmp_path):
    for size in (512.5, "512"):
        with pytest.raises(TalkingPortraitError, match=f"The size is {size!r}, but a whole number"):
            tp.animate(example_portrait()[0], SPEECH_FILE, tmp_path / "out.mp4", longest_side=size)


def test_what_is_not_there_is_reported_in_a_sentence(tmp_path):
    with pytest.raises(TalkingPortraitError, match="does not exist"):
        tp.animate(tmp_path / "none.png", SPEECH_FILE, tmp_path / "out.mp4")
    with pytest.raises(AttributeError, match="NODE_CLASS_MAPPINGS"):
        tp.NODE_CLASS_MAPPINGS  # noqa: B018 (its presence would hide the V3 nodes from ComfyUI)
