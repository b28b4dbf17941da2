"""Head motion that accompanies speech, and the slow drift of a head at rest.

Heads of speakers (Munhall et al. 2004; Tiede et al. 2022): movement follows loudness and pitch, stressed
syllables get a nod, and most of it happens between 0.5 and 2 Hz. A posture, roll included, is held for some seconds and
over short pauses; in long ones the head comes back to rest.
All rows are prosody frames, 100 a second; angles are degrees in the order pitch, yaw, roll of `face/head_pose.py`.

Sizes of postures were chosen for the deviation of measured speakers' heads, of which this makes three quarters. What
other numbers without a source were tuned on is not recorded.
"""

from __future__ import annotations

import numpy as np

from ...motion.random_streams import stream, wandering
from .prosody import RATE, Prosody, gaussian

MAX_DEGREES = 11.0
"""No angle of the speech movement passes this at amount 1."""

_NOD_DEGREES = 4.0
_PITCH_DEGREES_PER_SEMITONE = 0.45
_POSTURE_DEGREES = np.array([3.4, 5.0, 2.8])
_POSTURE_SECONDS, _WAITS = (1.3, 3.2), 0.35
"""How long a posture is held, give or take the time to a phrase's beginning near by."""
_TURN_SECONDS = 0.26
"""Standard deviation of the way from one posture to the next."""
_HELD_PAUSE = 1.5
"""Seconds of a pause over which a posture is held."""
_RESTLESS_DEGREES = np.array([0.7, 0.8, 0.6])
_DRIFT_DEGREES = np.array([0.35, 0.5, 0.3])
_DRIFT_CM = np.array([0.06, 0.05, 0.1])


def speech_rotation(prosody: Prosody, seed: int, nod: float = 1.0) -> np.ndarray:
    """Angles (T, 3) of what the head does because of the speech; 0 in silence. `nod` scales the nods on stresses."""
    talking = gaussian(_turn_of_speech(prosody), 0.2 * RATE)
    total = _postures(prosody, stream(seed, "head posture"))
    restless = wandering(stream(seed, "head restlessness"), prosody.frames, RATE, 0.8, 3) * _RESTLESS_DEGREES
    sway = _band(prosody.loudness, prosody.speech) / 6
    restless[:, 1] += 0.9 * sway * _turns(prosody, stream(seed, "head sway"))
    restless[:, 2] += 0.6 * sway * _turns(prosody, stream(seed, "head tilt"))
    total += restless * talking[:, None]
    # A rising voice lifts the chin, a stress lowers it.
    total[:, 0] -= _PITCH_DEGREES_PER_SEMITONE * np.clip(_band(prosody.pitch, prosody.speech), -6, 6)
    total[:, 0] += nod * _nods(prosody, stream(seed, "nods"))
    return MAX_DEGREES * np.tanh(gaussian(total, 0.045 * RATE) / MAX_DEGREES)


def resting_drift(frames: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Angles (T, 3) and translation (T, 3) in cm of a head at rest: slow and small."""
    random = stream(seed, "drift")
    slow = gaussian(wandering(random, frames, RATE, 4.0, 6), 0.3 * RATE)
    slow = 2 * np.tanh(slow / 2)
    return slow[:, :3] * _DRIFT_DEGREES, slow[:, 3:] * _DRIFT_CM


def _turn_of_speech(prosody: Prosody) -> np.ndarray:
    """(T,) 1 from a phrase on to the end of the last one before a long pause, else 0."""
    speaking = np.zeros(prosody.frames)
    for start, end in _turns_at_speech(prosody):
        speaking[max(0, round((start - 0.15) * RATE)) : round(end * RATE)] = 1
    return speaking


def _turns_at_speech(prosody: Prosody) -> list[tuple[float, float]]:
    """Phrases (start, end) in seconds, joined over pauses in which a posture is held."""
    joined: list[tuple[float, float]] = []
    for start, end in prosody.phrases.tolist():
        if joined and start - joined[-1][1] < _HELD_PAUSE:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return joined


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
    """Where the head is held: for some seconds, often from a phrase's beginning on; at rest in long pauses."""
    held, place = np.zeros((prosody.frames, 3)), np.zeros(3)
    begins = prosody.phrases[:, 0]
    for start, end in _turns_at_speech(prosody):
        at = start
        while at < end - 0.2:
            place = _posture(random, place)
            held[max(0, round((at - 0.15) * RATE)) : round(end * RATE)] = place
            due = at + random.uniform(*_POSTURE_SECONDS)
            near = begins[np.abs(begins - due) < _WAITS]
            at = float(near[np.abs(near - due).argmin()]) if len(near) else due
    return gaussian(held, _TURN_SECONDS * RATE)


def _posture(random: np.random.Generator, before: np.ndarray) -> np.ndarray:
    """Angles (3,), mostly on the other side of those of the posture before: heads leave a place for another."""
    other = np.where(random.random(3) < 0.8, -np.sign(before), np.sign(before))
    side = np.where(before == 0, random.choice([-1.0, 1.0], 3), other)
    return side * random.uniform(0.5, 1.5, 3) * _POSTURE_DEGREES


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
