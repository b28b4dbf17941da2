"""`python -m talking_portrait doctor`: what the program runs on, and one sentence for each problem."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from ..files.input_paths import existing_folder
from .models import folders_of
from .shared.terminal import say, say_json

PROBLEMS = 1
"""Exit status where something is wrong."""


def add_commands(commands: argparse._SubParsersAction) -> None:
    text = "look at versions, device, ComfyUI, model files and ffmpeg; one sentence for each problem (exit status 1)"
    command = commands.add_parser("doctor", help=text, description=text)
    command.add_argument("--models", type=Path, help="the folder that holds vae, detection, talking_portrait ...")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from ..diagnosis import diagnose

    if options.models is not None:
        existing_folder(options.models, "models")
    findings, problems = [], 0
    for finding in diagnose(folders_of(options)):
        findings.append(asdict(finding))
        problems += finding.problem
        if not options.json:
            say(f"{'problem' if finding.problem else 'ok':<9}{finding.text}")
    if options.json:
        say_json({"problems": problems, "findings": findings})
    else:
        say("Nothing is wrong." if not problems else f"{problems} problem{'s' if problems > 1 else ''} found.")
    return PROBLEMS if problems else 0
