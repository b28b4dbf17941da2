"""The Python API of systems that are trained for one person: prepare a video, train on it, drive it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import plain_numbers

if TYPE_CHECKING:
    from .person.person import Person
    from .types import Audio, Progress


@plain_numbers
def prepare_person(
    video: str | Path,
    folder: str | Path,
    *,
    crop_size: int = 256,
    fps: float | str | None = None,
    silent: bool = False,
    speech_encoder: str | Path | None = None,
    face_model: str | Path | None = None,
    regressor: str | Path | None = None,
    progress: Progress | None = None,
) -> Person:
    """Makes a folder that training starts from, of a video in which one person speaks, or goes on with one begun.

    Args:
        crop_size: side of the pictures of the face in pixels.
        fps: frames per second, by default the video's own.
        silent: also take a video without speech, which can be driven but not trained on.
        speech_encoder: a wav2vec2, HuBERT or ATnet model; by default the mouth network that is shipped.
        face_model: a morphable face model as `person face-model` writes it; by default one is learnt from the video.
        regressor: VGGFace2's resnet50_ft_weight.pkl, to fit the face model as published, which takes hours on a CPU.

    Raises TalkingPortraitError, one sentence, for a video that can't be used and a folder of something else.
    """
    from .audiodvp.atnet import load_encoder
    from .audiodvp.morphable.regressor import load_models
    from .audiodvp.prepare import prepare_fitted_person
    from .person.prepare import Settings
    from .progress import given_progress
    from .timing import as_rate

    model, network = load_models(face_model, regressor)
    return prepare_fitted_person(
        video,
        folder,
        settings=Settings(crop_size, None if fps is None else as_rate(fps), silent),
        encoder=load_encoder(speech_encoder),
        face_model=model,
        regressor=network,
        progress=given_progress(progress),
    )


def open_person(folder: str | Path) -> Person:
    """A person that was prepared before. Raises TalkingPortraitError for a folder without one."""
    from .person import person

    return person.open_person(folder)


@plain_numbers
def train_person(
    person: Person | str | Path,
    out: str | Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Path:
    """Trains AudioDVP for a prepared person, or its folder, in the folder `out`; returns the model's file.

    `settings` are those of `pipelines.training.audiodvp.settings.Settings`: minutes, steps, size, held_out, seed ...;
    `resume` goes on with a run. Raises TalkingPortraitError for settings out of range and for a folder of something
    else.
    """
    from dataclasses import fields

    from .errors import TalkingPortraitError
    from .progress import given_progress, share
    from .training.audiodvp.settings import Settings
    from .training.audiodvp.train import EXPRESSION, EXPRESSION_SHARE, RENDERER, train_audiodvp

    names = {field.name for field in fields(Settings)}
    unknown = sorted(settings.keys() - names)
    if unknown:
        raise TalkingPortraitError(f"Training takes no {', '.join(unknown)}; it takes {', '.join(sorted(names))}.")
    report = given_progress(progress)
    parts = {EXPRESSION: share(report, 0, EXPRESSION_SHARE), RENDERER: share(report, EXPRESSION_SHARE, 1)}
    return train_audiodvp(_folder(person), out, Settings(**settings), resume=resume, stage=parts.__getitem__)


@plain_numbers
def drive_person(
    model: str | Path,
    audio: str | Path | Audio,
    out: str | Path,
    *,
    head: Person | str | Path,
    speech_encoder: str | Path | None = None,
    offset: int = 0,
    crf: int = 18,
    mark: bool = True,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Path:
    """Makes the person of a trained model speak other words, and writes the video `out`; returns its path.

    Args:
        head: the prepared person, its folder, or the video that it was prepared from.
        speech_encoder: the file that the person was prepared with, where it was one.
        offset: the frame of the head's video to begin with.
        crf: H.264 quality, 0 (lossless) to 51.
        mark: whether frames get the invisible mark of AI-made videos, see `animate`.
        device: where faces are generated: "cpu", "cuda" ...
    """
    from .audio.waveform import as_speech, check_audio
    from .audiodvp.animate import frames_of, open_model
    from .audiodvp.atnet import load_encoder
    from .errors import check_kind
    from .files.frame_stream import write_stream
    from .files.output_paths import as_path, file_to_write, keep_inputs
    from .files.sound import SoundTrack, read_speech
    from .files.video import check_video_name
    from .memory import Resident, usable_device
    from .person.person import Person
    from .progress import given_progress
    from .provenance.marking import new_marking

    check_video_name(out, crf)
    new_marking(mark)  # only refuses what is no mark, before anything is read
    computed_on = usable_device(device)
    check_kind("offset", offset, 0)
    report = given_progress(progress)
    if isinstance(head, str | Path) and Path(head).is_dir():
        head = open_person(head)
    source = head.source if isinstance(head, Person) else as_path(head, "head")
    given = [Path(audio)] if isinstance(audio, str | Path) else []
    keep_inputs(file_to_write(out), as_path(model, "model"), source, *given)
    opened = open_model(model)
    sound: Audio | SoundTrack
    if isinstance(audio, str | Path):
        speech, sound = read_speech(audio, opened.video.fps)
    else:
        sound = check_audio(audio)
        speech = as_speech(sound, opened.video.fps)
    frames = frames_of(
        opened,
        speech,
        head,
        renderer=Resident(opened.renderer, computed_on),
        encoder=load_encoder(speech_encoder),
        offset=offset,
        progress=report,
    )
    write_stream(out, frames, opened.video.fps, sound, crf=crf, mark=mark)
    return Path(out)


def _folder(person: Person | str | Path) -> Path:
    from .files.output_paths import as_path
    from .person.person import Person

    return person.folder if isinstance(person, Person) else as_path(person, "person")
