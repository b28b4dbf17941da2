"""What the mouth does where nothing is said for long: it closes.

A person's pauses in a recording of speech are short, and the mouth stays open in many of them, to breathe in and for
the next word. The network learns that, and would hold it for as long as a silence lasts.
"""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import torch

from ...models.curves import smoothstep
from ...models.face.landmarks_68 import LANDMARKS_68
from ...models.speech.mouth_network import FRAME_RATE, speech_level
from ..audio.mouth_states import readings
from ..audio.speech_activity import SPOKEN, speech_activity
from ..audio.waveform import mono
from ..timing import sample_index
from ..types import Audio
from .fitted_face import FittedFace

QUIET_DB = 35.0
"""Below the level of a sound without any speech; what is quieter in it is silence."""
AFTER, CLOSING, OPENING = 0.7, 0.4, 0.2
"""Seconds of silence after which lips close, and how long they take to close, and to open again before speech."""
CLOSED = 0.05
"""Part of the person's frames, those with the least open lips, whose mean is the closed mouth."""
INNER_LIPS, EYES = (62, 66), (36, 45)
"""Of the 68 landmarks: the middles of the lips, and the outer corners of the eyes."""


def closed_in_silence(expression: torch.Tensor, audio: Audio, face: FittedFace, fps: Fraction) -> torch.Tensor:
    """Coefficients (F, K) of the frames of `audio`, with the person's closed mouth in long silence."""
    weight = torch.from_numpy(silence_weight(audio, len(expression), fps)).to(expression)[:, None]
    return expression + weight * (closed_mouth(face).to(expression) - expression)


def closed_mouth(face: FittedFace) -> torch.Tensor:
    """The mean expression (K,) of the frames in which the person's lips are least apart."""
    model = face.face_model
    places = [*INNER_LIPS, *EYES]
    if len(model.landmark_index) > len(LANDMARKS_68):  # MediaPipe's, of a person's own mesh
        places = [LANDMARKS_68[place] for place in places]
    corners = model.landmark_index[places]
    mean = model.geo_mean.view(-1, 3)[corners]
    bases = model.exp_base.view(-1, 3, model.exp_base.shape[-1])[corners]
    upper, lower, left, right = (mean[i] + face.expression @ bases[i].T for i in range(4))
    opening = (upper - lower).norm(dim=1) / (left - right).norm(dim=1)
    least = opening.argsort()[: max(1, round(CLOSED * len(opening)))]
    return face.expression[least].mean(0)


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
