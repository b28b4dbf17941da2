"""Random numbers of the driver: one seed, a stream of its own for each thing that moves."""

from __future__ import annotations

import zlib

import numpy as np


def stream(seed: int, subject: str) -> np.random.Generator:
    """A generator for one subject, so that what one thing draws never shifts what another one does."""
    return np.random.default_rng([seed & (2**64 - 1), zlib.crc32(subject.encode())])


def wandering(random: np.random.Generator, frames: int, rate: float, seconds: float, columns: int) -> np.ndarray:
    """Ornstein-Uhlenbeck noise (frames, columns): mean 0, deviation 1, forgetting itself within `seconds`."""
    from scipy.signal import lfilter

    keep = np.exp(-1 / (seconds * rate))
    kicks = random.standard_normal((frames, columns)) * np.sqrt(1 - keep**2)
    kicks[:1] /= np.sqrt(1 - keep**2)  # the first frame is already anywhere in the range
    return np.asarray(lfilter([1.0], [1.0, -keep], kicks, axis=0))
