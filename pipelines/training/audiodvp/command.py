"""AudioDVP's training on the command line: one prepared person, both networks, one model file."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...types import Progress

if TYPE_CHECKING:
    from .settings import Settings

HELP = {
    "size": "of the neural renderer: small for a CPU, published for a graphics card",
    "minutes": "that the neural renderer is trained, about",
    "steps": "of the neural renderer's training, in place of minutes; with --resume altogether",
    "batch": "pictures at once (default: 4 small, 16 published)",
    "rate": "learning rate of the neural renderer (default: by its size)",
    "precision": "of the neural renderer's arithmetic",
    "gan": "whether a discriminator is trained too, for sharper teeth and skin (default: at the published size)",
    "expression": "the network from speech to expression; affine is the published one",
    "expression_steps": "of its training",
    "held_out": "share of the video, at its end, that is measured and not trained on",
    "seed": "same seed, same run",
    "save_every": "steps between checkpoints",
    "picture_every": "steps between pictures, 0 for none",
}


class AudioDVP:
    name = "audiodvp"
    help = "AudioDVP's networks of one person, on a folder that `person prepare` made"

    def add_arguments(self, command: argparse.ArgumentParser) -> None:
        from .settings import CHOICES, Settings

        command.add_argument("--person", type=Path, required=True, metavar="FOLDER", help="the prepared person")
        command.add_argument("--out", type=Path, required=True, metavar="RUN", help="gets the run and its model")
        command.add_argument("--resume", action="store_true", help="continue the run, with the settings it began with")
        command.add_argument("--flip", action="store_true", help="mirror half of the pictures, as published")
        for entry in fields(Settings):
            if entry.name == "flip":
                continue
            option, text = "--" + entry.name.replace("_", "-"), HELP[entry.name]
            if entry.name in CHOICES:
                command.add_argument(option, choices=CHOICES[entry.name], default=entry.default, help=text)
                continue
            shown = "" if "default" in text or not entry.default else f" (default {entry.default})"
            kind: Any = type(entry.default)
            command.add_argument(option, type=kind, default=entry.default, metavar="N", help=text + shown)

    def settings(self, options: argparse.Namespace) -> Settings:
        from .settings import Settings

        return Settings(**{entry.name: getattr(options, entry.name) for entry in fields(Settings)})

    def train(self, options: argparse.Namespace, stage: Callable[[str], Progress], say: Callable[[str], None]) -> Path:
        from .train import train_audiodvp

        settings = self.settings(options)
        return train_audiodvp(options.person, options.out, settings, resume=options.resume, stage=stage, say=say)
