"""Values of a person over the frames of a video: those that are not known, and their smoothing within shots."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def in_all_frames(values: np.ndarray, known: np.ndarray, count: int) -> np.ndarray:
    """Values (count, C) of all frames from those (n, C) of `known` frames (n,), linear between them."""
    return np.stack([np.interp(np.arange(count), known, column) for column in values.T], axis=1)


def between_known(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Values (N, C) in which those of frames other than the `known` (n,) lie between their neighbours'."""
    return in_all_frames(values[known], known, len(values))


def smooth_within(values: np.ndarray, shots: Sequence[tuple[int, int]], window: int, order: int) -> np.ndarray:
    """`values` (N, C) under a Savitzky-Golay filter, each shot for itself; one shorter than the window stays."""
    from scipy.signal import savgol_filter

    smoothed = values.copy()
    for start, stop in shots:
        if stop - start >= window > order:
            smoothed[start:stop] = savgol_filter(values[start:stop], window, order, axis=0)
    return smoothed
