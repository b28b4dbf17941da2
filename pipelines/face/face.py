"""One face in one picture, and what finds such faces."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np

from ...models.face.face_mesh import OUTER_EYE_CORNERS


@dataclass(frozen=True)
class Face:
    """One face in one picture: `points` (P, 3) in pixels, `blendshapes` (52,) in 0..1 or None, `score` or None."""

    points: np.ndarray
    blendshapes: np.ndarray | None
    score: float | None

    @cached_property
    def box(self) -> np.ndarray:
        """(left, top, right, bottom) round the points."""
        flat = self.points[:, :2]
        return np.concatenate([flat.min(axis=0), flat.max(axis=0)])

    @property
    def centre(self) -> np.ndarray:
        return (self.box[:2] + self.box[2:]) / 2

    @property
    def size(self) -> float:
        """The longer side of the box."""
        return float((self.box[2:] - self.box[:2]).max())

    @property
    def roll(self) -> float:
        """How far the line of the eyes is turned, in degrees clockwise in the picture."""
        right, left = OUTER_EYE_CORNERS
        across = self.points[left, :2] - self.points[right, :2]
        return math.degrees(math.atan2(across[1], across[0]))


class Landmarker(Protocol):
    """An engine that finds faces and their points."""

    @property
    def name(self) -> str:
        """What a report calls it."""

    def faces(self, picture: np.ndarray, min_confidence: float) -> list[Face]:
        """Every face in `picture` (H, W, 3) uint8 RGB, points in its pixels."""


@runtime_checkable
class TrackingLandmarker(Landmarker, Protocol):
    """An engine that finds a face again without searching the picture, in a fraction of the time."""

    def track(self, picture: np.ndarray, last: Face, min_confidence: float) -> Face | None:
        """The face that was `last` in the frame before, in `picture` (H, W, 3) uint8 RGB; None where it is gone."""
