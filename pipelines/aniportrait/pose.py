"""The pose guider's features of drawn faces, for the windows at work.

A window's features take some 4 MB for each of its frames (512 x 512, half precision), so those of a long clip are
never all held.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from ...models.aniportrait.pose_guider import PoseGuider, Statistics
from ..memory import Managed, loaded
from .pictures import pose_pixels
from .settings import Drawings, check_drawing

Features = list[torch.Tensor]
"""Five of (1, C, frames, H, W), for the UNet to add up."""


class PoseFeatures(Protocol):
    """Where a denoiser gets a window's features from."""

    def __call__(self, window: Sequence[int]) -> Features: ...


class PoseGuidance:
    """The pose guider with the drawings it encodes, in the networks' precision.

    `batch_statistics` and `published_range`: see `models/aniportrait/pose_guider.py`.
    """

    def __init__(
        self,
        pose_guider: Managed,
        drawings: Drawings,
        size: tuple[int, int],
        *,
        dtype: torch.dtype = torch.float32,
        batch_statistics: bool = True,
        published_range: bool = True,
    ) -> None:
        self._guider, self._drawings, self._size, self._dtype = pose_guider, drawings, size, dtype
        self.batch_statistics, self._published_range = batch_statistics, published_range

    @torch.no_grad()
    def features(self, frames: Sequence[int], statistics: Statistics | None = None) -> Features:
        """Of these frames; `statistics` of others take the place of their own."""
        guider, pixels = self._prepared(frames)
        return guider(pixels, batch_statistics=self.batch_statistics, statistics=statistics)

    @torch.no_grad()
    def statistics(self, frames: Sequence[int]) -> Statistics:
        guider, pixels = self._prepared(frames)
        return tuple((mean.cpu(), variance.cpu()) for mean, variance in guider.statistics(pixels))

    def _prepared(self, frames: Sequence[int]) -> tuple[PoseGuider, torch.Tensor]:
        drawings = [self._drawings[frame] for frame in frames]
        for frame, drawing in zip(frames, drawings, strict=True):
            check_drawing(drawing, self._size, frame)
        pixels = torch.cat(
            [
                pose_pixels(drawing[None].cpu(), self._size, published_range=self._published_range)
                for drawing in drawings
            ],
            dim=2,
        )
        height, width = self._size
        # The widest layers have 16 channels at half the size and the inner width of attention at a sixteenth.
        memory = len(frames) * height * width * 64 * self._dtype.itemsize
        guider, device = loaded(self._guider, PoseGuider, memory)
        return guider, pixels.to(device, self._dtype)


class WindowFeatures:
    """As published: a window's features are its own, as the norms use the statistics of its frames.

    They are kept for as many windows as `budget` bytes hold, and made anew in each step for the others.
    """

    def __init__(self, guidance: PoseGuidance, budget: int) -> None:
        self._guidance, self._budget = guidance, budget
        self._kept: dict[tuple[int, ...], Features] = {}

    def __call__(self, window: Sequence[int]) -> Features:
        key = tuple(window)
        if key in self._kept:
            return self._kept[key]
        features = self._guidance.features(window)
        size = sum(level.nbytes for level in features)
        if size <= self._budget:
            self._budget -= size
            self._kept[key] = features
        return features


class FrameFeatures:
    """Each frame's features are its own, by the same statistics for the whole clip, and made once.

    So windows can move from step to step without making features anew, and no border between windows shows in them.
    """

    def __init__(self, guidance: PoseGuidance, statistics: Statistics | None, frames: range, batch: int) -> None:
        """`statistics` None for those of the training; `frames` there are; `batch` of them are made at once."""
        self._guidance, self._statistics, self._all, self._batch = guidance, statistics, frames, batch
        self._pieces: dict[int, Features] = {}
        self._start = 0

    def begin(self, start: int) -> None:
        """From now on windows count from frame `start`; what earlier frames had is freed."""
        self._start = start
        for number in [number for number in self._pieces if self._span(number).stop <= start]:
            del self._pieces[number]

    def __call__(self, window: Sequence[int]) -> Features:
        """The window's frames follow each other."""
        first, last = self._start + window[0], self._start + window[-1]
        numbers = range(first // self._batch, last // self._batch + 1)
        pieces = [self._piece(number) for number in numbers]
        start = first - self._span(numbers[0]).start
        return [torch.cat(level, dim=2)[:, :, start : start + len(window)] for level in zip(*pieces, strict=True)]

    def _span(self, number: int) -> range:
        start = number * self._batch
        return range(max(start, self._all.start), min(start + self._batch, self._all.stop))

    def _piece(self, number: int) -> Features:
        if number not in self._pieces:
            self._pieces[number] = self._guidance.features(self._span(number), self._statistics)
        return self._pieces[number]
