"""The Python API `import talking_portrait`: from files to files, and the steps between."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import talking_portrait as tp
import torch
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.files.example import SPEECH_FILE, example_portrait, example_speech
from talking_portrait.pipelines.files.images import write_image
from talking_portrait.pipelines.files.sound import read_audio, write_wav
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


def test_numbers_of_numpy_are_numbers(voice):
    plain = tp.drive(voice, fps=5, seed=3, mouth=0.5)
    same = tp.drive(voice, fps=np.float32(5), seed=np.int64(3), mouth=np.float32(0.5))
    np.testing.assert_allclose(same.vertices, plain.vertices, atol=1e-6)


@pytest.mark.parametrize(
    ("scale", "shift", "words"), [(255, 0, "to 255, but 0 to 1"), (2, -1, "-1 to"), (torch.nan, 0, "NaN")]
)
def test_a_picture_of_another_scale_is_named(voice, tmp_path, scale, shift, words):
    with pytest.raises(TalkingPortraitError, match=f"^The picture .*{words}"):
        tp.animate(example_portrait()[0] * scale + shift, voice, tmp_path / "out.mp4")


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
    for given, sentence in (
        ({}, "The head is None, but a path is expected"),
        ({"head": person, "offset": 0.5}, "The offset is 0.5, but a whole"),
        ({"head": person, "pose": None}, "pose was given, but AudioDVP takes offset; leave out what it does not take"),
    ):
        with pytest.raises(TalkingPortraitError, match=sentence):
            tp.drive_person(model, speech(0.2), tmp_path / "none.mp4", **given)
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
        (lambda: tp.train_person("ann", "run", system="x"), "The system is 'x', but one of audiodvp, syncanimation is"),
        (lambda: tp.prepare_person("a.mp4", "ann", system="x"), "for 'x', but one of audiodvp, syncanimation, both is"),
        (
            lambda: tp.prepare_person("a.mp4", "ann", parser="a.pth"),
            "parser was given, but the person is prepared for au",
        ),
        (
            lambda: tp.prepare_person("a.mp4", "ann", system="syncanimation", regressor="a.pkl"),
            "regressor was given, but the person is prepared for syncanimation alone",
        ),
        (
            lambda: tp.prepare_person("a.mp4", "ann", system="both", avatar_size=5),
            "Pictures of 5 pixels were requested",
        ),
    ],
)
def test_what_is_of_another_kind_is_reported_in_a_sentence(call, sentence):
    with pytest.raises(tp.TalkingPortraitError, match=sentence):
        call()


def test_a_film_in_place_of_a_picture_is_dubbed_elsewhere(tmp_path, voice):
    write_image(tmp_path / "me.png", example_portrait()[0])
    film = tp.animate(tmp_path / "me.png", voice, tmp_path / "me.mp4", fps=5, longest_side=64)
    with pytest.raises(TalkingPortraitError, match=r"me.mp4 can't be read \(it holds video .* dubbed with animate"):
        next(tp.render(film, tp.drive(voice, fps=5)))


FORKED_AND_LATE = """
import os, signal, sys, threading
import talking_portrait as tp

portrait, voice = sys.argv[1:]

def make(name):
    tp.animate(portrait, voice, name, fps=1, longest_side=64)

def make_late():
    threading.main_thread().join()
    make("late.mp4")

