"""Random numbers of the drivers: one seed, and a stream of its own for each thing that moves."""

from __future__ import annotations

import zlib

import numpy as np

from ..errors import MOST, TalkingPortraitError, quoted


def check_seed(seed: int) -> None:
    """Raises TalkingPortraitError for a seed that not all generators take."""
    if not 0 <= seed <= MOST:
        raise TalkingPortraitError(f"The seed is {quoted(seed)}, but 0 to 2^64 - 1 is expected.")


def stream(seed: int, subject: str) -> np.random.Generator:
    """A generator for one subject, whose draws do not depend on those of other subjects."""
    return np.random.default_rng([seed & (2**64 - 1), zlib.crc32(subject.encode())])


def wandering(random: np.random.Generator, frames: int, rate: float, seconds: float, columns: int) -> np.ndarray:
    """Ornstein-Uhlenbeck noise (frames, columns): mean 0, deviation 1, correlated over `seconds`."""
    from scipy.signal import lfilter

    keep = np.exp(-1 / (seconds * rate))
    increments = random.standard_normal((frames, columns)) * np.sqrt(1 - keep**2)
    increments[:1] /= np.sqrt(1 - keep**2)  # the first frame is already anywhere in the range
    return np.asarray(lfilter([1.0], [1.0, -keep], increments, axis=0))
