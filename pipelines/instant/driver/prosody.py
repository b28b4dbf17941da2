"""Prosody: loudness, pitch, phrases and accents, from which head and brow movement is made.

It is analysed in blocks, so that memory beyond the audio itself is its copy at 4 kHz and about ten numbers for each
10 ms.

What numbers without a source were tuned on is not recorded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...audio.waveform import mono_at
from ...types import Audio, Progress, no_progress

RATE = 100
"""Prosody frames a second; frame k is centred on k / RATE seconds."""
PAUSE_SECONDS = 0.35
"""A silence longer than this ends a phrase (Rhubarb Lip Sync uses the same pause)."""

_SAMPLE_RATE = 4000
_HOP = _SAMPLE_RATE // RATE
_WINDOW = 200  # 50 ms: three periods of the lowest voice
_FFT = 512
_LOWEST, _HIGHEST = 60.0, 500.0
_BLOCK = 4000  # frames at once
_CANDIDATES = 3
_VOICED = 0.5
"""Least normalised autocorrelation of a voiced frame (Boersma 1993 suggests 0.45)."""
_FLOOR_DB = -100.0
"""Level of silence: about that of 16-bit sound's rounding."""


@dataclass(frozen=True)
class Prosody:
    """One row for each 10 ms.

    `loudness` (T,) dB over the usual speech level, about -20..6 within speech; `pitch` (T,) semitones over the
    speaker's median, carried smoothly through unvoiced stretches; `voiced` (T,) bool; `speech` (T,) bool, short
    gaps closed; `phrases` (N, 2) seconds from start to end; `accents` (M, 2) seconds and strength (0.3 weak, 1 strong)
    of stressed syllables.
    """

    loudness: np.ndarray
    pitch: np.ndarray
    voiced: np.ndarray
    speech: np.ndarray
    phrases: np.ndarray
    accents: np.ndarray

    @property
    def frames(self) -> int:
        return len(self.loudness)


def analyse(audio: Audio, activity: np.ndarray, activity_rate: float, progress: Progress = no_progress) -> Prosody:
    """The prosody of `audio`, where `activity` (N,) in 0..1 at `activity_rate` Hz is the speech activity."""
    frames = int(np.ceil(float(audio.seconds) * RATE)) + 1
    wave = mono_at(audio, _SAMPLE_RATE).waveform[0].numpy()
    level, f0, strength = _track(wave, frames, progress)

    times = np.arange(frames) / RATE
    talking = np.interp(times, np.arange(len(activity)) / activity_rate, activity) > 0.5
    phrases = find_phrases(talking)
    speech = np.zeros(frames, dtype=bool)
    for start, end in phrases:
        speech[round(start * RATE) : round(end * RATE)] = True

    f0, voiced = _choose_pitch(f0, strength, talking)
    pitch = _carried_pitch(f0, voiced)
    level = gaussian(level, 0.03 * RATE)
    usual = np.percentile(level[talking], 75) if talking.any() else 0.0
    loudness = np.where(speech, np.clip(level - usual, -25, 12), -25.0)
    accents = find_accents(loudness, pitch, talking)
    return Prosody(loudness, np.where(speech, pitch, 0.0), voiced, speech, phrases, accents)


def gaussian(values: np.ndarray, sigma: float) -> np.ndarray:
    """Smoothing over the first axis without delay, `sigma` in frames; the ends are held."""
    from scipy.ndimage import gaussian_filter1d

    return gaussian_filter1d(np.asarray(values, dtype=np.float64), sigma, axis=0, mode="nearest")


def find_phrases(talking: np.ndarray) -> np.ndarray:
    """Segments of speech (N, 2) in seconds; silences up to PAUSE_SECONDS are part of them, blips of 80 ms are not."""
    edges = np.diff(np.concatenate([[0], talking.astype(np.int8), [0]]))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    if len(starts) == 0:
        return np.zeros((0, 2))
    far = starts[1:] - ends[:-1] > PAUSE_SECONDS * RATE
    starts, ends = starts[np.concatenate([[True], far])], ends[np.concatenate([far, [True]])]
    long_enough = ends - starts > 0.08 * RATE
    return np.stack([starts, ends], axis=1)[long_enough] / RATE


def find_accents(loudness: np.ndarray, pitch: np.ndarray, talking: np.ndarray) -> np.ndarray:
    """Stressed syllables (M, 2): seconds, and strength from 0.3 to 1.

    A syllable is a peak of loudness; it is stressed when it is louder and higher than the speech around it.
    """
    from scipy.signal import find_peaks

    peaks, shape = find_peaks(gaussian(loudness, 0.02 * RATE), prominence=2.0, distance=round(0.12 * RATE))
    kept = talking[peaks]
    peaks, prominence = peaks[kept], shape["prominences"][kept]
    if len(peaks) == 0:
        return np.zeros((0, 2))
    around = 0.8 * RATE
    weight = gaussian(talking.astype(np.float64), around) + 1e-3
    louder = loudness[peaks] - (gaussian(loudness * talking, around) / weight)[peaks]
    higher = pitch[peaks] - (gaussian(pitch * talking, around) / weight)[peaks]
    salience = louder / 6 + higher / 4 + np.minimum(prominence, 15) / 15
    strength = np.clip((salience - np.median(salience)) / 2 + 0.3, 0, 1)
    # Of syllables within 0.3 s the strongest carries the accent.
    reach = round(0.3 * RATE)
    near = np.zeros(len(loudness), dtype=bool)
    chosen: list[int] = []
    for i in np.argsort(-strength, kind="stable"):
        if strength[i] >= 0.3 and not near[peaks[i]]:
            near[max(0, peaks[i] - reach + 1) : peaks[i] + reach] = True
            chosen.append(int(i))
    chosen.sort()
    return np.stack([peaks[chosen] / RATE, strength[chosen]], axis=1)