threading.Thread(target=make_late).start()
if hasattr(os, "fork"):
    import torch
    torch.set_num_threads(2)
    make("parent.mp4")
    child = os.fork()
    if not child:
        signal.alarm(60)
        make("child.mp4")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, "the child hung or failed"
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.skipif((3, 12) <= sys.version_info < (3, 12, 2), reason="no new threads there: python/cpython#113964")
def test_videos_are_made_in_forked_processes_and_after_the_main_thread_has_ended(tmp_path, voice):
    write_image(tmp_path / "me.png", example_portrait()[0][::2, ::2])
    write_wav(tmp_path / "voice.wav", voice)
    done = subprocess.run(
        [sys.executable, "-c", FORKED_AND_LATE, "me.png", "voice.wav"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert all(len(list(open_video(path).frames())) for path in tmp_path.glob("*.mp4"))
    assert (tmp_path / "late.mp4").is_file()


LOADED_LATE = """
import threading
import talking_portrait

def load():
    threading.main_thread().join()
    from concurrent.futures import ThreadPoolExecutor  # as torch does when it is loaded

threading.Thread(target=load).start()
"""


def test_libraries_can_be_loaded_after_the_main_thread_has_ended():
    done = subprocess.run([sys.executable, "-c", LOADED_LATE], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""


HUGE = 10**5000


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: tp.drive("a.wav", fps=HUGE), "The fps is <int>, but whole numbers to 2"),
        (lambda: tp.drive("a.wav", fps=float("nan")), "The frame rate is nan, but a number from 1 to 240"),
        (lambda: tp.drive("a.wav", mouth=-HUGE), "The mouth is <int"),
        (lambda: tp.drive("a.wav", seed=10**20), "The seed is 1000.{0,20}, but whole"),
        (lambda: tp.animate("a.png", "a.wav", "a.mp4", longest_side=10**400), "The longest_side is 1000.{0,20}, but"),
        (lambda: tp.animate("a.png", "a.wav", "a.mp4", longest_side=3), "The size is 3 pixels, but at least 16"),
        (lambda: tp.animate("a.png", "a.wav", "a.mp4", mouth=float("nan")), "The driver's mouth is nan, but"),
        (lambda: tp.animate("a.mp4", "a.wav", "b.mp4", blink_rate=-1), "The driver's blink rate is -1, but"),
        (lambda: tp.animate("a.png", "a.wav", "a.mp4", face=HUGE), "The face is <int"),
        (lambda: tp.animate("a.png", "a.wav", "a.mp4", face_at=(HUGE, 1)), "The face_at is <tuple>, but"),
        (lambda: tp.animate("a.png", "a.wav", "a.mp4", mark=HUGE), "The mark is <int>, but true"),
        (lambda: tp.animate("a.png", "a.wav", "a.mp4", device=10**20), "can't be computed on 1000"),
        (lambda: tp.animate("a.png", "a.wav", "a.mp4", progress=True), "The progress is True, but a function"),
        (lambda: tp.animate("a.png", "a.wav", "a.mp4", renderer="anitalker", cfg=HUGE), "cfg is <int>, but whole"),
        (lambda: tp.prepare_person("a.mp4", "ann", crop_size=HUGE), "Crops of <int> pixels"),
        (lambda: tp.prepare_person("a.mp4", "ann", silent=0), "The silent is 0, but true or false"),
        (lambda: tp.prepare_person("a.mp4", "ann", speech_encoder=1), "The speech encoder is 1, but a path"),
        (lambda: tp.prepare_person("a.mp4", "ann", face_model=1), "The face model is 1, but a path"),
        (lambda: tp.prepare_person("a.mp4", "ann", regressor=1), "The regressor is 1, but a path"),
        (lambda: tp.train_person("ann", "run", minutes=None), "The minutes is None, but a number is expected"),
        (lambda: tp.train_person("ann", "run", batch=1.5), "The batch is 1.5, but a whole number is expected"),
        (lambda: tp.train_person("ann", "run", seed=-1), "The seed is -1, but 0 to 2"),
        (lambda: tp.drive("a.wav", seed=-1), "The seed is -1, but 0 to 2"),
        (lambda: tp.animate("a.png", "a.wav", "a.mp4", seed=-1), "The seed is -1, but 0 to 2"),
        (lambda: tp.train_person("ann", "run", steps=HUGE), "The steps is <int"),
        (lambda: tp.drive_person("a", "a.wav", "a.mp4", head="ann", device="x"), "can't be computed on 'x'"),
    ],
)
def test_numbers_without_end_and_of_another_kind_are_reported_in_a_sentence(call, sentence):
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
