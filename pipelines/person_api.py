"""The Python API of systems that are trained for one person: prepare a video, train on it, drive it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import TalkingPortraitError, check_names, plain_numbers, quoted

if TYPE_CHECKING:
    from fractions import Fraction

    import torch

    from .person.person import Person
    from .types import Audio, Progress

AUDIODVP, SYNCANIMATION = "audiodvp", "syncanimation"
Settings = TypeVar("Settings")


@plain_numbers
def prepare_person(
    video: str | Path,
    folder: str | Path,
    *,
    system: str = AUDIODVP,
    crop_size: int = 256,
    fps: float | str | None = None,
    silent: bool = False,
    speech_encoder: str | Path | None = None,
    face_model: str | Path | None = None,
    regressor: str | Path | None = None,
    avatar_size: int | None = None,
    parser: str | Path | None = None,
    progress: Progress | None = None,
) -> Person:
    """Makes a folder that training starts from, of a video in which one person speaks, or goes on with one begun.

    Args:
        system: what is to be trained: "audiodvp", "syncanimation" or "both"; another one can be added later.
        crop_size: side of the pictures of the face in pixels.
        fps: frames per second, by default the video's own.
        silent: also take a video without speech, which can be driven but not trained on.
        speech_encoder: a wav2vec2, HuBERT or ATnet model; by default the mouth network that is shipped.
        face_model: a morphable face model as `person face-model` writes it; by default one is learnt from the video.
        regressor: VGGFace2's resnet50_ft_weight.pkl, to fit the face model as published, which takes hours on a CPU.
        avatar_size: side of SyncAnimation's pictures in pixels, 64 to 512; by default that of the square around the
            person, at most 512.
        parser: BiSeNet's .pth or MediaPipe's .tflite, for SyncAnimation's masks.

    Raises TalkingPortraitError, one sentence, for a video that can't be used and a folder of something else.
    """
    from .audiodvp.atnet import load_encoder
    from .audiodvp.morphable.regressor import load_models
    from .person.prepare import Settings
    from .person_systems import check_is_used, prepare_person_for
    from .progress import given_progress
    from .timing import as_rate

    check_is_used(system, {"avatar_size": avatar_size, "parser": parser, "regressor": regressor})
    model, network = load_models(face_model, regressor)
    return prepare_person_for(
        system,  # type: ignore[arg-type]  # any text comes from users; it is checked there
        video,
        folder,
        settings=Settings(crop_size, None if fps is None else as_rate(fps), silent),
        avatar_size=avatar_size,
        parser=parser,
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
    system: str = AUDIODVP,
    resume: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Path:
    """Trains AudioDVP or SyncAnimation for a prepared person, or its folder, in `out`; returns the model's file.

    `system` is "audiodvp" or "syncanimation"; `settings` are those of `pipelines.training.<system>.settings.Settings`:
    minutes, steps, size, held_out, seed ...; `resume` goes on with a run. Raises TalkingPortraitError for settings out
    of range, a person that was not prepared for the system, and a folder of something else.
    """
    from .files.output_paths import as_path
    from .progress import given_progress, shared_out

    report = given_progress(progress)
    if system == AUDIODVP:
        from .training.audiodvp import train as audiodvp
        from .training.audiodvp.settings import Settings as AudioDVPSettings

        chosen, parts = _settings(AudioDVPSettings, settings), shared_out(report, audiodvp.PROGRESS)
        folder, out = _folder(person), as_path(out, "folder of the training")
        return audiodvp.train_audiodvp(folder, out, chosen, resume=resume, stage=parts.__getitem__)
    if system == SYNCANIMATION:
        from .training.syncanimation import train as syncanimation
        from .training.syncanimation.settings import Settings as SyncAnimationSettings

        own, parts = _settings(SyncAnimationSettings, settings), shared_out(report, syncanimation.PROGRESS)
        folder, out = _folder(person), as_path(out, "folder of the training")
        return syncanimation.train_syncanimation(folder, out, own, resume=resume, stage=parts.__getitem__)
    raise TalkingPortraitError(f"The system is {quoted(system)}, but one of {AUDIODVP}, {SYNCANIMATION} is expected.")


@plain_numbers
def drive_person(
    model: str | Path,
    audio: str | Path | Audio,
    out: str | Path,
    *,
    head: Person | str | Path | None = None,
    speech_encoder: str | Path | None = None,
    crf: int = 18,
    mark: bool = True,
    device: str = "cpu",
    progress: Progress | None = None,
    **options: Any,
) -> Path:
    """Makes the person of a trained model speak other words, and writes the video `out`; returns its path.

    Args:
        model: the file of a training; whose, its contents say.
        head: the prepared person, its folder, or the video that it was prepared from: AudioDVP needs it, and
            SyncAnimation puts the face alone into its frames; without it SyncAnimation makes the whole picture.
        speech_encoder: the file that the person was prepared with, where it was one.
        crf: H.264 quality, 0 (lossless) to 51.
        mark: whether frames get the invisible mark of AI-made videos, see `animate`.
        device: where faces are generated: "cpu", "cuda" ...
        options: of AudioDVP `offset`, the frame of the head's video to begin with; of SyncAnimation the fields of
            `pipelines.syncanimation.animate.Drive`: pose, expression, seed, reference, smoothing, torso_scale,
            close_in_silence.

    Raises TalkingPortraitError, one sentence, for what can't be read or written, and options that the system has not.
    """
    from .audio.waveform import as_speech, check_audio
    from .audiodvp.atnet import load_encoder
    from .files.frame_stream import write_stream
    from .files.input_paths import existing_file
    from .files.output_paths import as_path, file_to_write, keep_inputs
    from .files.sound import SoundTrack, read_speech
    from .files.video import check_video_name
    from .memory import usable_device
    from .person.model_system import system_of
    from .person.person import Person
    from .progress import given_progress
    from .provenance.marking import new_marking

    check_video_name(out, crf)
    new_marking(mark)  # only refuses what is no mark, before anything is read
    computed_on = usable_device(device)
    report = given_progress(progress)
    file = as_path(model, "model")
    if isinstance(head, str | Path) and Path(head).is_dir():
        head = open_person(head)
    heads = [] if head is None else [head.source if isinstance(head, Person) else as_path(head, "head")]
    keep_inputs(file_to_write(out), file, *heads, *([Path(audio)] if isinstance(audio, str | Path) else []))
    opened = _avatar if system_of(existing_file(file, "model")) == SYNCANIMATION else _face
    fps, frames_of = opened(file, head, options, computed_on)
    encoder = load_encoder(speech_encoder)
    sound: Audio | SoundTrack
    if isinstance(audio, str | Path):
        speech, sound = read_speech(audio, fps)
    else:
        sound = check_audio(audio)
        speech = as_speech(sound, fps)
    write_stream(out, frames_of(speech, encoder=encoder, progress=report), fps, sound, crf=crf, mark=mark)
    return Path(out)


def _face(
    file: Path, head: Person | str | Path | None, options: dict[str, Any], device: torch.device
) -> tuple[Fraction, Callable[..., Iterator[torch.Tensor]]]:
    """The rate of an AudioDVP model, and what makes its frames of speech."""
    from .audiodvp.animate import frames_of, open_model
    from .errors import check_kind
    from .files.output_paths import as_path
    from .memory import Resident
    from .person.person import Person

    check_names(options, ("offset",), "AudioDVP", word="_")
    check_kind("offset", options.get("offset", 0), 0)
    source = head if isinstance(head, Person) else as_path(head, "head")
    model = open_model(file)
    return model.video.fps, partial(frames_of, model, head=source, renderer=Resident(model.renderer, device), **options)


def _avatar(
    file: Path, head: Person | str | Path | None, options: dict[str, Any], device: torch.device
) -> tuple[Fraction, Callable[..., Iterator[torch.Tensor]]]:
    """The rate of a SyncAnimation model, and what makes its frames of speech."""
    from .memory import Resident
    from .syncanimation.animate import Drive, frames_of, open_model

    check_names(options, [entry.name for entry in fields(Drive)], "SyncAnimation", word="_")
    drive = Drive(**options)
    model = open_model(file)
    model.check_trained()
    return model.video.fps, partial(
        frames_of, model, drive=drive, head=head, renderer=Resident(model.networks.renderer, device)
    )


def _settings(kind: type[Settings], given: dict[str, Any]) -> Settings:
    """Raises TalkingPortraitError for names that are no field of `kind`, and as it does."""
    names = {entry.name for entry in fields(kind)}  # type: ignore[arg-type]  # a dataclass
    unknown = sorted(given.keys() - names)
    if unknown:
        raise TalkingPortraitError(f"Training takes no {', '.join(unknown)}; it takes {', '.join(sorted(names))}.")
    return kind(**given)


def _folder(person: Person | str | Path) -> Path:
    from .files.output_paths import as_path
    from .person.person import Person

    return person.folder if isinstance(person, Person) else as_path(person, "person")
