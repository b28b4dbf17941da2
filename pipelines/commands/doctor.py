"""`python -m talking_portrait doctor`: what the program runs on, and one sentence for each problem."""

from __future__ import annotations

import argparse
from pathlib import Path

from .models import folders_of
from .shared.terminal import say

PROBLEMS = 1
"""Exit status where something is wrong."""


def add_commands(commands: argparse._SubParsersAction) -> None:
    text = "look at versions, device, ComfyUI, model files and ffmpeg; one sentence for each problem (exit status 1)"
    command = commands.add_parser("doctor", help=text, description=text)
    command.add_argument("--models", type=Path, help="the folder that holds vae, detection, talking_portrait ...")
    command.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from ..diagnosis import diagnose

    problems = 0
    for finding in diagnose(folders_of(options)):
        problems += finding.problem
        say(f"{'problem' if finding.problem else 'ok':<9}{finding.text}")
    say("Nothing is wrong." if not problems else f"{problems} problem{'s' if problems > 1 else ''} found.")
    return PROBLEMS if problems else 0
