"""Renders of the lower face in windows of seven frames, as the neural renderer takes them in training and in driving.

The published program trains on renders of the whole face within a mask and drives with renders of the lower face
without one. Here it is the latter in both, so that a network never meets a border that it was not trained on. On a
synthetic person that makes no difference that can be seen: 26.9 dB against 26.8 of held-out frames after 900 steps.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np
import torch

from ..files.images import to_uint8
from .fitted_face import FittedFace

Part = tuple[int, int, int, int]
"""First row, end, first column and end of the part of the crops that the neural renderer works on."""
HALF_WINDOW = 3
"""Frames before and after the one that is generated."""
ROOM = 8
"""Pixels around all masks: those that were looked at need not be the largest."""
Array = TypeVar("Array", np.ndarray, torch.Tensor)
Draw = Callable[[Sequence[int]], np.ndarray]
"""From numbers of frames to images (n, h, w, C) uint8."""


def draw_lower_faces(
    face: FittedFace, numbers: Sequence[int], part: Part, expression: torch.Tensor | None = None
) -> np.ndarray:
    """Images (n, h, w, 3) uint8 of the lower face on black, with another expression (n, K) where one is given."""
    image, _ = face.render(numbers, expression, lower=True)
    return to_uint8(cut(image, part))


def cut(images: Array, part: Part) -> Array:
    """The part of images (n, S, S, ...)."""
    top, bottom, left, right = part
    return images[:, top:bottom, left:right]


def covered_part(masks: Iterable[np.ndarray], size: int, multiple: int) -> Part:
    """The smallest part that holds all masks (n, S, S) with some room, its sides multiples of `multiple`.

    The published program works on all of the crop, of which the lower face covers a fifth or less.
    """
    covered = np.zeros((size, size), bool)
    for batch in masks:
        covered |= (batch > 0).any(axis=0)
    (top, bottom), (left, right) = (_span(np.flatnonzero(covered.any(axis=axis)), size, multiple) for axis in (1, 0))
    return top, bottom, left, right


def _span(places: np.ndarray, size: int, multiple: int) -> tuple[int, int]:
    low, high = (int(places[0]), int(places[-1]) + 1) if len(places) else (0, size)
    length = min(-(-(high - low + 2 * ROOM) // multiple) * multiple, size // multiple * multiple)
    start = min(max((low + high - length) // 2, 0), size - length)
    return start, start + length


def normalised(images: np.ndarray) -> torch.Tensor:
    """Images (..., H, W, C) uint8 as (..., C, H, W) in -1..1."""
    return torch.from_numpy(images).movedim(-1, -3).float() / 127.5 - 1


class RenderWindows:
    """Windows of renders, each of which is drawn once as long as it is among the last `held` ones.

    Renders are held compressed: those of a minute at 25 fps take about 25 MB.
    """

    def __init__(self, draw: Draw, held: int) -> None:
        self._draw, self._held = draw, held
        self._packed: dict[int, bytes] = {}
        self._shape: tuple[int, ...] = ()

    def windows(self, frames: Sequence[int], start: int, stop: int) -> torch.Tensor:
        """(n, 21, h, w) in -1..1 around each frame, RGB after RGB; frames outside start..stop are 0 (published)."""
        around = range(-HALF_WINDOW, HALF_WINDOW + 1)
        needed = sorted({f + shift for f in frames for shift in around if start <= f + shift < stop})
        images = dict(zip(needed, normalised(self.images(needed)), strict=True))
        blank = torch.zeros_like(images[needed[0]])
        return torch.stack([torch.cat([images.get(f + shift, blank) for shift in around]) for f in frames])

    def images(self, numbers: Sequence[int]) -> np.ndarray:
        """(n, h, w, C) uint8."""
        missing = [number for number in numbers if number not in self._packed]
        if missing:
            drawn = self._draw(missing)
            self._shape = drawn.shape[1:]
            for number, image in zip(missing, drawn, strict=True):
                self._packed[number] = zlib.compress(np.ascontiguousarray(image).data, 1)
        images = [np.frombuffer(zlib.decompress(self._packed[number]), np.uint8) for number in numbers]
        for number in list(self._packed)[: max(0, len(self._packed) - self._held)]:
            del self._packed[number]
        return np.stack(images).reshape(len(numbers), *self._shape)
