"""Removes jitter from points over time without delay.

Numbers that name no source were chosen by eye on portraits; the trials are not recorded.
"""

from __future__ import annotations

import numpy as np

from ...models.face.face_mesh import eye_distance

REACH = 3
"""Frames averaged on either side."""
TREMBLE = 0.012
"""Movement below this part of the eye distance counts as jitter; that of landmarkers is 0.002 to 0.005."""
HEAD_TREMBLE = 0.03
"""The same for the head as a whole, whose steady movement an average in both directions of time does not delay."""
CUT = 0.12
"""Points that move by more than this part of the eye distance on average belong to another shot or a quick turn."""


def smooth_points(points: np.ndarray, strength: float = 1.0) -> np.ndarray:
    """`points` (F, P, 3) with each point averaged over neighbouring frames in which it hardly moved.

    A bilateral filter: weights fall with distance in time (by `strength` frames) and with the distance that the point
    moved within the head, so that a lip that closes quickly stays as sharp as it was. It is symmetric in time: nothing
    lags. Where the whole head jumps, nothing is averaged.
    """
    unit = eye_distance(points)[:, None, None]
    head = points.mean(axis=1, keepdims=True)
    inner = points - head
    total = [head.copy(), inner.copy()]
    weight = [np.ones((len(points), 1, 1)), np.ones((*points.shape[:2], 1))]
    for step in range(1, min(REACH, (len(points) - 1) // 2) + 1):
        near = np.exp(-0.5 * (step / strength) ** 2)
        jump = np.linalg.norm(points[step:] - points[:-step], axis=-1, keepdims=True) / unit[step:]
        near = near * (jump.mean(axis=1, keepdims=True) < CUT * step)
        for index, (values, tremble) in enumerate(((head, HEAD_TREMBLE), (inner, TREMBLE))):
            moved = np.linalg.norm(values[step:] - values[:-step], axis=-1, keepdims=True) / unit[step:]
            share = near * np.exp(-0.5 * (moved / tremble) ** 2)
            # As much of the past as of the future, or steady movement would be held back at a cut.
            share = np.minimum(share[step:], share[:-step])
            total[index][step:-step] += share * (values[: -2 * step] + values[2 * step :])
            weight[index][step:-step] += 2 * share
    return total[0] / weight[0] + total[1] / weight[1]


def average_over_time(values: np.ndarray, spread: float) -> np.ndarray:
    """`values` (F, ...) under a Gaussian of `spread` frames; the ends are mirrored, so that nothing stops or jumps."""
    reach = min(round(3 * spread), len(values) - 1)
    weight = np.exp(-0.5 * (np.arange(-reach, reach + 1) / spread) ** 2)
    padded = np.pad(values, [(reach, reach)] + [(0, 0)] * (values.ndim - 1), mode="reflect", reflect_type="odd")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=0)
    return windows @ (weight / weight.sum())
