"""Where the head is in a picture: coordinates in cm that move, turn and scale with it, and the face's ring."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...packages import load_opencv

SKULL_MIDDLE, SKULL_RADII = 1.5, (11.0, 13.5)
"""Height of the head's middle, and its half width and half height with hair, in cm of the canonical head; its chin is
at -9 and shoulders begin near -17."""


@dataclass(frozen=True)
class HeadPlace:
    """`origin` (2,) of the canonical head and its `up` (2,) direction in the picture, `scale` in pixels for a cm.

    `oval` (P, 2) is the ring around the face in pixels.
    """

    origin: np.ndarray
    up: np.ndarray
    scale: float
    oval: np.ndarray

    @classmethod
    def of_camera(
        cls, c2w: np.ndarray, focal: float, centre: float, oval: np.ndarray, unit: float, shrink: float = 1.0
    ) -> HeadPlace:
        """That of one frame, in pictures `shrink` times as large.

        `c2w` (4, 4) is the camera's place in the head's frame in units of which a cm has `unit`; `oval` (P, 2), `focal`
        and `centre` are in pixels of the unscaled picture.
        """
        rotation = c2w[:3, :3].T
        x, y, z = -rotation @ c2w[:3, 3] / unit
        ratio = -focal / z
        up = np.array([rotation[0, 1], -rotation[1, 1]])
        origin = np.array([x, -y]) * ratio + centre
        return cls(origin * shrink, up / max(np.linalg.norm(up), 1e-6), ratio * shrink, oval * shrink)

    def coordinates(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """How far each pixel (size, size) lies to the picture's right of the head's axis, and how high, in cm."""
        rows, columns = np.mgrid[:size, :size] + 0.5
        x, y = (columns - self.origin[0]) / self.scale, (rows - self.origin[1]) / self.scale
        return -self.up[1] * x + self.up[0] * y, self.up[0] * x + self.up[1] * y

    def skull(self, size: int) -> np.ndarray:
        """Each pixel's (size, size) distance from the head's middle, 1 at its outline."""
        across, height = self.coordinates(size)
        return np.hypot(across / SKULL_RADII[0], (height - SKULL_MIDDLE) / SKULL_RADII[1])

    def face(self, size: int) -> np.ndarray:
        """Which pixels (size, size) lie inside the ring around the face."""
        mask = np.zeros((size, size), np.uint8)
        load_opencv().fillPoly(mask, [np.round(self.oval * 16).astype(np.int32)], 1, shift=4)
        return mask > 0
