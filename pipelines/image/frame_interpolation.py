"""Frames in between, by a network that makes one frame of two (FILM, Reda et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ..errors import TalkingPortraitError
from ..memory import Managed, loaded
from ..types import Progress, no_progress

MOST_INSERTED = 100
"""Between two frames; the order in which they are made takes long to find for many more."""
Between = Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]
"""(frame, later frame, time in 0..1) to the frame at that time."""


@dataclass(frozen=True)
class Insertion:
    """Frame `place` of a gap is made of its frames `before` and `after`, at `time` (0..1) between them."""

    place: int
    before: int
    after: int
    time: float


def insertion_order(count: int) -> list[Insertion]:
    """In which order `count` frames fill the gap between frames 0 and count + 1.

    Always next the one nearest the middle of the known frames around it, as a network interpolates best there. Several
    can be equally near; then float32 rounding decides, as it does in the published program, and the earlier gap and
    frame among the rest.
    """
    times = _times(count + 2)
    known, missing = [0, count + 1], list(range(1, count + 1))
    order = []
    while missing:
        starts, ends = times[known[:-1]], times[known[1:]]
        places = (times[missing] - starts[:, None]) / (ends - starts)[:, None]
        gap, index = divmod(int(np.abs(places - np.float32(0.5)).argmin()), len(missing))
        place = missing.pop(index)
        order.append(Insertion(place, known[gap], known[gap + 1], float(places[gap, index])))
        known.insert(gap + 1, place)
    return order


def _times(count: int) -> np.ndarray:
    """`torch.linspace(0, 1, count)` as processors with fused multiply-add round it, on every processor.

    From both ends to the middle, with a float32 step; the products are exact in float64.
    """
    step = np.float64(np.float32(1) / np.float32(count - 1))
    place = np.arange(count)
    return np.where(place < count // 2, place * step, 1 - (count - 1 - place) * step).astype(np.float32)


def fill_gap(first: torch.Tensor, last: torch.Tensor, count: int, between: Between) -> list[torch.Tensor]:
    """`first` and the `count` frames after it, up to but without `last`."""
    frames = {0: first, count + 1: last}
    for insertion in insertion_order(count):
        frames[insertion.place] = between(frames[insertion.before], frames[insertion.after], insertion.time)
    return [frames[place] for place in range(count + 1)]


def interpolated_by(
    network: Managed, images: torch.Tensor, count: int, *, multiple: int = 1, progress: Progress = no_progress
) -> Iterator[torch.Tensor]:
    """`interpolated` by a network of ComfyUI's: (frame, later frame, timestep=map of the time) to the frame between.

    `multiple` is what it takes the sides of frames in.
    Raises TalkingPortraitError, at once, for a number of frames that is not from 1 to `MOST_INSERTED`.
    """
    if not 1 <= count <= MOST_INSERTED:
        raise TalkingPortraitError(
            f"{count} frames are to be inserted between each two, but 1 to {MOST_INSERTED} are expected; 2 suit "
            "AniPortrait's fast mode."
        )

    @torch.no_grad()
    def between(first: torch.Tensor, last: torch.Tensor, time: float) -> torch.Tensor:
        module, device = loaded(network, torch.nn.Module)
        dtype = next(module.parameters()).dtype
        height, width = first.shape[1:3]
        pads = (0, -width % multiple, 0, -height % multiple)
        pair = [
            torch.nn.functional.pad(frame.movedim(-1, 1).to(device, dtype), pads, mode="replicate")
            for frame in (first, last)
        ]
        times = torch.full((1, 1, *pair[0].shape[-2:]), time, device=device, dtype=dtype)
        made = module(*pair, timestep=times)[..., :height, :width]
        return made.float().clamp(0, 1).movedim(1, -1).cpu()

    return interpolated(images, count, between, progress)


def interpolated(
    images: torch.Tensor, count: int, between: Between, progress: Progress = no_progress
) -> Iterator[torch.Tensor]:
    """All `images` (F, ...) with `count` frames between each two: (F - 1) (count + 1) + 1 of them, one by one.

    `between` is given batches of one. `progress` is called after each gap.
    """
    for index in range(len(images) - 1):
        yield from fill_gap(images[index : index + 1], images[index + 1 : index + 2], count, between)
        progress(index + 1, len(images) - 1)
    yield images[-1:]
