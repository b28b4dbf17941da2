"""Random numbers of the drivers: one seed, and a stream of its own for each thing that moves."""

from __future__ import annotations

import zlib

import numpy as np

from ..errors import check_seed


def stream(seed: int, subject: str) -> np.random.Generator:
    """A generator for one subject, whose draws do not depend on those of other subjects. Raises as `check_seed`."""
    check_seed(seed)
    return np.random.default_rng([seed, zlib.crc32(subject.encode())])


def wandering(random: np.random.Generator, frames: int, rate: float, seconds: float, columns: int) -> np.ndarray:
    """Ornstein-Uhlenbeck noise (frames, columns): mean 0, deviation 1, correlated over `seconds`."""
    from scipy.signal import lfilter

    keep = np.exp(-1 / (seconds * rate))
    increments = random.standard_normal((frames, columns)) * np.sqrt(1 - keep**2)
    increments[:1] /= np.sqrt(1 - keep**2)  # the first frame is already anywhere in the range
    return np.asarray(lfilter([1.0], [1.0, -keep], increments, axis=0))
