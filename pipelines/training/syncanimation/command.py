"""SyncAnimation's training on the command line: one prepared person, three stages, one model file."""

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
    "joint": "pictures of torso and face train the syncers too, as published; slow on a CPU",
    "lpips": "LPIPS' weights, AlexNet's in the same file or in the model folder (default: none, gradients and SSIM)",
}


class SyncAnimation:
    name = "syncanimation"
    help = "SyncAnimation's networks of one person, on a folder that `person prepare` made"

    def add_arguments(self, command: argparse.ArgumentParser) -> None:
        from .settings import CHOICES, Settings

        add_person_options(command, Settings, HELP, CHOICES)

    def settings(self, options: argparse.Namespace) -> Settings:
        from .settings import Settings

        return given_settings(options, Settings)

    def train(self, options: argparse.Namespace, stage: Callable[[str], Progress], say: Callable[[str], None]) -> Path:
        from .train import train_syncanimation

        settings = self.settings(options)
        return train_syncanimation(options.person, options.out, settings, resume=options.resume, stage=stage, say=say)
