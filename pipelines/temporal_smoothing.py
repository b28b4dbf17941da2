"""Calming the trembling of points over time without delay."""

from __future__ import annotations

import numpy as np

from ..models.face_mesh import OUTER_EYE_CORNERS

REACH = 3
"""Frames looked at on either side."""
TREMBLE = 0.012
"""Movement below this part of the eye distance counts as trembling; landmarkers tremble by 0.002 to 0.005."""
CUT = 0.12
"""Points that move by more than this part of the eye distance on average belong to another shot or a quick turn."""


def smooth_points(points: np.ndarray, strength: float = 1.0) -> np.ndarray:
    """`points` (F, P, 3) with each point averaged over neighbouring frames in which it hardly moved.

    A bilateral filter: weights fall with distance in time (by `strength` frames) and with the distance that the point
    moved, so that a lip that closes quickly stays as sharp as it was. It is symmetric in time: nothing lags.
    """
    frames = len(points)
    right, left = OUTER_EYE_CORNERS
    unit = np.maximum(np.linalg.norm(points[:, right] - points[:, left], axis=-1), 1e-6)
    total = points.copy()
    weight = np.ones((*points.shape[:2], 1))
    for step in range(1, min(REACH, frames - 1) + 1):
        near = np.exp(-0.5 * (step / strength) ** 2)
        moved = (points[step:] - points[:-step]) / unit[step:, None, None]
        distance = np.linalg.norm(moved, axis=-1, keepdims=True)
        share = near * np.exp(-0.5 * (distance / TREMBLE) ** 2)
        share *= distance.mean(axis=1, keepdims=True) < CUT
        total[step:] += share * points[:-step]
        total[:-step] += share * points[step:]
        weight[step:] += share
        weight[:-step] += share
    return total / weight
