"""What the settings of systems that are trained for one person share, and the part of the video that is held out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import TalkingPortraitError, check_kind, check_seed, quoted
from ...files.output_paths import whole_file
from ...person.head_frames import longest_stretch
from ...person.person import Person
from .trainer import PRECISIONS

SIZES = ("auto", "small", "published")
CHOICES: dict[str, tuple[str, ...]] = {"size": SIZES, "precision": ("auto", *PRECISIONS)}
"""What fields of the settings of each system may be."""
MOST_MINUTES = 10_000.0
METRICS = "held_out.json"
"""Name of the file of metrics in a run's folder."""


def check_settings(settings: Any, choices: Mapping[str, Sequence[str]]) -> None:
    """Raises TalkingPortraitError for another choice than these, a value of another kind than the default, and
    `minutes`, `held_out` or a seed out of range."""
    for entry in fields(settings):
        check_kind(entry.name, getattr(settings, entry.name), entry.default)
    check_seed(settings.seed)
    for name, known in choices.items():
        if getattr(settings, name) not in known:
            raise TalkingPortraitError(
                f"The {name} is {quoted(getattr(settings, name))}, but one of {', '.join(known)} is expected."
            )
    if not 0 < settings.minutes <= MOST_MINUTES:
        raise TalkingPortraitError(
            f"Training for {settings.minutes} minutes was requested, but more than 0 and at most {MOST_MINUTES:g} are "
            "expected."
        )
    if not 0 <= settings.held_out <= 0.5:
        raise TalkingPortraitError(
            f"The share {settings.held_out} of the video is to be held out, but 0 to 0.5 is expected."
        )


def resolved_size(size: str, device: torch.device) -> str:
    """The small one on a CPU where the choice is the program's."""
    return size if size != "auto" else ("small" if device.type == "cpu" else "published")


def resolved_precision(precision: str, device: torch.device) -> str:
    return precision if precision != "auto" else ("bf16" if device.type == "cuda" else "fp32")


def split(person: Person, usable: np.ndarray, held_out: float, *, least: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the `usable` (N,) frames that are trained on, and of those in the last part of the video that are not.

    At least so many are trained on. Raises TalkingPortraitError for a person with fewer, or without any.
    """
    longest_stretch(usable, person.shots, person.fps)
    numbers = np.flatnonzero(usable)
    if len(numbers) < least:
        raise TalkingPortraitError(
            f"{len(numbers)} frames of the person can be used, but at least {least} are expected; prepare a longer "
            "video."
        )
    end = max(len(numbers) - round(held_out * len(numbers)), least)
    return numbers[:end], numbers[end:]


def write_metrics(out: Path, metrics: Mapping[str, float], say: Callable[[str], None]) -> None:
    """Writes the metrics of the held-out part into a run's folder, and says each in a line.

    Raises TalkingPortraitError when the disk refuses it.
    """
    path = out / METRICS
    with whole_file(path) as partial:
        partial.write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    for name, value in metrics.items():
        say(f"held-out {name}: {value:.3f}")
