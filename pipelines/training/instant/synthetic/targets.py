"""Training targets of the Instant driver: mouth movement computed from phones with their times.

Each phone has a goal and a dominance for every articulator; the movement is the dominance-weighted mean of the goals
under a Gaussian window (Cohen and Massaro's dominance functions in the form of a normalised convolution), so long
phones reach their goal, short ones fall short of it and neighbours affect each other. Lips lead the sound. Loudness
opens the mouth (as in JALI, doi 10.1145/2897824.2925984). Full closures are added on top with their own sharp timing.
How far phones open the mouth, what it does in pauses and the lead are means over twenty measured speakers; rounding,
spreading and the tongue come from general phonetics.
"""

from __future__ import annotations

import numpy as np

from .....models.curves import smoothstep
from .....models.face.mouth_shapes import JAW_OPENING, ROUND_NARROWING, UPPER_OPENING
from .....models.speech.mouth_network import CONTROLS
from .speech import PHONE_INDEX, PHONES, VOWELS

TARGET_RATE = 100
"""Target frames a second, those of the mel frames."""
LEAD = 0.040
"""Seconds by which the lips are ahead of the sound."""
OPENING_WIDTH, SHAPE_WIDTH, TONGUE_WIDTH = 0.045, 0.050, 0.035
"""Standard deviation in seconds of each articulator's window; the jaw is slower than the tongue."""
CLOSURE_WIDTH = 0.014
JAW_SHARE = 0.58
"""Of an opening, the part that the jaw makes; the lips' own parting makes the rest."""

# Goals: opening in eye distances, width (spread), round, tongue; then dominance of the opening, of the lips' shape.
# Openings are 1.25 times as far from the mean, 0.093, as speakers' means are, for the window draws them together.
_GOALS: dict[str, tuple[float, float, float, float, float, float]] = {
    "sil": (0.000, 0.10, 0.00, 0.00, 0.70, 0.40),
    "p": (0.050, 0.15, 0.05, 0.00, 0.50, 0.40), "b": (0.050, 0.15, 0.05, 0.00, 0.50, 0.40),
    "m": (0.045, 0.15, 0.05, 0.00, 0.50, 0.40), "f": (0.050, 0.25, 0.00, 0.00, 0.80, 0.60),
    "v": (0.055, 0.25, 0.00, 0.00, 0.80, 0.60), "th": (0.070, 0.25, 0.00, 0.90, 0.60, 0.50),
    "t": (0.085, 0.30, 0.00, 0.75, 0.50, 0.35), "d": (0.100, 0.30, 0.00, 0.75, 0.45, 0.35),
    "n": (0.080, 0.30, 0.00, 0.75, 0.40, 0.35), "l": (0.087, 0.30, 0.00, 0.85, 0.45, 0.35),
    "s": (0.086, 0.40, 0.00, 0.55, 0.90, 0.60), "z": (0.078, 0.40, 0.00, 0.55, 0.90, 0.60),
    "sh": (0.115, 0.00, 0.50, 0.50, 0.90, 0.90), "ch": (0.096, 0.00, 0.45, 0.60, 0.90, 0.85),
    "k": (0.105, 0.25, 0.00, 0.30, 0.25, 0.20), "ng": (0.105, 0.25, 0.00, 0.30, 0.25, 0.20),
    "h": (0.150, 0.30, 0.00, 0.15, 0.25, 0.10), "r": (0.029, 0.00, 0.45, 0.45, 0.60, 0.80),
    "w": (0.005, 0.00, 0.95, 0.15, 0.90, 1.20), "y": (0.085, 0.45, 0.00, 0.45, 0.60, 0.50),
    "aa": (0.167, 0.45, 0.00, 0.15, 1.00, 0.70), "ae": (0.193, 0.65, 0.00, 0.20, 1.00, 0.80),
    "ah": (0.112, 0.40, 0.00, 0.20, 0.90, 0.60), "ax": (0.090, 0.25, 0.00, 0.25, 0.60, 0.40),
    "eh": (0.153, 0.55, 0.00, 0.30, 0.90, 0.70), "ey": (0.148, 0.65, 0.00, 0.35, 0.90, 0.80),
    "ih": (0.118, 0.45, 0.00, 0.35, 0.80, 0.60), "iy": (0.107, 0.60, 0.00, 0.40, 0.90, 0.90),
    "ao": (0.119, 0.00, 0.40, 0.10, 1.00, 0.90), "ow": (0.078, 0.00, 0.70, 0.10, 1.00, 1.00),
    "uh": (0.082, 0.00, 0.45, 0.15, 0.80, 0.80), "uw": (0.044, 0.00, 0.90, 0.15, 0.90, 1.10),
    "er": (0.068, 0.00, 0.35, 0.40, 0.80, 0.70), "yu": (0.044, 0.00, 0.85, 0.35, 0.90, 1.10),
    "oe": (0.080, 0.00, 0.70, 0.25, 0.90, 1.00),
}  # fmt: skip
_CLOSURE = {"p": 1.0, "b": 1.0, "m": 1.0, "f": 0.75, "v": 0.72}
"""Lip press: 1 seals the lips, three quarters lets the lower lip touch the teeth."""

