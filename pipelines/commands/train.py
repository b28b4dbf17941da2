"""`python -m talking_portrait prepare` and `train`: from videos to a training folder, from there to networks."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

from ..errors import TalkingPortraitError
from ..face.crop_boxes import PRESETS
from ..face.native_stderr import redirect_native_stderr
from ..training.aniportrait import command as aniportrait_command
from ..training.apasco import command as apasco_command
from ..training.audiodvp.command import AudioDVP
from ..training.core.trainer import PRECISIONS, Plan, Trainer
from ..training.face.command import FacePoints
from ..training.instant.command import Mouth
from ..training.instant.driver_command import Driver
from ..training.syncanimation.command import SyncAnimation
from .shared.progress_bar import ProgressBar
from .shared.terminal import note, say
from .shared.weight_options import find_weights


class TrainerCommand(Protocol):
    """A trainer on the command line. `name` names the command, `defaults` are those of its `Plan`."""

    name: str
    help: str
    defaults: dict[str, Any]

    def add_arguments(self, command: argparse.ArgumentParser) -> None: ...

    def open(self, options: argparse.Namespace) -> tuple[Trainer, Any]:
        """The trainer and its samples."""


MOST_NAMES = 10
"""Of videos that are named in one sentence."""
TRAINERS: tuple[TrainerCommand, ...] = (*aniportrait_command.TRAINERS, *apasco_command.TRAINERS)


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `prepare` and `train` to the command line."""
    _add_prepare(commands)
    command = commands.add_parser("train", help="train a system's networks on prepared clips")
    kinds = command.add_subparsers(title="trainers", required=True, metavar="TRAINER")
    for trainer in TRAINERS:
        _add_trainer(kinds.add_parser(trainer.name, help=trainer.help, description=trainer.help), trainer)
    for system in (AudioDVP, SyncAnimation):
        _add_person(kinds.add_parser(system.name, help=system.help, description=system.help), system())
    _add_driver(kinds.add_parser(Driver.name, help=Driver.help, description=Driver.help))
    _add_mouth(kinds.add_parser(Mouth.name, help=Mouth.help, description=Mouth.help))
    _add_face_points(kinds.add_parser(FacePoints.name, help=FacePoints.help, description=FacePoints.help))


def _add_prepare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("prepare", help="make training clips from videos of faces")
    command.add_argument("videos", nargs="+", type=Path, metavar="VIDEO", help="files, or folders of them")
    command.add_argument("--out", type=Path, required=True, help="the training folder, new or one to add to")
    command.add_argument("--fps", default="30", help="frames per second: 30 for AniPortrait, 25 for APasco")
    command.add_argument("--size", type=int, default=512, help="side of the clips' pictures (default 512)")
    command.add_argument("--crop", choices=list(PRESETS), default="head", help="how much around the face is kept")
    command.add_argument("--shortest", type=float, default=2.0, metavar="S", help="seconds of the shortest clip")
    command.add_argument("--longest", type=float, default=60.0, metavar="S", help="seconds of the longest clip")
    command.add_argument("--person", help="who speaks in these videos (default: another person in each)")
    command.add_argument(
        "--landmarks", type=Path, help="MediaPipe's .task (default: that of the model folder, or the shipped networks)"
    )
    more = command.add_argument_group("for APasco, of all clips of the folder")
    more.add_argument("--speech-encoder", type=Path, help="wav2vec2-base-960h: its hidden states are stored")
    more.add_argument("--face-detector", type=Path, help="scrfd_10g_bnkps.onnx")
    more.add_argument("--face-recogniser", type=Path, help="glintr100.onnx: the face's embedding is stored")
    command.set_defaults(run=_prepare)


