"""Training targets of the Instant driver: mouth movement computed from phones with their times.

Each phone has a goal and a dominance for every articulator; the movement is the dominance-weighted mean of the goals
under a Gaussian window (Cohen and Massaro's dominance functions in the form of a normalised convolution), so long
phones reach their goal, short ones fall short of it and neighbours affect each other. Lips lead the sound. Loudness
drives the jaw (as in JALI, doi 10.1145/2897824.2925984). Full closures are added on top with their own sharp timing.
The goals come from general phonetics (vowel height, rounding, place of articulation), not from any recording.
"""

from __future__ import annotations

import numpy as np

from ....models.speech.mouth_network import CONTROLS
from .speech import PHONE_INDEX, PHONES, VOWELS

TARGET_RATE = 100
"""Target frames a second, those of the mel frames."""
LEAD = 0.075
"""Seconds by which the lips are ahead of the sound."""
CONTROL_WIDTH = (0.045, 0.045, 0.050, 0.0, 0.040, 0.035)
"""Standard deviation in seconds of each articulator's window, in the order of CONTROLS; the jaw is slower than lips."""
CLOSURE_WIDTH = 0.014

# The jaw of the vowels follows their first formant (Peterson and Barney 1952, men's means: /a/ 730 Hz ... /i/ 270 Hz).
# Goals: jaw, width (spread), round, upper lip lift, tongue; then dominance of jaw, of lip shape.
_GOALS: dict[str, tuple[float, float, float, float, float, float, float]] = {
    "sil": (0.00, 0.00, 0.00, 0.00, 0.00, 0.70, 0.70),
    "p": (0.16, 0.00, 0.05, 0.15, 0.00, 0.50, 0.40), "b": (0.16, 0.00, 0.05, 0.15, 0.00, 0.50, 0.40),
    "m": (0.14, 0.00, 0.05, 0.12, 0.00, 0.50, 0.40), "f": (0.12, 0.10, 0.00, 0.30, 0.00, 0.80, 0.80),
    "v": (0.13, 0.10, 0.00, 0.30, 0.00, 0.80, 0.80), "th": (0.18, 0.10, 0.00, 0.40, 0.90, 0.60, 0.50),
    "t": (0.14, 0.10, 0.00, 0.45, 0.75, 0.50, 0.35), "d": (0.17, 0.10, 0.00, 0.45, 0.75, 0.45, 0.35),
    "n": (0.18, 0.10, 0.00, 0.45, 0.75, 0.40, 0.35), "l": (0.30, 0.10, 0.00, 0.45, 0.85, 0.45, 0.35),
    "s": (0.08, 0.30, 0.00, 0.55, 0.55, 0.90, 0.60), "z": (0.09, 0.30, 0.00, 0.55, 0.55, 0.90, 0.60),
    "sh": (0.11, 0.00, 0.60, 0.65, 0.50, 0.90, 0.90), "ch": (0.11, 0.00, 0.55, 0.60, 0.60, 0.90, 0.85),
    "k": (0.24, 0.04, 0.00, 0.40, 0.30, 0.25, 0.20), "ng": (0.24, 0.04, 0.00, 0.40, 0.30, 0.25, 0.20),
    "h": (0.35, 0.00, 0.00, 0.35, 0.15, 0.12, 0.10), "r": (0.18, 0.00, 0.50, 0.30, 0.45, 0.60, 0.80),
    "w": (0.10, 0.00, 0.95, 0.10, 0.15, 0.90, 1.20), "y": (0.10, 0.30, 0.00, 0.45, 0.45, 0.60, 0.50),
    "aa": (0.74, 0.04, 0.00, 0.40, 0.15, 1.00, 0.70), "ae": (0.64, 0.36, 0.00, 0.50, 0.20, 1.00, 0.80),
    "ah": (0.61, 0.04, 0.00, 0.38, 0.20, 0.90, 0.60), "ax": (0.36, 0.00, 0.00, 0.33, 0.25, 0.60, 0.40),
    "eh": (0.45, 0.24, 0.00, 0.45, 0.30, 0.90, 0.70), "ey": (0.32, 0.40, 0.00, 0.48, 0.35, 0.90, 0.80),
    "ih": (0.25, 0.24, 0.00, 0.42, 0.35, 0.80, 0.60), "iy": (0.08, 0.60, 0.00, 0.48, 0.40, 0.90, 0.90),
    "ao": (0.51, 0.00, 0.50, 0.28, 0.10, 1.00, 0.90), "ow": (0.38, 0.00, 0.75, 0.20, 0.10, 1.00, 1.00),
    "uh": (0.32, 0.00, 0.55, 0.22, 0.15, 0.80, 0.80), "uw": (0.12, 0.00, 1.00, 0.12, 0.15, 0.90, 1.10),
    "er": (0.40, 0.00, 0.40, 0.30, 0.40, 0.80, 0.70), "yu": (0.10, 0.00, 0.95, 0.18, 0.35, 0.90, 1.10),
    "oe": (0.34, 0.00, 0.75, 0.25, 0.25, 0.90, 1.00),
}  # fmt: skip
_CLOSURE = {"p": 1.0, "b": 1.0, "m": 1.0, "f": 0.75, "v": 0.72}
"""Lip press: 1 seals the lips, three quarters lets the lower lip touch the teeth."""

