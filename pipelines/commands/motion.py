"""`python -m talking_portrait motion`: what a voice does to a face, as a file."""

from __future__ import annotations

import argparse
from pathlib import Path

from .shared.driver_options import add_driver_options, check_driver_options, drive_with, driver_option
from .shared.terminal import say


def add_commands(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("motion", help="predict a face motion from speech, as an .npz file")
    command.add_argument("--audio", type=Path, help="the speech, any sound or video file (default: the shipped one)")
    command.add_argument("--out", type=Path, required=True, metavar="M.npz", help="the motion to write")
    add_driver_options(command)
    command.set_defaults(run=_motion)


def _motion(options: argparse.Namespace) -> None:
    from ..files.example import SPEECH_FILE
    from ..files.motion_file import check_motion_name, save_motion
    from ..files.output_paths import file_to_write, keep_inputs
    from ..files.sound import read_speech
    from ..timing import as_rate

    check_motion_name(options.out)
    check_driver_options(options)
    keep_inputs(file_to_write(options.out), options.audio)
    fps = as_rate(driver_option(options, "fps"))
    speech, _ = read_speech(options.audio or SPEECH_FILE, fps)
    motion = drive_with(options, speech, fps)
    save_motion(options.out, motion)
    say(f"{options.out}: {motion.frames} frames at {float(motion.fps):g} fps")
