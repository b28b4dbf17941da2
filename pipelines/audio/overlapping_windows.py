"""Long sequences in pieces that fade into each other, for networks whose every frame attends to all others."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import torch

from ..errors import TalkingPortraitError

WHOLE_SECONDS = 120
"""Longest sequence that passes in one piece by default: attention's time grows with the square."""
CONTEXT_SECONDS = 5
"""Context of a window of a longer one, on average, beyond each end of what is kept of it."""


def window_seconds(given: float | None, frames: int, rate: Fraction) -> float:
    """Length of the windows: as given, or all at once up to `WHOLE_SECONDS` and half of that for longer sequences.

    Raises TalkingPortraitError for less than a second, and for what is no length.
    """
    if given is not None:
        if not 1 <= given < math.inf:
            raise TalkingPortraitError(
                f"The chunk length is {given} s, but at least 1 s is expected; 0 or none suits most speech."
            )
        return given
    return math.inf if frames <= WHOLE_SECONDS * rate else WHOLE_SECONDS / 2


def blended_windows(frames: int, seconds: float, rate: Fraction) -> Iterator[tuple[int, int, torch.Tensor]]:
    """(start, end, weight of each frame) of overlapping windows whose weights add up to one everywhere.

    Windows overlap by twice the context; over the middle half of that one fades into the next.
    """
    if seconds * rate >= frames:
        yield 0, frames, torch.ones(frames)
        return
    context = int(min(CONTEXT_SECONDS, seconds / 2) * rate)
    hop = math.ceil(seconds * rate)
    count = max(math.ceil((frames - 2 * context) / hop), 1)
    ramp = (torch.arange(context) + 1) / (context + 1)
    margin = context // 2
    for i in range(count):
        start, end = i * hop, frames if i == count - 1 else i * hop + hop + 2 * context
        weight = torch.ones(end - start)
        if i > 0:
            weight[:margin] = 0
            weight[margin : margin + context] = ramp
        if i < count - 1:
            weight[len(weight) - 2 * context + margin :] = 0
            weight[len(weight) - 2 * context + margin :][:context] = 1 - ramp
        yield start, end, weight
