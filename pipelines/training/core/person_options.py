"""The options of a command that trains the networks of one prepared person."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

Settings = TypeVar("Settings")
HELP = {
    "held_out": "share of the video, at its end, that is measured and not trained on",
    "seed": "same seed, same run",
    "save_every": "steps between checkpoints",
    "picture_every": "steps between pictures, 0 for none",
}
"""Of fields that the settings of each system have."""


def add_person_options(
    command: argparse.ArgumentParser,
    kind: type[Any],
    texts: Mapping[str, str],
    choices: Mapping[str, Sequence[str]],
) -> None:
    """--person, --out and --resume, and an option for each field of the dataclass `kind`, with its default.

    `texts` has the help of each field that `HELP` lacks, `choices` what some may be; a bool becomes a switch.
    """
    command.add_argument("--person", type=Path, required=True, metavar="FOLDER", help="the prepared person")
    command.add_argument("--out", type=Path, required=True, metavar="RUN", help="gets the run and its model")
    command.add_argument("--resume", action="store_true", help="continue the run, with the settings it began with")
    for entry in fields(kind):
        option, text = "--" + entry.name.replace("_", "-"), {**HELP, **texts}[entry.name]
        value: Any = entry.default
        shown = "" if "default" in text or not value else f" (default {value})"
        if entry.name in choices:
            command.add_argument(option, choices=choices[entry.name], default=value, help=text)
        elif isinstance(value, bool):
            command.add_argument(option, action="store_true", help=text)
        else:
            name = "FILE" if isinstance(value, str) else "N"
            command.add_argument(option, type=type(value), default=value, metavar=name, help=text + shown)


def given_settings(options: argparse.Namespace, kind: type[Settings]) -> Settings:
    """The dataclass that the options are for. Raises as it does for values outside their range."""
    return kind(**{entry.name: getattr(options, entry.name) for entry in fields(kind)})  # type: ignore[arg-type]
