"""Renders of the lower face in windows of seven frames, as the neural renderer takes them in training and in driving.

The published program trains on renders of the whole face within a mask and drives with renders of the lower face
without one. Here it is the latter in both, so that a network never meets a border that it was not trained on;
`tests/bench/audiodvp.py` compares the two.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np
import torch

from .fitted_face import FittedFace

HALF_WINDOW = 3
"""Frames before and after the one that is generated."""
Draw = Callable[[Sequence[int]], np.ndarray]
"""From numbers of frames to images (n, S, S, 3) uint8."""


def draw_lower_faces(face: FittedFace, numbers: Sequence[int], expression: torch.Tensor | None = None) -> np.ndarray:
    """Images (n, S, S, 3) uint8 of the lower face on black, with another expression (n, K) where one is given."""
    image, _ = face.render(numbers, expression, lower=True)
    return as_bytes(image)


def as_bytes(image: torch.Tensor) -> np.ndarray:
    """Pictures in 0..1 as rounded bytes."""
    return (image * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()


def normalised(images: np.ndarray) -> torch.Tensor:
    """Images (..., H, W, C) uint8 as (..., C, H, W) in -1..1."""
    return torch.from_numpy(images).movedim(-1, -3).float() / 127.5 - 1


class RenderWindows:
    """Windows of renders, each of which is drawn once as long as it is among the last `held` ones.

    Renders are held compressed: those of a minute at 25 fps take about 20 MB.
    """

    def __init__(self, draw: Draw, held: int) -> None:
        self._draw, self._held = draw, held
        self._packed: dict[int, bytes] = {}
        self._shape: tuple[int, ...] = ()

    def windows(self, frames: Sequence[int], start: int, stop: int) -> torch.Tensor:
        """(n, 21, S, S) in -1..1 around each frame, RGB after RGB; frames outside start..stop are 0 (published)."""
        around = range(-HALF_WINDOW, HALF_WINDOW + 1)
        needed = sorted({f + shift for f in frames for shift in around if start <= f + shift < stop})
        images = dict(zip(needed, normalised(self.images(needed)), strict=True))
        blank = torch.zeros_like(images[needed[0]])
        return torch.stack([torch.cat([images.get(f + shift, blank) for shift in around]) for f in frames])

    def images(self, numbers: Sequence[int]) -> np.ndarray:
        """(n, S, S, C) uint8."""
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
