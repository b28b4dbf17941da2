"""AudioDVP's training on the command line: one prepared person, both networks, one model file."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ...types import Progress
from ..core.person_options import add_person_options, given_settings

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
    "flip": "mirror half of the pictures, as published",
}


class AudioDVP:
    name = "audiodvp"
    help = "AudioDVP's networks of one person, on a folder that `person prepare` made"

    def add_arguments(self, command: argparse.ArgumentParser) -> None:
        from .settings import CHOICES, Settings

        add_person_options(command, Settings, HELP, CHOICES)

    def settings(self, options: argparse.Namespace) -> Settings:
        from .settings import Settings

        return given_settings(options, Settings)

    def train(self, options: argparse.Namespace, stage: Callable[[str], Progress], say: Callable[[str], None]) -> Path:
        from .train import train_audiodvp

        settings = self.settings(options)
        return train_audiodvp(options.person, options.out, settings, resume=options.resume, stage=stage, say=say)
