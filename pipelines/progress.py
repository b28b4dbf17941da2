"""The progress of work in several parts, each of which counts in units of its own."""

from __future__ import annotations

import torch

from .errors import TalkingPortraitError, quoted
from .types import Progress, no_progress

PERCENT = 100


def given_progress(progress: Progress | None) -> Progress:
    """What a user of the Python API gave, none where that is None. Raises TalkingPortraitError for no function."""
    if progress is not None and not callable(progress):
        raise TalkingPortraitError(
            f"The progress is {quoted(progress)}, but a function is expected, called with what is done and what there "
            "is to do."
        )
    return no_progress if progress is None else progress


def share(progress: Progress, start: float, stop: float) -> Progress:
    """What a part of the work reports to: its own units become the percents from `start` to `stop`, both in 0..1."""

    def report(done: int, total: int, preview: torch.Tensor | None = None) -> None:
        part = done / total if total else 1.0
        progress(round(PERCENT * (start + (stop - start) * part)), PERCENT, preview)

    return report
