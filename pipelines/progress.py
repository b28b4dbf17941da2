"""The progress of work in several parts, each of which counts in units of its own."""

from __future__ import annotations

import torch

from .types import Progress

PERCENT = 100


def share(progress: Progress, start: float, stop: float) -> Progress:
    """What a part of the work reports to: its own units become the percents from `start` to `stop`, both in 0..1."""

    def report(done: int, total: int, preview: torch.Tensor | None = None) -> None:
        part = done / total if total else 1.0
        progress(round(PERCENT * (start + (stop - start) * part)), PERCENT, preview)

    return report
