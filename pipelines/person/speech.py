"""The speech features that systems trained for one person take: one row for each frame of video, of any recording."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import torch

from ...models.speech.encoder import SpeechEncoder
from ..audio.mfcc import mfcc
from ..audio.speech_features import encode
from ..timing import frame_count
from ..types import Audio, Progress, SpeechFeatures, no_progress

QUIET = 10 ** (-60 / 20)
"""Sound whose largest sample is below -60 dB of full scale holds no speech; recordings that are far too quiet reach
-40."""


def speech_features(
    audio: Audio,
    fps: Fraction,
    frames: int | None = None,
    encoder: SpeechEncoder | None = None,
    *,
    progress: Progress = no_progress,
) -> SpeechFeatures:
    """Speech features at `fps`, for `frames` frames or all that the audio lasts.

    Without an encoder AudioDVP's windows of MFCC, (frames, 28, 12), which need no file; with one the last of its hidden
    states, (frames, 1, channels). What lacks at the end is the last row again.
    """
    if frames is None:
        frames = frame_count(audio.samples, audio.sample_rate, fps)
    if encoder is None:
        features = mfcc(audio, recipe="audiodvp", fps=fps, progress=progress)
    else:
        features = encode(audio, encoder, fps=fps, timing="resampled", layers="last", progress=progress)
    rows = torch.arange(frames).clamp(max=features.frames - 1)
    return replace(features, states=features.states[rows])


def is_silent(audio: Audio) -> bool:
    """Whether a recording holds no sound at all, or next to none."""
    return not audio.samples or float(audio.waveform.abs().max()) < QUIET
