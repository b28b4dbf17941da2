"""Where nothing is said for long: there a mouth closes.

A person's pauses in a recording of speech are short, and the mouth stays open in many of them, to breathe in and for
the next word. A network that was trained on one person learns that, and would hold it for as long as a silence lasts.
"""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import torch

from ...models.curves import smoothstep
from ...models.speech.mouth_network import FRAME_RATE, speech_level
from ..timing import sample_index
from ..types import Audio
from .mouth_states import readings
from .speech_activity import SPOKEN, speech_activity
from .waveform import mono

QUIET_DB = 35.0
"""Below the level of a sound without any speech; what is quieter in it is silence."""
AFTER, CLOSING, OPENING = 0.7, 0.4, 0.2
"""Seconds of silence after which lips close, and how long they take to close, and to open again before speech."""


def silence_weight(audio: Audio, frames: int, fps: Fraction) -> np.ndarray:
    """How far the mouth of each frame (F,) is closed, in 0..1: 0 in speech and in pauses as speech has them.

    Silence is what has no speech: breath, the noise of a room, and music too. In a sound without any speech, as singing
    may be one to the network, it is what is quiet.
    """
    activity = readings(speech_activity(audio), FRAME_RATE, fps, range(frames)).max(axis=1)
    spoken = np.flatnonzero(activity >= np.mean(SPOKEN))
    if not len(spoken):
        spoken = np.flatnonzero(_loud(audio, frames, fps))
    if not len(spoken):
        return np.ones(frames)
    numbers = np.arange(frames)
    place = np.searchsorted(spoken, numbers)
    begin = 0.0 if spoken[0] <= AFTER * fps else -math.inf  # where long silence comes first, it begins closed
    since = (numbers - np.where(place > 0, spoken[np.maximum(place - 1, 0)], begin)) / float(fps)
    until = (np.where(place < len(spoken), spoken[np.minimum(place, len(spoken) - 1)], math.inf) - numbers) / float(fps)
    rising = np.clip((since - AFTER) / CLOSING, 0, 1)
    falling = np.clip(until / OPENING, 0, 1)
    weight = np.minimum(rising, falling)
    weight[spoken] = 0
    return smoothstep(0.0, 1.0, weight)


def _loud(audio: Audio, frames: int, fps: Fraction) -> np.ndarray:
    """Which frames (F,) are not quiet."""
    wave = mono(audio)
    wave = wave - wave.mean()  # a constant offset, as sound cards add it, is no sound
    edges = [min(sample_index(frame, audio.sample_rate, fps), len(wave)) for frame in range(frames + 1)]
    powers = [wave[start:stop].square().sum() / max(stop - start, 1) for start, stop in pairwise(edges)]
    level = 10 * torch.log10(torch.stack(powers) + 1e-14)
    return (level >= speech_level(level) - QUIET_DB).numpy()