@redirect_native_stderr()
def _prepare(options: argparse.Namespace) -> None:
    from ..face.landmarks import open_landmarker
    from ..files.output_paths import check_output_folder, keep_apart
    from ..timing import as_rate
    from ..training.data.prepare import Recipe, find_videos, prepare

    if bool(options.face_detector) != bool(options.face_recogniser):
        raise TalkingPortraitError(
            "One of --face-detector and --face-recogniser was given, but faces are recognised by both; give both files."
        )
    find_weights(options)
    recipe = Recipe(as_rate(options.fps), options.size, options.crop, options.shortest, options.longest)
    _check_folder(options.out)
    videos = find_videos(options.videos)
    check_output_folder(options.out)
    keep_apart(options.out, *options.videos)
    add_features = _features(options)
    landmarker = open_landmarker(options.landmarks)
    if landmarker.hint:
        note(landmarker.hint)
    left_out: list[Path] = []
    count = prepare(
        videos,
        options.out,
        landmarker,
        recipe,
        person=options.person,
        say=say,
        failed=left_out.append,
        progress=ProgressBar("preparing", "frames"),
    )
    say(f"{options.out}: {count} {'clip' if count == 1 else 'clips'}")
    if count:
        add_features()
    if left_out:
        names = ", ".join(video.name for video in left_out[:MOST_NAMES])
        more = f" and {len(left_out) - MOST_NAMES} more" if len(left_out) > MOST_NAMES else ""
        raise TalkingPortraitError(
            f"{len(left_out)} of {len(videos)} videos could not be prepared ({names}{more}), for the reasons above; "
            "check them and run this again, which goes on with those that are missing."
        )
    if not count:
        raise TalkingPortraitError(
            f"None of {len(videos)} videos gave a clip, for the reasons above; give videos in which a face is seen for "
            f"{options.shortest:g} s on end, or a smaller --shortest."
        )


def _features(options: argparse.Namespace) -> Callable[[], None]:
    """What adds them to all clips; its networks are opened here, as a wrong file is better said before the work."""
    from ...models.speech.loading import load_speech_encoder
    from ..face.identity import FaceRecogniser
    from ..training.data.clip_features import add_identity, add_speech_features
    from ..training.data.clips import read_clips

    encoder = load_speech_encoder(options.speech_encoder) if options.speech_encoder else None
    recogniser = FaceRecogniser(options.face_detector, options.face_recogniser) if options.face_detector else None

    def add() -> None:
        clips = read_clips(options.out)
        if encoder is not None:
            missing = add_speech_features(clips, encoder, ProgressBar("encoding the speech", "clips"))
            say(f"{options.out}: {len(clips) - missing} clips have speech features, {missing} have no sound")
        if recogniser is not None:
            missing = add_identity(clips, recogniser, ProgressBar("recognising", "clips"))
            say(f"{options.out}: the face of {len(clips) - missing} clips is known, in {missing} none was recognised")

    return add


def _add_trainer(command: argparse.ArgumentParser, trainer: TrainerCommand) -> None:
    command.add_argument("--data", type=Path, required=True, help="a folder that `prepare` made")
    command.add_argument("--out", type=Path, required=True, help="gets checkpoints, pictures, the log, the networks")
    trainer.add_arguments(command.add_argument_group("networks"))  # type: ignore[arg-type] # it can do the same
    _add_plan(command, trainer.defaults)
    command.set_defaults(run=lambda options: _train(options, trainer))


def _add_mouth(command: argparse.ArgumentParser) -> None:
    Mouth().add_arguments(command)
    _add_plan(command, Mouth.defaults, without=("workers",))
    command.set_defaults(run=_train_mouth)


def _add_driver(command: argparse.ArgumentParser) -> None:
    Driver().add_arguments(command)
    command.set_defaults(run=_train_driver)


def _add_face_points(command: argparse.ArgumentParser) -> None:
    FacePoints().add_arguments(command)
    command.set_defaults(run=_train_face_points)


def _add_person(command: argparse.ArgumentParser, system: AudioDVP | SyncAnimation) -> None:
    system.add_arguments(command)
    command.set_defaults(run=lambda options: _train_person(options, system))


