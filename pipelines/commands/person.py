"""`python -m talking_portrait person`: systems that are trained for one person."""

from __future__ import annotations

import argparse
from pathlib import Path

from .progress_bar import ProgressBar
from .terminal import note, say


def add_commands(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("person", help="prepare a video of one person for training")
    actions = command.add_subparsers(title="actions", required=True, metavar="ACTION")
    _add_prepare(actions)


def _add_prepare(actions: argparse._SubParsersAction) -> None:
    text = "make the folder that training for one person starts from, from a video in which the person speaks"
    command = actions.add_parser("prepare", help=text, description=text)
    command.add_argument("video", type=Path, metavar="VIDEO", help="of one person who speaks to the camera")
    command.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a new folder, or one to go on with")
    command.add_argument("--size", type=int, default=256, help="side of the crops in pixels (default 256)")
    command.add_argument("--fps", help="frames per second (default: the video's own)")
    command.add_argument("--silent", action="store_true", help="also take a video without speech, for driving alone")
    command.add_argument("--speech-encoder", type=Path, help="a wav2vec2 or HuBERT model (default: MFCC, without one)")
    command.add_argument(
        "--landmarks", type=Path, help="MediaPipe's .task (default: that of the model folder, or the shipped networks)"
    )
    command.set_defaults(run=_prepare)


def _prepare(options: argparse.Namespace) -> None:
    from ...models.speech.loading import load_speech_encoder
    from ..audiodvp.prepare import prepare_fitted_person
    from ..face.landmarks import open_landmarker
    from ..files.output_paths import check_output_folder
    from ..person.prepare import Settings
    from ..timing import as_rate

    settings = Settings(options.size, as_rate(options.fps) if options.fps else None, options.silent)
    check_output_folder(options.out)
    landmarker = open_landmarker(options.landmarks)
    if landmarker.hint:
        note(landmarker.hint)
    person = prepare_fitted_person(
        options.video,
        options.out,
        settings=settings,
        landmarker=landmarker,
        encoder=load_speech_encoder(options.speech_encoder) if options.speech_encoder else None,
        say=say,
        progress=ProgressBar("preparing", "%"),
    )
    say(f"{options.out}: {person.frames} frames at {float(person.fps):g} fps, {person.usable.sum()} of them usable")
