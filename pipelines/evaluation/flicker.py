"""How much a video flickers, and how far its colours wander."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from ..image.luma import LUMA


@dataclass(frozen=True)
class Flicker:
    """All in grey levels of 255.

    `jitter`: mean of |x[t-1] - 2 x[t] + x[t+1]| / 2 of the brightness, which steady motion leaves at zero.
    `borders`: mean |x[t] - x[t-1]| across the borders of clips, over that inside clips; 1 means that none is visible.
    `drift`: largest difference of a clip's mean colour, and `spread_drift` of its spread, from the first clip's.
    """

    jitter: float
    borders: float
    drift: float
    spread_drift: float


def flicker(clips: Iterable[torch.Tensor], mask: torch.Tensor | None = None) -> Flicker:
    """Of a video in clips (F, H, W, 3) in 0..1; only two frames beyond the clip at hand are kept.

    `mask` (H, W) in 0..1 weighs pixels, for instance everything but the lips.
    """
    weights = torch.from_numpy(LUMA)
    previous: list[torch.Tensor] = []
    jitters: list[float] = []
    inside: list[float] = []
    across: list[float] = []
    means, spreads = [], []
    for clip in clips:
        spread, mean = torch.std_mean(clip, dim=(0, 1, 2))
        means.append(mean)
        spreads.append(spread)
        for number, frame in enumerate(clip):
            grey = frame @ weights
            if previous:
                (inside if number else across).append(_mean((grey - previous[-1]).abs(), mask))
            if len(previous) == 2:
                jitters.append(_mean((previous[0] - 2 * previous[1] + grey).abs() / 2, mask))
            previous = [*previous, grey][-2:]

    def average(values: list[float]) -> float:
        return sum(values) / len(values) if values else 0.0

    def farthest(values: list[torch.Tensor]) -> float:
        return max((float((value - values[0]).abs().max()) for value in values), default=0.0)

    ratio = average(across) / average(inside) if across and average(inside) else 1.0
    return Flicker(255 * average(jitters), ratio, 255 * farthest(means), 255 * farthest(spreads))


def _mean(values: torch.Tensor, mask: torch.Tensor | None) -> float:
    return float(values.mean() if mask is None else (values * mask).sum() / mask.sum().clamp(min=1e-6))