def _add_plan(command: argparse.ArgumentParser, defaults: dict[str, Any], without: Collection[str] = ()) -> None:
    command.add_argument("--resume", action="store_true", help="continue from the newest checkpoint of the run")
    plan = Plan(**{"steps": 1} | defaults)
    group = command.add_argument_group("plan")
    group.add_argument("--steps", type=int, default=plan.steps, help=f"altogether (default {plan.steps})")
    for name, text in (
        ("batch", "samples at once, on each GPU"),
        ("accumulate", "batches before each step"),
        ("rate", "learning rate"),
        ("warmup", "steps in which the rate rises"),
        ("clip", "longest gradient"),
        ("save_every", "steps between checkpoints"),
        ("keep", "checkpoints to keep"),
        ("picture_every", "steps between pictures, 0 for none"),
        ("workers", "processes that read ahead"),
        ("seed", "same seed, same run"),
    ):
        if name in without:
            continue
        value = getattr(plan, name)
        option = "--" + name.replace("_", "-")
        group.add_argument(option, type=type(value), default=value, metavar="N", help=f"{text} (default {value})")
    group.add_argument("--decay", choices=["none", "linear", "cosine"], default=plan.decay, help="of the rate")
    usual = plan.precision if plan.precision == "fp32" else f"{plan.precision}, without a graphics card fp32"
    text = f"of the arithmetic (default {usual})"
    group.add_argument("--precision", choices=list(PRECISIONS), help=text)


def _plan(options: argparse.Namespace, defaults: dict[str, Any]) -> Plan:
    import torch

    chosen = {field.name: getattr(options, field.name) for field in fields(Plan) if hasattr(options, field.name)}
    if options.precision is None:  # CPUs compute half precision many times as slowly
        del chosen["precision"]
        if not torch.accelerator.is_available():
            chosen["precision"] = "fp32"
    return Plan(**defaults | chosen)


def _train(options: argparse.Namespace, command: TrainerCommand) -> None:
    from ..training.core.loop import seed_everything, train

    plan = _plan(options, command.defaults)
    find_weights(options)
    _check_folder(options.out)
    seed_everything(plan.seed, 0)
    trainer, samples = command.open(options)
    files = train(trainer, samples, plan, options.out, resume=options.resume, progress=ProgressBar("training", "steps"))
    for path in files.values():
        say(str(path))


def _train_mouth(options: argparse.Namespace) -> None:
    from ..files.output_paths import file_to_write, keep_inputs
    from ..training.core.loop import seed_everything, train

    command = Mouth()
    plan = _plan(options, command.defaults)
    _check_folder(options.work)
    if options.out:
        options.out = file_to_write(options.out)
        keep_inputs(options.out, options.start)
    seed_everything(plan.seed, 0)
    trainer, crops = command.open(options, ProgressBar)
    say(trainer.description["data"])
    files = train(trainer, crops, plan, options.work, resume=options.resume, progress=ProgressBar("training", "steps"))
    for path in files.values():  # only the first of several processes has written them
        for name, value in command.finish(options, path).items():
            say(f"held-out {name}: {value:.3f}")
        say(str(options.out or path))


@redirect_native_stderr()
def _train_driver(options: argparse.Namespace) -> None:
    say(str(Driver().train(options, ProgressBar, say)))


@redirect_native_stderr()
def _train_face_points(options: argparse.Namespace) -> None:
    from ..files.output_paths import keep_apart

    _check_folder(options.out)
    keep_apart(options.out, options.faces)
    for path in FacePoints().train(options, ProgressBar, say):
        say(str(path))


def _train_person(options: argparse.Namespace, system: AudioDVP | SyncAnimation) -> None:
    find_weights(options)
    _check_folder(options.out)
    say(str(system.train(options, lambda label: ProgressBar(label, "steps"), say)))


def _check_folder(folder: Path) -> None:
    from ..files.input_paths import is_file
    from ..files.output_paths import check_output_folder

    if is_file(folder):
        raise TalkingPortraitError(f"{folder} is a file, but a folder is expected; give another name.")
    check_output_folder(folder)
