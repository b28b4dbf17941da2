"""Frames in memory, as nodes hand them on: whether there is room for them, and even sides for videos."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from ..pipelines.errors import TalkingPortraitError
from . import host


def check_memory(count: int, *shape: int, smaller: str = "make the pictures smaller") -> None:
    """Raises TalkingPortraitError where `count` frames of that shape do not fit into the memory that is free.

    `smaller` is how a user makes such frames smaller.
    """
    needed = count * math.prod(shape) * host.to_socket(torch.empty(0)).dtype.itemsize
    free = host.free_memory()
    if free is not None and needed > free:
        raise TalkingPortraitError(
            f"{count} frames of {shape[1]} x {shape[0]} pixels take {needed / 1e9:.1f} GB of memory, but "
            f"{free / 1e9:.1f} GB are free; {smaller}, make the clip shorter, or, where there is an output video, "
            "connect that alone, which keeps no frames."
        )


def new_clip(count: int, *shape: int) -> torch.Tensor:
    """An IMAGE (count, *shape) of yet any values, in the host's own kind: a clip is never in memory twice."""
    return host.to_socket(torch.empty(0)).new_empty(count, *shape)


def clip_with_room(count: int, *shape: int) -> torch.Tensor:
    """`new_clip` where there is memory for it. Raises as `check_memory`."""
    check_memory(count, *shape)
    return new_clip(count, *shape)


def even_sides(frames: torch.Tensor) -> torch.Tensor:
    """Frames (B, H, W, ...) with their last row or column once more where there is an odd number of them.

    Videos have even sides: ComfyUI's Save Video refuses others. Nothing is scaled, and what was there stays as it is;
    this pack's own videos get the same (`pipelines/files/video.py`).
    """
    if frames.shape[1] % 2:
        frames = torch.cat([frames, frames[:, -1:]], dim=1)
    if frames.shape[2] % 2:
        frames = torch.cat([frames, frames[:, :, -1:]], dim=2)
    return frames


def as_before(frames: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Frames (B, H, W, ...) without what `even_sides` added to those of `size` (height, width); others as they are."""
    height, width = size
    padded = tuple(frames.shape[1:3]) == (height + height % 2, width + width % 2)
    return frames[:, :height, :width] if padded else frames


def frames_in_memory(batches: Iterable[torch.Tensor], count: int, size: tuple[int, int] | None = None) -> torch.Tensor:
    """IMAGE of `count` frames, from batches of them; more than one frame gets even sides.

    With a `size` (height, width) memory is checked before the first batch is made. Raises as `check_memory`.
    """
    if size is not None:
        check_memory(count, *size, 3)
    clip: torch.Tensor | None = None
    done = 0
    for batch in batches:
        frames = even_sides(batch) if count > 1 else batch
        if clip is None:
            clip = (clip_with_room if size is None else new_clip)(count, *frames.shape[1:])
        clip[done : done + len(frames)] = frames
        done += len(frames)
    return torch.empty(0) if clip is None else clip
