"""When the eyes blink, and how far they are shut in each frame."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from .random_streams import stream

BLINK_RATE = 20.0
"""Blinks a minute while speaking; people in conversation do 10 to 33 (Doughty 2001)."""

_SILENT_SHARE = 0.75
"""Listeners and waiting people blink less: 17 against 26 a minute (Bentivoglio 1997)."""
_SPREAD = 0.45  # of the logarithm of the intervals
_DOUBLE_CHANCE = 0.08


def blink_times(seconds: float, phrases: np.ndarray, rate: float, seed: int) -> np.ndarray:
    """When the eyes are shut, in seconds (N,), for a video with speech in `phrases` (M, 2).

    Intervals are log-normal; a blink that is due near the end of a phrase waits for it or comes early, as speakers do.
    Some blinks are followed by a second one at once.
    """
    if rate <= 0:
        return np.zeros(0)
    random = stream(seed, "blinks")
    single_rate = rate / (1 + _DOUBLE_CHANCE)
    times: list[float] = []
    previous = None
    while True:
        at = previous if previous is not None else 0.0
        speaking = bool(((phrases[:, 0] <= at + 1) & (at + 1 < phrases[:, 1])).any())
        mean = 60 / (single_rate * (1.0 if speaking else _SILENT_SHARE))
        interval = mean * np.exp(_SPREAD * np.clip(random.standard_normal(), -1.8, 1.8) - _SPREAD**2 / 2)
        # Recordings begin anywhere between two blinks.
        due = at + interval * (random.uniform(0.15, 0.9) if previous is None else 1.0)
        due = _at_phrase_end(due, at, mean, phrases, random)
        if due >= seconds:
            return np.array(times)
        times.append(due)
        if random.random() < _DOUBLE_CHANCE:
            due += random.uniform(0.38, 0.55)
            if due < seconds:
                times.append(due)
        previous = due


def _at_phrase_end(due: float, previous: float, mean: float, phrases: np.ndarray, random: np.random.Generator) -> float:
    """`due`, or shortly after the end of a phrase close to it."""
    lag, willing = random.normal(0.1, 0.06), random.random() < 0.85
    if not willing or len(phrases) == 0:
        return due
    ends = phrases[:, 1] + lag
    nearest = float(ends[np.abs(ends - due).argmin()])
    close = abs(nearest - due) < 0.35 * mean and nearest - previous > 0.3 * mean
    return nearest if close else due


def blink_weights(times: np.ndarray, frames: int, fps: Fraction, seed: int) -> np.ndarray:
    """How far both eyes are closed in each frame, (F,) in 0..1.

    Lids fall within 80 to 100 ms, stay shut for a moment and open within 150 to 250 ms. The moment is moved to the
    nearest frame, so that no blink slips between two frames.
    """
    random = stream(seed, "blink shapes")
    weights = np.zeros(frames)
    for seconds in times:
        closing, hold, opening = random.uniform(0.08, 0.1), random.uniform(0.02, 0.05), random.uniform(0.15, 0.25)
        middle = round(seconds * float(fps)) / float(fps)
        first = max(0, int((middle - hold / 2 - closing) * fps))
        last = min(frames, int((middle + hold / 2 + opening) * fps) + 2)
        t = np.arange(first, last) / float(fps) - middle
        falling = np.sin(np.pi / 2 * np.clip((t + hold / 2 + closing) / closing, 0, 1)) ** 2
        # Opening starts fast and lingers at the end.
        rising = np.cos(np.pi / 2 * np.clip((t - hold / 2) / opening, 0, 1) ** 0.75) ** 2
        weights[first:last] = np.maximum(weights[first:last], np.minimum(falling, rising))
    return weights
