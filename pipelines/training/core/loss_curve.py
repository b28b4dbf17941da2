"""The course of a training's loss beneath the pictures that it shows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ...image.curve_plot import Curve, plot_curves
from ...types import Progress

LEAST_WIDTH, HEIGHT = 384, 0.5
"""Pixels of a picture with a curve, and the curve's part of its width."""
SMOOTHED = 50
"""Parts of a training, over each of which the loss is averaged: single steps differ much."""
COLOUR = (120, 200, 255)


def with_loss_curve(progress: Progress, log: Path, name: str = "loss") -> Progress:
    """Progress whose pictures have the loss so far beneath them, from a run's `log`; `name` is the objective's."""

    def report(done: int, total: int, preview: torch.Tensor | None = None) -> None:
        progress(done, total, None if preview is None else _above_curve(preview, losses(log, name)))

    return report


def losses(log: Path, name: str) -> np.ndarray:
    """The loss of each step (N,) of an objective."""
    return np.array([json.loads(line)[name] for line in log.read_text(encoding="utf-8").splitlines()])


def _above_curve(picture: torch.Tensor, values: np.ndarray) -> torch.Tensor:
    """A picture (H, W, 3) in 0..1 over the curve, enlarged by a whole number where it is small."""
    times = -(-LEAST_WIDTH // picture.shape[1])
    enlarged = F.interpolate(picture.movedim(-1, 0)[None], scale_factor=times, mode="nearest")[0].movedim(0, -1)
    length = max(1, len(values) // SMOOTHED)
    smooth = values[: len(values) // length * length].reshape(-1, length).mean(1)
    curve = Curve("loss", "", smooth, (0.0, float(smooth.max())), COLOUR)
    width = enlarged.shape[1]
    plot = plot_curves([curve], len(values), None, (max(64, round(HEIGHT * width)), width), unit="steps")
    return torch.cat([enlarged, plot.to(enlarged)], 0)
