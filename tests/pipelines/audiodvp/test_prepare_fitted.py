"""From a talking picture of the Instant renderer to a fitted face, with the shipped landmark networks."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from talking_portrait.__main__ import main
from talking_portrait.pipelines.audiodvp.fitted_face import FittedFace
from talking_portrait.pipelines.files.example import example_portrait, example_speech
from talking_portrait.pipelines.files.video import VideoWriter
from talking_portrait.pipelines.image.affine_sampling import apply_map, invert_map
from talking_portrait.pipelines.instant.animate import fit_portrait, frames_of
from talking_portrait.pipelines.instant.driver.driver import drive
from talking_portrait.pipelines.person.person import Person, open_person
from talking_portrait.pipelines.types import Audio

FPS, SECONDS, SIDE = Fraction(12), 3, 256


@pytest.fixture(scope="module")
def talking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "talking.mp4"
    speech = Audio(example_speech().waveform[:, : 16000 * SECONDS], 16000)
    portrait, track = fit_portrait(*example_portrait(), SIDE)
    with VideoWriter(path, (SIDE, SIDE), FPS, speech) as video:
        for frames in frames_of(portrait, track, drive(speech, fps=FPS)):
            video.write(frames.numpy())
    return path


@pytest.fixture(scope="module")
def person(talking: Path, tmp_path_factory: pytest.TempPathFactory) -> Person:
    folder = tmp_path_factory.mktemp("person") / "portrait"
    assert main(["person", "prepare", str(talking), "--out", str(folder), "--size", "128"]) == 0
    return open_person(folder)


def test_the_command_prepares_and_fits(person: Person, talking: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (person.frames, person.fps, person.usable.sum()) == (36, 12, 36)
    assert main(["person", "prepare", str(talking), "--out", str(person.folder), "--size", "128"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "The person's face is usable in 3.0 of 3.0 s."
    assert said[-1] == f"{person.folder}: 36 frames at 12 fps, 36 of them usable"


def test_landmarks_are_projected_within_a_pixel(person: Person) -> None:
    fitted = FittedFace.read(person.folder)
    points = apply_map(invert_map(person.box.map(person.crop_size)), person.track().points)[:, :468, :2]
    size = (person.crop_size, person.crop_size)
    landmarks = fitted.face_model.render(fitted.coefficients(range(person.frames)), size).landmarks.numpy()
    assert np.linalg.norm(landmarks - points, axis=-1).mean() * 256 / person.crop_size < 1.5


def test_the_fitted_face_looks_like_the_picture(person: Person) -> None:
    fitted, frames = FittedFace.read(person.folder), list(range(0, person.frames, 5))
    images, alpha = fitted.render(frames)
    crops = torch.from_numpy(person.crops(frames)).float() / 255
    assert -10 * torch.log10((images - crops)[alpha > 0].square().mean()) > 19  # dB, with teeth where the model is dark


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--size", "100"], "a multiple of 64 from 128 to 1024"),
        (["--fps", "x"], "The frame rate is x"),
        (["--landmarks", "nowhere.task"], "nowhere.task is missing"),
    ],
)
def test_bad_options_are_one_sentence(
    talking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(["person", "prepare", str(talking), "--out", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert words in error
    assert not (tmp_path / "out").exists()
