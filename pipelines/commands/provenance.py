"""`python -m talking_portrait detect` and `sign`: whether AI made a video, and a signed statement that it did."""

from __future__ import annotations

import argparse
from pathlib import Path

from .shared.progress_bar import ProgressBar
from .shared.terminal import say

NOT_FOUND = 1
"""Exit status of `detect` where nothing says that AI made the video."""


def add_commands(commands: argparse._SubParsersAction) -> None:
    text = "say whether AI made a video: its invisible mark, metadata and content credentials (exit status 1: no sign)"
    command = commands.add_parser("detect", help=text, description=text)
    command.add_argument("video", type=Path, metavar="VIDEO")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=_detect)
    text = "write a copy of a video of this program with C2PA content credentials (needs c2pa-python)"
    command = commands.add_parser("sign", help=text, description=text)
    command.add_argument("video", type=Path, metavar="VIDEO", help="an MP4 or MOV file")
    command.add_argument("--key", type=Path, required=True, help="your private key, PEM")
    command.add_argument("--certificate", type=Path, required=True, help="its certificate and the chain, PEM")
    command.add_argument("--out", type=Path, required=True, help="the video to write")
    command.set_defaults(run=_sign)


def _detect(options: argparse.Namespace) -> int:
    from ..provenance.findings import inspect_video

    findings = inspect_video(options.video, progress=ProgressBar("looking"))
    for line in (findings.json() if options.json else findings.text()).splitlines():
        say(line)
    return 0 if findings.ai_made else NOT_FOUND


def _sign(options: argparse.Namespace) -> None:
    from ..provenance.content_credentials import sign

    say(f"{sign(options.video, options.out, key=options.key, certificate=options.certificate)}: signed")
