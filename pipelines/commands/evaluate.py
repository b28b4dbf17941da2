"""`python -m talking_portrait evaluate`: measures a talking video."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..face.native_stderr import redirect_native_stderr
from .shared.progress_bar import ProgressBar
from .shared.terminal import note, say


def add_commands(commands: argparse._SubParsersAction) -> None:
    text = "measure a talking video: lips and sound, steadiness, and likeness to a reference"
    command = commands.add_parser("evaluate", help=text, description=text)
    command.add_argument("video", type=Path, metavar="VIDEO", help="the video; its largest face counts")
    command.add_argument("--audio", type=Path, help="its speech, any sound or video file (default: the video's own)")
    command.add_argument("--reference", type=Path, metavar="VIDEO", help="a real speaker who says the same")
    command.add_argument(
        "--window", type=int, default=0, metavar="N", help="frames that the renderer makes at once, for their seams"
    )
    command.add_argument(
        "--out", type=Path, metavar="FOLDER", help="also write evaluation.json, evaluation.csv and curves.png there"
    )
    command.add_argument(
        "--landmarks", type=Path, help="MediaPipe's .task (default: that of the model folder, or the shipped networks)"
    )
    command.set_defaults(run=_evaluate)


@redirect_native_stderr()
def _evaluate(options: argparse.Namespace) -> None:
    from ..evaluation.evaluate import evaluate
    from ..evaluation.networks import load_networks
    from ..evaluation.report import NAMES, write_report
    from ..face.landmarks import open_landmarker
    from ..files.output_paths import check_output_folder, file_to_write, folder_for_results, keep_inputs
    from ..model_files.store import find, list_files

    if options.out:
        check_output_folder(options.out)
        for name in NAMES.values() if options.out.exists() else ():
            keep_inputs(file_to_write(options.out / name), options.video, options.audio, options.reference)
    landmarker = open_landmarker(options.landmarks)
    if landmarker.hint:
        note(landmarker.hint)
    report = evaluate(
        options.video,
        options.audio,
        landmarker,
        reference=options.reference,
        window=options.window,
        networks=load_networks(lambda name: find(list_files(name)[0])),
        progress=ProgressBar("evaluating", "%"),
    )
    for line in report.text().splitlines():
        say(line)
    if options.out:
        with folder_for_results(options.out):
            write_report(options.out, report)
        note(f"{options.out}: {', '.join(NAMES.values())}")