TRAIL = 0.15
"""Seconds that the mouth keeps the last phone's shape into a pause: it leads at onsets, but closes after the sound."""
SHORT_PAUSE = 0.35
"""A shorter pause between words is part of the speech (Rhubarb relaxes up to here)."""
_HALF_OPEN, _SUNK, _BREATH = 0.090, 0.046, 0.125
"""Openings in a pause, after some time in it, and of the breath before the next word."""
_SINKS, _RESTS = (0.25, 0.70), (1.0, 1.6)
"""Seconds in a pause over which the opening sinks, and seconds of length from which lips are half, and all, closed."""
_BREATH_PAUSE, _BREATH_BEFORE, _BREATH_WIDTH = 0.4, 0.15, 0.10
"""Length of a pause with a breath in it; when its peak is before the next word; its standard deviation."""
_RELAXED = 0.30
"""Dominances in a pause."""
_TABLE = np.array([_GOALS[name] for name in PHONES])
_IS_VOWEL = np.array([name in VOWELS for name in PHONES])


def pause_opening(since: np.ndarray, until: np.ndarray) -> np.ndarray:
    """Opening (...) in eye distances of a mouth in a pause, `since` seconds after a word and `until` before the next.

    Infinite where there is no word before or after.
    """
    length = since + until
    sunk = _HALF_OPEN + (_SUNK - _HALF_OPEN) * smoothstep(*_SINKS, since) * smoothstep(0.5, 0.8, length)
    rest = sunk * (1 - smoothstep(*_RESTS, length) * smoothstep(*_SINKS, since))
    with np.errstate(invalid="ignore"):
        breath = np.exp(-0.5 * ((until - _BREATH_BEFORE) / _BREATH_WIDTH) ** 2) * (length >= _BREATH_PAUSE)
    return rest + np.maximum(_BREATH - rest, 0) * breath


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
    silent = phones == PHONE_INDEX["sil"]
    moved = edges.astype(np.float64)
    for rest in np.flatnonzero(silent[1:] & ~pause[1:]) + 1:
        moved[rest] += min(TRAIL, (edges[rest + 1] - edges[rest]) / 2)
    index = _runs(moved, np.arange(len(phones)), times + LEAD)
    goals = _TABLE[phones[index]]
    goals[:, 0] *= stressed[index]
    resting = silent[index]
    since = np.where(index > 0, times + LEAD - edges[index], np.inf)
    until = np.where(index < len(phones) - 1, edges[index + 1] - times - LEAD, np.inf)
    goals[resting, 0] = pause_opening(np.maximum(since[resting], 0), np.maximum(until[resting], 0))
    goals[resting & np.isfinite(since + until), 4:] = _RELAXED
    opening, spread, rounded, tongue = (
        _blended(goals[:, column], goals[:, dominance], width)
        for column, dominance, width in (
            (0, 4, OPENING_WIDTH), (1, 5, SHAPE_WIDTH), (2, 5, SHAPE_WIDTH), (3, 4, TONGUE_WIDTH)
        )
    )  # fmt: skip
    controls = controls_of(opening, spread, rounded, tongue)
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
    speaking = (pause | ~silent).astype(float)
    activity = gaussian_filter1d(_runs(moved, speaking, times + LEAD), 2.0, mode="nearest")
    return controls, activity.astype(np.float32), frame_phones.astype(np.int64)


def pause_controls(since: np.ndarray, until: np.ndarray) -> np.ndarray:
    """Controls (T, 6) in a pause; see `pause_opening`."""
    opening = pause_opening(since, until)
    spread = np.full_like(opening, _GOALS["sil"][1])
    return controls_of(opening, spread, np.zeros_like(opening), np.zeros_like(opening))


def _blended(goal: np.ndarray, dominance: np.ndarray, seconds: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter1d

    width = seconds * TARGET_RATE
    weighted: np.ndarray = gaussian_filter1d(dominance * goal, width, mode="nearest")
    return weighted / gaussian_filter1d(dominance, width, mode="nearest")


def controls_of(opening: np.ndarray, spread: np.ndarray, rounded: np.ndarray, tongue: np.ndarray) -> np.ndarray:
    """Controls (T, 6) without lip press whose lips open by `opening` (T,) eye distances."""
    gap = opening / (1 - ROUND_NARROWING * rounded)
    jaw = JAW_SHARE * gap / JAW_OPENING
    upper = np.clip((1 - JAW_SHARE) * gap / UPPER_OPENING, 0, 1)
    return np.stack([jaw, spread, rounded, np.zeros_like(jaw), upper, tongue], axis=1).clip(0, 1).astype(np.float32)
