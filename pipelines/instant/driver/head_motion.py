"""Head motion that accompanies speech, and the slow drift of a head at rest.

Heads of speakers (Munhall et al. 2004; Tiede et al. 2022): movement follows loudness and pitch, stressed
syllables get a nod, and most of it happens between 0.5 and 2 Hz. Between phrases the head comes back to rest.
All rows are prosody frames, 100 a second; angles are degrees in the order pitch, yaw, roll of `face/head_pose.py`.

What numbers without a source were tuned on is not recorded.
"""

from __future__ import annotations

import numpy as np

from ...motion.random_streams import stream, wandering
from .prosody import RATE, Prosody, gaussian

MAX_DEGREES = 8.0
"""No angle of the speech movement passes this at amount 1."""

_NOD_DEGREES = 4.0
_PITCH_DEGREES_PER_SEMITONE = 0.45
_POSTURE_DEGREES = np.array([1.6, 2.5, 1.7])
_RESTLESS_DEGREES = np.array([0.5, 0.6, 0.45])
_DRIFT_DEGREES = np.array([0.35, 0.5, 0.3])
_DRIFT_CM = np.array([0.06, 0.05, 0.1])


def speech_rotation(prosody: Prosody, seed: int, nod: float = 1.0) -> np.ndarray:
    """Angles (T, 3) of what the head does because of the speech; 0 in silence. `nod` scales the nods on stresses."""
    talking = gaussian(prosody.speech.astype(np.float64), 0.12 * RATE)
    total = _postures(prosody, stream(seed, "head posture"))
    total += wandering(stream(seed, "head restlessness"), prosody.frames, RATE, 0.8, 3) * _RESTLESS_DEGREES
    sway = _band(prosody.loudness, prosody.speech) / 6
    total[:, 1] += 0.6 * sway * _turns(prosody, stream(seed, "head sway"))
    total *= talking[:, None]
    # A rising voice lifts the chin, a stress lowers it.
    total[:, 0] -= _PITCH_DEGREES_PER_SEMITONE * np.clip(_band(prosody.pitch, prosody.speech), -6, 6)
    total[:, 0] += nod * _nods(prosody, stream(seed, "nods"))
    return MAX_DEGREES * np.tanh(gaussian(total, 0.045 * RATE) / MAX_DEGREES)


def resting_drift(frames: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Angles (T, 3) and translation (T, 3) in cm of a head at rest: slow and small, with breathing."""
    random = stream(seed, "drift")
    slow = gaussian(wandering(random, frames, RATE, 4.0, 6), 0.3 * RATE)
    slow = 2 * np.tanh(slow / 2)
    # Breaths of about four seconds, each of another length.
    pace = 0.25 * np.exp(0.25 * gaussian(wandering(random, frames, RATE, 6.0, 1)[:, 0], 0.3 * RATE))
    breath = np.sin(2 * np.pi * (np.cumsum(pace) / RATE + random.random()))
    rotation = slow[:, :3] * _DRIFT_DEGREES
    rotation[:, 0] += 0.12 * breath
    translation = slow[:, 3:] * _DRIFT_CM
    translation[:, 1] += 0.03 * breath
    return rotation, translation


def _band(values: np.ndarray, speech: np.ndarray) -> np.ndarray:
    """What varies within about 0.2 to 2 s of a curve, counted in speech only."""
    inside = speech.astype(np.float64)
    slow = gaussian(values * inside, 0.7 * RATE) / np.maximum(gaussian(inside, 0.7 * RATE), 1e-3)
    return gaussian((values - slow) * inside, 0.09 * RATE)


def _turns(prosody: Prosody, random: np.random.Generator) -> np.ndarray:
    """+1 or -1 with soft changes on accents: to which side a loud syllable turns the head."""
    sides = np.ones(prosody.frames)
    for seconds, _ in prosody.accents:
        if random.random() < 0.4:
            sides[round(seconds * RATE) :] *= -1
    return gaussian(sides * (1 if random.random() < 0.5 else -1), 0.15 * RATE)


def _postures(prosody: Prosody, random: np.random.Generator) -> np.ndarray:
    """Where the head is held: a new place with each phrase and with some accents in it, back to rest in pauses."""
    held = np.zeros((prosody.frames, 3))
    for start, end in prosody.phrases:
        begin, stop = max(0, round((start - 0.15) * RATE)), round(end * RATE)
        held[begin:stop] = _posture(random)
        last = start
        for seconds, strength in prosody.accents:
            if start + 0.5 < seconds < end - 0.3 and seconds - last > 0.8:
                long_ago = seconds - last > 2.2
                if random.random() < 0.3 + 0.4 * strength or long_ago:
                    held[max(0, round((seconds - 0.1) * RATE)) : stop] = _posture(random)
                    last = seconds
    return gaussian(held, 0.2 * RATE)


def _posture(random: np.random.Generator) -> np.ndarray:
    place = np.clip(random.standard_normal(3), -2, 2) * _POSTURE_DEGREES
    place[2] -= 0.3 * place[1]  # a turned head leans back a little against the turn
    return place


def _nods(prosody: Prosody, random: np.random.Generator) -> np.ndarray:
    """A nod on three of four accents: a small lift before, quickly down, back more slowly."""
    hits = np.zeros(prosody.frames)
    for seconds, strength in prosody.accents:
        size = strength * np.exp(0.3 * random.standard_normal())
        if random.random() < 0.75:
            hits[min(prosody.frames - 1, round((seconds + 0.04) * RATE))] = size
    t = np.arange(-80, 81) / RATE
    dip = np.exp(-0.5 * (t / np.where(t < 0, 0.085, 0.15)) ** 2) - 0.18 * np.exp(-0.5 * ((t + 0.32) / 0.1) ** 2)
    full = np.convolve(hits, dip)
    return _NOD_DEGREES * full[80 : 80 + prosody.frames]