TRAIL = 0.15
"""Seconds that the mouth keeps the last phone's shape into a pause: it leads at onsets, but closes after the sound."""
SHORT_PAUSE = 0.35
"""A shorter pause between words does not close the mouth (Rhubarb relaxes up to here)."""
_RELAXED = (0.12, 0.00, 0.00, 0.30, 0.00, 0.30, 0.30)
_TABLE = np.array([_GOALS[name] for name in PHONES])
_IS_VOWEL = np.array([name in VOWELS for name in PHONES])
_GROUP = {"jaw": 5, "width": 6, "round": 6, "upper": 6, "tongue": 5}


def stress(mel: np.ndarray, phones: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """How far each phone opens the jaw, (N,) about 1: vowels louder than this utterance's median open further.

    `mel` (frames, mels) log10 power at 100 Hz.
    """
    loudness = 10 * np.log10((10.0 ** mel.astype(np.float32)).mean(1) + 1e-12)
    peaks = np.full(len(phones), np.nan)
    for index in np.flatnonzero(_IS_VOWEL[phones]):
        first = int(edges[index] * TARGET_RATE)
        last = max(int(edges[index + 1] * TARGET_RATE), first + 1)
        if first < len(loudness):
            peaks[index] = loudness[first:last].max()
    if np.all(np.isnan(peaks)):
        return np.ones(len(phones), np.float32)
    relative = np.nan_to_num(peaks - np.nanmedian(peaks))
    return np.clip(1 + 0.03 * relative, 0.7, 1.3).astype(np.float32)


def _runs(edges: np.ndarray, values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Piecewise constant `values` (N,) between `edges` (N + 1,), read at `times`; outside it is the ends' value."""
    return values[np.clip(np.searchsorted(edges, times, side="right") - 1, 0, len(values) - 1)]


def _short_pauses(phones: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(N,) bool: silent, short and with speech on both sides."""
    short = (phones == PHONE_INDEX["sil"]) & (np.diff(edges) < SHORT_PAUSE)
    short[[0, -1]] = False
    return short


def mouth_targets(
    phones: np.ndarray, edges: np.ndarray, stressed: np.ndarray, frames: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Controls (frames, 6) in 0..1, speech activity (frames,) and phone class (frames,) at 100 Hz.

    `phones` (N,) classes, `edges` (N + 1,) seconds, `stressed` (N,) from `stress`.
    """
    from scipy.ndimage import gaussian_filter1d

    times = np.arange(frames) / TARGET_RATE
    pause = _short_pauses(phones, edges)
    moved = edges.astype(np.float64)
    for rest in np.flatnonzero((phones[1:] == PHONE_INDEX["sil"]) & ~pause[1:]) + 1:
        moved[rest] += min(TRAIL, (edges[rest + 1] - edges[rest]) / 2)
    index = _runs(moved, np.arange(len(phones)), times + LEAD)
    goals = np.where(pause[index, None], _RELAXED, _TABLE[phones[index]])
    controls = np.zeros((frames, len(CONTROLS)), np.float32)
    for channel, name in enumerate(CONTROLS):
        if name == "press":
            continue
        goal = goals[:, ("jaw", "width", "round", "upper", "tongue").index(name)]
        if name == "jaw":
            goal = np.clip(goal * stressed[index], 0, 1)
        dominance = goals[:, _GROUP[name]]
        width = CONTROL_WIDTH[channel] * TARGET_RATE
        controls[:, channel] = gaussian_filter1d(dominance * goal, width, mode="nearest") / gaussian_filter1d(
            dominance, width, mode="nearest"
        )
    press = np.zeros(frames)
    for position, phone in enumerate(phones):
        strength = _CLOSURE.get(PHONES[phone])
        if strength is None:
            continue
        start, end = float(edges[position]), float(edges[position + 1])
        # Lips shut before the sound, all the more out of a pause; they part with the burst.
        start -= 0.05 if position and phones[position - 1] == PHONE_INDEX["sil"] else 0.035
        end = end - (0.02 if PHONES[phone] == "m" else 0.25 * (end - start))
        end = max(end, start + 0.05)
        press = np.maximum(press, strength * ((times >= start) & (times < end)))
    controls[:, CONTROLS.index("press")] = gaussian_filter1d(press, CLOSURE_WIDTH * TARGET_RATE, mode="nearest")
    frame_phones = phones[_runs(edges, np.arange(len(phones)), times)]
    speaking = (pause | (phones != PHONE_INDEX["sil"])).astype(float)
    activity = gaussian_filter1d(_runs(moved, speaking, times + LEAD), 2.0, mode="nearest")
    return controls, activity.astype(np.float32), frame_phones.astype(np.int64)
