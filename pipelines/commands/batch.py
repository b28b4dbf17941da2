"""`python -m talking_portrait batch`: many videos from a list."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..face.native_stderr import redirect_native_stderr
from .shared.progress_bar import ProgressBar
from .shared.terminal import note, say

FAILED = 1
"""Exit status where a row could not be made."""


def add_commands(commands: argparse._SubParsersAction) -> None:
    text = "make a video of each row of a list; started again, it goes on where it was (exit status 1: a row failed)"
    command = commands.add_parser("batch", help=text, description=text)
    command.add_argument(
        "manifest",
        type=Path,
        metavar="MANIFEST.jsonl",
        help='one JSON object a line: {"portrait": FILE, "audio": FILE, "renderer": "instant", "settings": {...}}; '
        "a portrait that is a video is dubbed; settings are arguments of the Python API's animate",
    )
    command.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for the videos and batch.json")
    command.add_argument(
        "--ray", nargs="?", const="local", metavar="ADDRESS", help="on a Ray cluster, by default one of this machine"
    )
    command.add_argument(
        "--gpus", type=float, metavar="N", help="with --ray: cards for each replica, 0.5 for two a card"
    )
    command.add_argument("--replicas", type=int, metavar="N", help="with --ray: jobs at once (default: what fits)")
    command.set_defaults(run=_batch)


@redirect_native_stderr()
def _batch(options: argparse.Namespace) -> int:
    from ..batch.manifest import read_manifest
    from ..batch.on_ray import LOCAL, ray_workers
    from ..batch.run import RESULTS, Workers, here, run_batch
    from ..files.output_paths import check_output_folder, keep_inputs

    check_output_folder(options.out)
    keep_inputs(options.out / RESULTS, options.manifest)
    jobs = read_manifest(options.manifest, options.out.absolute())
    workers: Workers = here
    if options.ray is not None:
        if options.ray != LOCAL:
            note(f"Connecting to the Ray cluster {options.ray}; Ray tries for some minutes where it does not answer.")
        workers = ray_workers(options.ray, gpus=options.gpus, replicas=options.replicas)
    elif options.gpus is not None or options.replicas is not None:
        note("--gpus and --replicas have no effect without --ray.")
    options.out.mkdir(parents=True, exist_ok=True)
    outcomes = run_batch(jobs, options.out, workers, say=note, progress=ProgressBar("batch", "videos"))
    for outcome in outcomes:
        where = outcome.job.target.name if outcome.state != "failed" else outcome.error
        say(f"line {', '.join(map(str, outcome.job.numbers))}: {outcome.state}, {where}")
    counts = [sum(outcome.state == state for outcome in outcomes) for state in ("done", "there", "failed")]
    say(f"{options.out}: {counts[0]} made, {counts[1]} there already, {counts[2]} failed")
    return FAILED if counts[2] else 0