def _track(wave: np.ndarray, frames: int, progress: Progress) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Level (T,) in dB and pitch candidates: frequency (T, 3) in Hz, strength (T, 3), by normalised autocorrelation.

    P. Boersma (1993): the autocorrelation of the windowed sound over that of the window itself; a weak preference for
    high candidates settles the octave.
    """
    from scipy.fft import irfft, rfft

    window = np.hanning(_WINDOW)
    window_correlation = irfft(np.abs(rfft(window, _FFT)) ** 2)
    window_correlation /= window_correlation[0]
    # Only what lies below 1.6 kHz counts, so that the peaks are broad enough for a parabola over this sampling.
    hertz = np.arange(_FFT // 2 + 1) * _SAMPLE_RATE / _FFT
    taper = np.cos(np.pi / 2 * np.minimum(hertz / 1600, 1)) ** 2
    shortest, longest = int(_SAMPLE_RATE / _HIGHEST) - 1, int(_SAMPLE_RATE / _LOWEST) + 2
    lags = np.arange(shortest, longest)
    octave_cost = 0.02 * np.log2(lags * _LOWEST / _SAMPLE_RATE)

    level = np.empty(frames)
    f0, strength = np.zeros((frames, _CANDIDATES)), np.zeros((frames, _CANDIDATES))
    half = _WINDOW // 2
    for start in range(0, frames, _BLOCK):
        stop = min(start + _BLOCK, frames)
        first, last = start * _HOP - half, (stop - 1) * _HOP + half
        piece = wave[max(first, 0) : last].astype(np.float64)
        piece = np.pad(piece, (max(0, -first), max(0, last - first - max(0, -first) - len(piece))))
        view = np.lib.stride_tricks.sliding_window_view(piece, _WINDOW)[::_HOP]
        windowed = (view - view.mean(axis=1, keepdims=True)) * window
        spectrum = np.abs(rfft(windowed, _FFT)) ** 2
        power = (2 * spectrum.sum(axis=1) - spectrum[:, 0] - spectrum[:, -1]) / (_FFT * (window**2).sum())
        correlation = irfft(spectrum * taper)[:, :longest]
        level[start:stop] = 10 * np.log10(np.maximum(power, 10 ** (_FLOOR_DB / 10)))
        # Lag by lag over what the window alone would give; a little is added so that silence is unvoiced.
        silence = 10 ** (_FLOOR_DB / 10) * (window**2).sum()
        r = correlation / (correlation[:, :1] + silence) / window_correlation[:longest]
        score = r[:, shortest:] - octave_cost
        middle = score[:, 1:-1]
        peak = (middle > score[:, :-2]) & (middle >= score[:, 2:])
        ranked = np.argsort(-np.where(peak, middle, -1.0), axis=1, kind="stable")[:, :_CANDIDATES] + 1
        rows = np.arange(stop - start)[:, None]
        is_peak = peak[rows, ranked - 1]
        before, here, after = (r[rows, ranked + shortest + d] for d in (-1, 0, 1))
        bend = np.where(is_peak, before - 2 * here + after, -1.0)
        shift = np.clip(0.5 * (before - after) / np.where(np.abs(bend) < 1e-9, -1.0, bend), -0.5, 0.5)
        f0[start:stop] = _SAMPLE_RATE / (lags[ranked] + shift)
        strength[start:stop] = np.where(is_peak, here, 0.0)
        progress(stop, frames)
    return level, f0, strength


def _choose_pitch(f0: np.ndarray, strength: np.ndarray, talking: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One frequency a frame (0 where unvoiced) out of the candidates, within an octave of the speaker's median.

    A second pass prefers the candidate near the median of the voice just around, which mends short octave jumps.
    """
    from scipy.ndimage import median_filter

    sure = (strength[:, 0] > 0.75) & talking
    if sure.sum() < 5:
        return np.zeros(len(f0)), np.zeros(len(f0), dtype=bool)
    octaves = np.log2(np.maximum(f0, 1.0) / np.median(f0[sure, 0]))
    strength = np.where((np.abs(octaves) < 0.95) & talking[:, None], strength, 0.0)
    rows = np.arange(len(f0))
    best = strength.argmax(axis=1)
    index = np.flatnonzero(strength[rows, best] > _VOICED)
    if len(index):
        around = median_filter(octaves[index, best[index]], size=61, mode="nearest")
        distance = np.abs(octaves - np.interp(rows, index, around)[:, None])
        best = (strength - 0.4 * distance).argmax(axis=1)
    voiced = strength[rows, best] > _VOICED
    return np.where(voiced, f0[rows, best], 0.0), voiced


def _carried_pitch(f0: np.ndarray, voiced: np.ndarray) -> np.ndarray:
    """Semitones over the median; unvoiced segments bridged, single wild frames taken out, smoothed."""
    if voiced.sum() < 5:
        return np.zeros(len(f0))
    from scipy.ndimage import median_filter

    index = np.flatnonzero(voiced)
    semitones = 12 * np.log2(f0[index] / np.median(f0[index]))
    semitones = median_filter(semitones, size=7, mode="nearest")
    return gaussian(np.interp(np.arange(len(f0)), index, semitones), 0.03 * RATE)
