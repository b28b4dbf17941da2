"""Options of Instant's driver, for the commands that take a voice."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from .progress_bar import ProgressBar

if TYPE_CHECKING:
    from fractions import Fraction

    from ...types import Audio, FaceMotion


DRIVER_DEFAULTS: dict[str, Any] = {
    "fps": "25",
    "seed": 0,
    "mouth": 1.0,
    "head": 1.0,
    "nod": 1.0,
    "brows": 1.0,
    "blinks": 1.0,
    "blink_rate": 20.0,
    "drift": 1.0,
    "gaze": 1.0,
    "breath": 1.0,
    "idle": 1.0,
    "asymmetry": 1.0,
    "weights": "real lips",
}
"""Of the driver's options, which the parser leaves at None where they are not given."""


def add_driver_options(command: argparse.ArgumentParser) -> None:
    """Adds them to a command; those that are not given stay None."""
    group = command.add_argument_group("driver: what the face does (amounts: 1 is natural, 0 is still)")
    group.add_argument("--fps", help="frames per second of the video, e.g. 25, 30 or 30000/1001 (default 25)")
    group.add_argument("--seed", type=int, help="same seed, same motion")
    group.add_argument("--mouth", type=float, help="scale of the mouth opening")
    group.add_argument("--head", type=float, help="amount of head motion during speech")
    group.add_argument("--nod", type=float, help="amount of nods on stressed syllables")
    group.add_argument("--brows", type=float, help="amount of brow motion")
    group.add_argument("--blinks", type=float, help="blinks: 0 none, 1 full")
    group.add_argument("--blink-rate", type=float, metavar="N", help="blinks a minute (default 20)")
    group.add_argument("--drift", type=float, help="slow random movement of the head")
    group.add_argument("--gaze", type=float, help="amount of eye movement")
    group.add_argument("--breath", type=float, help="amount of breathing")
    group.add_argument("--idle", type=float, help="faint movement of brows and resting lips")
    group.add_argument("--asymmetry", type=float, help="how differently the sides of the face move")
    group.add_argument(
        "--weights", metavar="NAME|FILE",
        help='who taught the mouth: "real lips" (default), "synthetic speech" alone, or a file of train instant-driver',
    )  # fmt: skip


def driver_option(options: argparse.Namespace, name: str) -> Any:
    """An option's value, given or by default."""
    value = getattr(options, name)
    return DRIVER_DEFAULTS[name] if value is None else value


def check_driver_options(options: argparse.Namespace) -> None:
    """Raises TalkingPortraitError for a value that the driver does not take, before anything is read."""
    from ...instant.driver.driver import check_choices

    check_choices({name: value for name in DRIVER_DEFAULTS if (value := getattr(options, name)) is not None})


def drive_with(options: argparse.Namespace, speech: Audio, fps: Fraction) -> FaceMotion:
    """The motion of a face that speaks this audio, by the options."""
    from ...instant.driver.driver import drive

    amounts = {name: driver_option(options, name) for name in DRIVER_DEFAULTS if name != "fps"}
    return drive(speech, fps=fps, progress=ProgressBar("reading the speech", "parts"), **amounts)
