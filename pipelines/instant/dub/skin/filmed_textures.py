"""Textures of a film's frames: the brightness of each, and some of them whole."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from .....models.face.face_mesh import eye_distance
from ..lip_rims import edge_steps
from .face_texture import Texture, texture_of
from .registration import FilmedSkin
from .sharpness import nose_detail

MOST_TEXTURES = 96
"""Textures that are kept."""


@dataclass
class TextureKeeper:
    """Keeps textures of frames that are spread evenly over a film of unknown length."""

    kept: dict[int, Texture] = field(default_factory=dict)
    """Textures by the numbers of their frames."""
    _step: int = 1
    _seen: int = 0

    def add(self, number: int, texture: Texture, frame: np.ndarray, points: np.ndarray) -> None:
        """Takes the texture of the next frame (H, W, 3) that shows the face, with its number and landmarks."""
        if self._seen % self._step == 0:
            self.kept[number] = replace(texture, steps=edge_steps(frame, points))
            if len(self.kept) >= MOST_TEXTURES:
                self.kept = dict(list(self.kept.items())[::2])
                self._step *= 2
        self._seen += 1


class FilmedTextures:
    """What is read from a film's frames while its face is followed, one frame after the other."""

    def __init__(self, frames: int) -> None:
        """For at most so many `frames`."""
        self._keeper = TextureKeeper()
        self._skin = FilmedSkin(frames)
        self._sharpness = np.full(frames, np.nan, np.float32)

    def add(self, number: int, frame: np.ndarray, points: np.ndarray) -> None:
        """Takes the next frame (H, W, 3) that shows the face, bytes or floats in 0..1, with landmarks in its pixels."""
        texture = texture_of(frame, points)
        self._keeper.add(number, texture, frame, points)
        self._skin.add(number, texture)
        detail = nose_detail(frame, points, float(eye_distance(points)))
        if detail is not None:
            self._sharpness[number] = float(np.log(detail.clip(min=1e-6)).mean())

    def aligned(self, points: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, list[Texture]]:
        """Landmarks (F, 468, 3) in pixels at the film's own skin, and some textures, of the frames `own` (F,) bool.

        Landmarks of the others stay.
        """
        kept = [texture for number, texture in self._keeper.kept.items() if own[number]]
        return self._skin.aligned(points, np.flatnonzero(own)), kept

    def sharpness(self, count: int) -> np.ndarray:
        """Of the first `count` frames the logarithm (count,) of their `nose_detail`, mean of both axes; nan without."""
        return self._sharpness[:count]
