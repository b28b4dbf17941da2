"""A long video in segments: each is sampled whole, begins with finished frames and runs on beyond what is handed out.

Finished frames alone don't make a seam vanish: the frames before a border were made without those that follow. So a
segment is sampled some frames further than it is kept. The next one makes those frames again, from the same noise, and
what it continues was made together with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Segment:
    """Frames `start` to `end` are sampled together; those before `first` are finished, those from `last` on not kept.

    0 is the first frame of the clip; below it are frames of the clip before.
    """

    start: int
    first: int
    last: int
    end: int

    @property
    def finished(self) -> int:
        return self.first - self.start


def plan_segments(frames: int, length: int, *, reach: int, finished: int = 0, ahead: int = 0) -> Iterator[Segment]:
    """Segments of `length` new frames, the last one shorter or longer, that keep each of `frames` once.

    Args:
        reach: how many finished frames a segment begins with, and how many it runs on. With as many as a window has,
            borders cannot be distinguished from other frames; with three quarters of that they can, in few steps.
        finished: frames of a clip before this one.
        ahead: frames that can be sampled beyond the last one, for a clip after this one.
    """
    first = 0
    while first < frames:
        start = first - min(reach, finished + first)
        end = min(first + length + reach, frames + ahead)
        last = first + length if end < frames else frames
        yield Segment(start, first, last, end)
        first = last


def frame_noise(shape: tuple[int, ...], seed: int, frames: range, part: int = 0) -> torch.Tensor:
    """Noise (1, C, frames, h, w) that belongs to frame numbers, whichever of them are requested together.

    `shape` (C, h, w); `part` distinguishes noises for the same frames.
    """
    rows = []
    for frame in frames:
        own = int(np.random.SeedSequence([seed, frame, part]).generate_state(1, np.uint64)[0])
        rows.append(torch.randn(shape, generator=torch.Generator().manual_seed(own)))
    return torch.stack(rows, dim=1)[None]
