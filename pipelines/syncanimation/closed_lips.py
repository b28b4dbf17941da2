"""Lips that close where nothing is said for long.

What opens a mouth is the code that the head's field makes of the speech around a frame. In the pauses of a training
video a mouth is often open, and without this it would stay so for as long as a silence lasts.
"""

from __future__ import annotations

import numpy as np
import torch

from ...models.syncanimation.audio_nets import speech_windows
from ...models.syncanimation.rendering.fields import HeadField
from ..audio.silence import silence_weight
from ..person.closed_mouth import LIPS_AND_EYES, least_open
from ..types import Audio
from .person_model import PersonModel


@torch.no_grad()
def closed_speech_code(
    head: HeadField, features: torch.Tensor, landmarks: torch.Tensor, frames: np.ndarray
) -> torch.Tensor:
    """The mean code (32,) of those of the `frames` in which the person's lips are least apart.

    `features` (N, C, S) and `landmarks` (N, 68, 2) are of all frames of the video.
    """
    rows = torch.from_numpy(frames)
    shut = rows[least_open(landmarks[rows][:, list(LIPS_AND_EYES)])]
    return head.encode_audio(speech_windows(features, shut)).mean(0)


def closing(model: PersonModel, audio: Audio, *, wanted: bool = True) -> torch.Tensor:
    """How far the mouth of each frame of `audio` (F,) is closed, in 0..1; not at all where the model has no code."""
    frames = model.frames_for(audio)
    if not wanted or model.closed_code is None:
        return torch.zeros(frames)
    return torch.from_numpy(silence_weight(audio, frames, model.video.fps)).float()


def closed(codes: torch.Tensor, model: PersonModel, weight: torch.Tensor) -> torch.Tensor:
    """Speech codes (n, 32) with that of the closed mouth in their place, as far as `weight` (n,) says."""
    return codes if model.closed_code is None else torch.lerp(codes, model.closed_code, weight[:, None])
