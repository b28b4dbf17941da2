"""How lips move with speech: curves over time in, numbers out.

Lip openings and widths are in distances of the outer eye corners. All curves are compared at `RATE`.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ..audio.waveform import SPEECH_RATE, mono_at
from ..types import Audio

RATE = 50
"""Hz at which curves are compared."""
BAND = (2.0, 7.0)
"""Hz: the rate of syllables, at which the loudness of speech and the opening of lips go together."""
LIP_SOUND = (500.0, 2500.0)
"""Hz in which loudness goes best with real speakers' lips: 0.43 against 0.33 for all of speech (22 clips, medians)."""
PART = 3000
"""Spectra that are computed at once."""
MOST_LAG = 0.3
"""Seconds to either side in which the best correlation is looked for."""
CLEAR = (2.75, 0.1)
"""How high the best correlation must be for its lag to say something, in standard deviations of those of unrelated
curves of the same length and band, and by how much above those at other syllables. Of pieces of 4 s of 22 real speakers
24 % pass, of which 6 % are off by more than 60 ms (25 % of all are); of 10 s 55 % pass, and none is off."""
OTHER_SYLLABLE = 0.1
"""Seconds from the best lag on at which another one is no part of the same peak."""
EDGE = 0.4
"""Seconds at either end that are left out of correlations, where a filter has only one side."""
FLOOR_DB = -40.0
"""Where the scale of loudness ends, below the loudest moments."""
QUIET = 0.35
"""Of the scale of `SoundCurves.loudness`: 26 dB below the loudest moments; what is quieter counts as silence."""
PAUSE = 0.3
"""Seconds; shorter pauses are parts of words."""
SETTLING = 0.2
"""Seconds at the beginning of a pause in which lips may still close, and before its end, where they open early."""
LEAST_SILENCE = 0.4
"""Seconds of settled silence that are needed to say how still lips are."""
CLOSED = 0.15
"""Of the range of openings: what is below counts as closed."""
CLOSES = 0.035
"""Lips of a reference whose 2 % quantile is above never close, so closures can't be compared."""
LONG_REST = 0.3
"""Seconds; a longer closure has two events, its beginning and its end, as its middle says nothing."""
REACH = 0.1
"""Seconds between the middles of two closures that count as the same."""


@dataclass(frozen=True)
class Correlation:
    """`best` correlation of lips with sound, at `lag` seconds; positive where lips follow the sound.

    Unless `clear`, another lag is about as likely.
    """

    best: float
    lag: float
    clear: bool


@dataclass(frozen=True)
class SoundCurves:
    """Of a sound, at `RATE`, in 0..1.

    `loudness` (F,): 1 the loudest moments (95 % quantile), 0 what is `FLOOR_DB` below; `syllables` (F,): the amplitude
    between 500 and 2500 Hz over that of the loudest moments, with which lips go best.
    """

    loudness: np.ndarray
    syllables: np.ndarray


