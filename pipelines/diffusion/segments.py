"""A long video in stretches: each is sampled whole, begins with finished frames and runs on beyond what leaves.

Finished frames alone don't make a seam vanish: the frames before a border were made without knowing what follows. So a
stretch is sampled some frames further than it is kept. The next one makes those frames again, from the same noise, and
finds that what it has to continue expects them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Stretch:
    """Frames `start` to `end` are sampled together; those before `first` are finished, those from `last` on not kept.

    0 is the first frame of the clip; below it are frames of the clip before.
    """

    start: int
    first: int
    last: int
    end: int

    @property
    def known(self) -> int:
        return self.first - self.start


def plan_stretches(frames: int, length: int, *, reach: int, known: int = 0, ahead: int = 0) -> Iterator[Stretch]:
    """Stretches of `length` new frames, the last one shorter or longer, that keep each of `frames` once.

    Args:
        reach: how many finished frames a stretch begins with, and how many it runs on. With as many as a window has,
            borders cannot be told from other frames; with three quarters of that they can, in few steps.
        known: finished frames of a clip before this one.
        ahead: frames that can be sampled beyond the last one, for a clip after this one.
    """
    first = 0
    while first < frames:
        start = first - min(reach, known + first)
        end = min(first + length + reach, frames + ahead)
        last = first + length if end < frames else frames
        yield Stretch(start, first, last, end)
        first = last


def frame_noise(shape: tuple[int, ...], seed: int, frames: range, part: int = 0) -> torch.Tensor:
    """Noise (1, C, frames, h, w) that belongs to frame numbers, whichever of them are asked for together.

    `shape` (C, h, w); `part` tells noises for the same frames apart.
    """
    rows = []
    for frame in frames:
        own = int(np.random.SeedSequence([seed, frame, part]).generate_state(1, np.uint64)[0])
        rows.append(torch.randn(shape, generator=torch.Generator().manual_seed(own)))
    return torch.stack(rows, dim=1)[None]
