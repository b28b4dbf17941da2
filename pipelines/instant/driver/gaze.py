"""Where the eyes look: saccades between short fixations, and turns against the head's, so that contact is kept.

Speakers look at the listener most of the time and away at beginnings of phrases, while they think (Kendon 1967);
saccades last 20 to 60 ms (Bahill et al. 1975) and are mostly small ones within what is looked at.
Angles are degrees to the face's left and up, as FaceMotion's `gaze` has them.
"""

from __future__ import annotations

import numpy as np

from ...motion.random_streams import stream
from ...progress import check_interrupted
from .prosody import RATE, Prosody

MAX_DEGREES = 18.0
"""Eyes hardly turn further in the head."""
FULL_SCORE = 30.0
"""Degrees for which a blendshape of the gaze is 1."""

_FIXATION, _FIXATION_SPREAD = 0.9, 0.55
"""Median seconds of a fixation, and the deviation of their logarithm."""
_NEAR = np.array([1.3, 0.9])
_AWAY = np.array([7.0, 4.0])
_AWAY_SPEAKING, _AWAY_SILENT = 0.16, 0.08
"""Share of saccades that look away; they are followed by one that looks back."""
_SACCADE_SECONDS = 0.045
_KEPT_CONTACT = 0.9
"""Of the head's turns, what the eyes turn back."""


def saccades(prosody: Prosody, seed: int) -> np.ndarray:
    """Turns (T, 2) of the eyes about where the listener is."""
    random = stream(seed, "gaze")
    looked = np.zeros((prosody.frames, 2))
    begins = prosody.phrases[:, 0] if len(prosody.phrases) else np.zeros(0)
    at, away, place = random.uniform(0.2, 0.8), False, np.zeros(2)
    while at * RATE < prosody.frames:
        check_interrupted()
        frame = int(at * RATE)
        thinking = bool((np.abs(begins - at) < 0.4).any())
        chance = _AWAY_SPEAKING if prosody.speech[frame] else _AWAY_SILENT
        away = not away and random.random() < (2 * chance if thinking else chance)
        size = random.uniform(0.6, 1.3, 2) * random.choice([-1, 1], 2) * _AWAY if away else np.zeros(2)
        place = size + np.clip(random.standard_normal(2), -2, 2) * _NEAR
        looked[frame:] = place
        stay = _FIXATION * np.exp(_FIXATION_SPREAD * np.clip(random.standard_normal(), -2, 2))
        at += max(0.25, stay * (0.7 if away else 1.0))
    return _jumps(looked)


def gaze_of(rotation: np.ndarray, looked: np.ndarray) -> np.ndarray:
    """Gaze (F, 2) of eyes that look at `looked` (F, 2) from a head turned by (F, 3) degrees."""
    pitch, yaw = rotation[:, 0], rotation[:, 1]
    turned = looked + _KEPT_CONTACT * np.stack([-yaw, pitch], axis=1)
    return MAX_DEGREES * np.tanh(turned / MAX_DEGREES)


def gaze_weights(gaze: np.ndarray) -> dict[str, np.ndarray]:
    """The same as blendshape weights (F,) by name."""
    left, up = gaze.T / FULL_SCORE
    weights = {}
    for side, outward in (("Left", left), ("Right", -left)):
        weights[f"eyeLookOut{side}"] = np.maximum(outward, 0)
        weights[f"eyeLookIn{side}"] = np.maximum(-outward, 0)
        weights[f"eyeLookUp{side}"] = np.maximum(up, 0)
        weights[f"eyeLookDown{side}"] = np.maximum(-up, 0)
    return weights


def _jumps(places: np.ndarray) -> np.ndarray:
    """Steps (T, 2) as saccades: over within some hundredths of a second, not within none."""
    from scipy.ndimage import uniform_filter1d

    even: np.ndarray = uniform_filter1d(places, max(1, round(_SACCADE_SECONDS * RATE)), axis=0, mode="nearest")
    return even