def sound_curves(audio: Audio) -> SoundCurves:
    """The curves of a sound; zeros for digital silence."""
    wave = mono_at(audio, SPEECH_RATE).waveform[0].numpy().astype(np.float64)
    hop, window = SPEECH_RATE // RATE, 2 * SPEECH_RATE // RATE
    wave = np.pad(wave - wave.mean(), (hop, window))
    blocks = np.lib.stride_tricks.sliding_window_view(wave, window)[::hop]
    frequencies = np.fft.rfftfreq(window, 1 / SPEECH_RATE)
    of_lips = (frequencies >= LIP_SOUND[0]) & (frequencies <= LIP_SOUND[1])
    powers = [_powers(part, of_lips) for part in np.array_split(blocks, len(blocks) // PART + 1)]
    whole, lips = np.concatenate(powers, axis=1)
    top, lips_top = np.quantile(whole, 0.95), np.quantile(lips, 0.95)
    if min(top, lips_top) < 1e-10:
        return SoundCurves(np.zeros(len(whole)), np.zeros(len(whole)))
    level = 10 * np.log10(np.maximum(whole / top, 1e-12))
    return SoundCurves(np.clip(1 - level / FLOOR_DB, 0, 1), np.minimum(np.sqrt(lips / lips_top), 1.5))


def _powers(blocks: np.ndarray, of_lips: np.ndarray) -> np.ndarray:
    """(2, F): power of each block, altogether and of some frequencies."""
    spectra = np.square(np.abs(np.fft.rfft(blocks * np.hanning(blocks.shape[1]), axis=1)))
    return np.stack([spectra.sum(axis=1), spectra[:, of_lips].sum(axis=1)])


def at_rate(values: np.ndarray, fps: Fraction, seconds: float) -> np.ndarray:
    """A curve of frames at `RATE`, for as long as `seconds`; frame i is the time i / fps."""
    times = np.arange(int(seconds * RATE)) / RATE
    return np.interp(times * float(fps), np.arange(len(values)), values)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's; 0 where one of them is constant."""
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 1e-9 else 0.0


def in_band(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """What of a curve at `RATE` lies between `low` and `high` Hz, without delay; ends are mirrored."""
    count = len(values)
    mirrored = np.concatenate([values[::-1], values, values[::-1]]) - values.mean()
    frequencies = np.fft.rfftfreq(len(mirrored), 1 / RATE)
    # Edges a third of an octave wide, as a sharp cut rings.
    rise = np.clip((frequencies / low - 0.8) / 0.4, 0, 1)
    fall = np.clip((1.2 - frequencies / high) / 0.4, 0, 1)
    weights = np.sin(np.pi / 2 * rise) ** 2 * np.sin(np.pi / 2 * fall) ** 2
    return np.fft.irfft(np.fft.rfft(mirrored) * weights, len(mirrored))[count : 2 * count]


def speech_correlation(opening: np.ndarray, syllables: np.ndarray) -> Correlation | None:
    """Of lips and a sound's `syllables`, both at `RATE`, within `BAND`; None for less than 1.8 seconds."""
    count = min(len(opening), len(syllables))
    edge, reach = round(EDGE * RATE), round(MOST_LAG * RATE)
    if count < 2 * max(edge, reach) + RATE:
        return None
    lips, sound = in_band(opening[:count], *BAND), in_band(syllables[:count], *BAND)
    inner = slice(max(edge, reach), count - max(edge, reach))
    lags = range(-reach, reach + 1)
    found = [correlation(np.roll(lips, -lag)[inner], sound[inner]) for lag in lags]
    best = int(np.argmax(found))
    return Correlation(found[best], lags[best] / RATE, _is_clear(lips, sound, lags[best], found[best], inner))


def _is_clear(lips: np.ndarray, sound: np.ndarray, lag: int, best: float, inner: slice) -> bool:
    """Whether no other lag, of up to twice `MOST_LAG`, comes near the best one, and chance does not either."""
    reach, count, edge = round(MOST_LAG * RATE), len(lips), round(EDGE * RATE)
    # Curves of a band have 2 x bandwidth independent values a second.
    independent = 2 * (BAND[1] - BAND[0]) * (inner.stop - inner.start) / RATE
    if abs(lag) == reach or best * np.sqrt(independent) < CLEAR[0]:
        return False
    others = [other for other in range(-2 * reach, 2 * reach + 1) if abs(other - lag) > OTHER_SYLLABLE * RATE]
    return all(
        correlation(lips[max(other, 0) + edge : count + min(other, 0) - edge],
                    sound[max(-other, 0) + edge : count - max(other, 0) - edge]) <= best - CLEAR[1]
        for other in others
    )  # fmt: skip


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """(first, end) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(int)))
    return [(int(first), int(end)) for first, end in edges.reshape(-1, 2)]


def silence_movement(opening: np.ndarray, loud: np.ndarray) -> float | None:
    """Mean speed of the lips in silence over that in speech; both curves at `RATE`. None where nothing is silent.

    Only pauses count, without their beginnings and ends.
    """
    count = min(len(opening), len(loud))
    speed, loud = np.abs(np.gradient(opening[:count])) * RATE, loud[:count]
    still = np.zeros(count, bool)
    for first, end in runs(loud < QUIET):
        if end - first >= PAUSE * RATE:
            still[first + round(SETTLING * RATE) : end - round(SETTLING * RATE)] = True
    spoken = loud >= QUIET
    if still.sum() < LEAST_SILENCE * RATE or spoken.sum() < RATE:
        return None
    return float(speed[still].mean() / max(float(speed[spoken].mean()), 1e-6))


def closures(opening: np.ndarray) -> np.ndarray:
    """Times in seconds at which lips at `RATE` are closed: the middles of short closures, both ends of long ones."""
    low, high = np.quantile(opening, [0.02, 0.95])
    times: list[float] = []
    for first, end in runs(opening < low + CLOSED * max(high - low, 1e-9)):
        if end - first <= LONG_REST * RATE:
            times.append((first + end) / 2)
        else:
            times += [first + 4, end - 4]
    return np.array(times) / RATE


@dataclass(frozen=True)
class Closures:
    """How many closures of a reference are found (`recall`), and their harmonic mean with the share that are right."""

    recall: float
    f1: float


def compare_closures(opening: np.ndarray, reference: np.ndarray) -> Closures | None:
    """Two openings of equal length at `RATE`; None where the reference's lips never close."""
    if np.quantile(reference, 0.02) >= CLOSES:
        return None
    own, wanted = closures(opening), closures(reference)
    if not len(wanted):
        return None
    found = matches(own, wanted)
    return Closures(found / len(wanted), 2 * found / (len(own) + len(wanted)))


def matches(a: np.ndarray, b: np.ndarray) -> int:
    """How many times of `a` and `b` pair up one to one within `REACH`, nearest first."""
    pairs = sorted((abs(x - y), i, j) for i, x in enumerate(a) for j, y in enumerate(b) if abs(x - y) <= REACH + 1e-9)
    used_a: set[int] = set()
    used_b: set[int] = set()
    for _, i, j in pairs:
        if i not in used_a and j not in used_b:
            used_a.add(i)
            used_b.add(j)
    return len(used_a)
