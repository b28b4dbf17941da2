"""SyncAnimation's training on the command line: one prepared person, three stages, one model file."""

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
    "size": "of the training's steps: small for a CPU, published for a graphics card",
    "stage": "the last one to train; what is finished before it is not trained again",
    "minutes": "that the renderer is trained, about",
    "steps": "of the renderer's training in all stages, in place of minutes; with --resume altogether",
    "torso_steps": "of the first stage, in place of its part of the others",
    "face_steps": "of the second stage, likewise",
    "lips_steps": "of the third stage, likewise",
    "rays": "pixels of a step (default: 2048 small, 65536 published)",
    "precision": "of the renderer's arithmetic",
    "syncer_steps": "of each syncer and of the speech code",
    "held_out": "share of the video, at its end, that is measured and not trained on",
    "seed": "same seed, same run",
    "save_every": "steps between checkpoints",
    "picture_every": "steps between pictures, 0 for none",
    "joint": "pictures of torso and face train the syncers too, as published; slow on a CPU",
    "lpips": "file of LPIPS' weights with AlexNet's, for patches (default: none, gradients and SSIM are compared)",
}


class SyncAnimation:
    name = "syncanimation"
    help = "SyncAnimation's networks of one person, on a folder that `person prepare` made"

    def add_arguments(self, command: argparse.ArgumentParser) -> None:
        from .settings import CHOICES, Settings

        command.add_argument("--person", type=Path, required=True, metavar="FOLDER", help="the prepared person")
        command.add_argument("--out", type=Path, required=True, metavar="RUN", help="gets the run and its model")
        command.add_argument("--resume", action="store_true", help="continue the run, with the settings it began with")
        for entry in fields(Settings):
            option, text = "--" + entry.name.replace("_", "-"), HELP[entry.name]
            if entry.name in CHOICES:
                command.add_argument(option, choices=CHOICES[entry.name], default=entry.default, help=text)
                continue
            if isinstance(entry.default, bool):
                command.add_argument(option, action="store_true", help=text)
                continue
            shown = "" if "default" in text or not entry.default else f" (default {entry.default})"
            kind: Any = type(entry.default)
            name = "FILE" if kind is str else "N"
            command.add_argument(option, type=kind, default=entry.default, metavar=name, help=text + shown)

    def settings(self, options: argparse.Namespace) -> Settings:
        from .settings import Settings

        return Settings(**{entry.name: getattr(options, entry.name) for entry in fields(Settings)})

    def train(self, options: argparse.Namespace, stage: Callable[[str], Progress], say: Callable[[str], None]) -> Path:
        from .train import train_syncanimation

        settings = self.settings(options)
        return train_syncanimation(options.person, options.out, settings, resume=options.resume, stage=stage, say=say)
