"""The speech features that systems trained for one person take: one row for each frame of video, of any recording."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Literal, Protocol

import torch

from ...models.speech.encoder import SpeechEncoder
from ..audio.mfcc import mfcc, video_mfcc_by_frames
from ..audio.mouth_states import NAME, shipped_encoder
from ..audio.speech_features import encode
from ..timing import frame_count, frame_end
from ..types import Audio, Progress, SpeechFeatures, Timing, no_progress

MFCC: Literal["mfcc-audiodvp"] = "mfcc-audiodvp"
"""AudioDVP's windows of MFCC, (frames, 28, 12), in place of an encoder; persons of earlier versions have them."""


class FrameEncoder(Protocol):
    """What computes speech features of its own kind, which `name` tells from others, at a rate of video."""

    @property
    def name(self) -> str: ...

    def encode(self, audio: Audio, fps: Fraction, *, progress: Progress = ...) -> SpeechFeatures: ...

    def by_frames(self, audio: Audio, fps: Fraction) -> Callable[[range], torch.Tensor]: ...


Encoder = SpeechEncoder | FrameEncoder | Literal["mfcc-audiodvp"]
QUIET = 10 ** (-60 / 20)
"""Sound whose largest sample is below -60 dB of full scale holds no speech; recordings that are far too quiet reach
-40."""


def speech_features(
    audio: Audio,
    fps: Fraction,
    frames: int | None = None,
    encoder: Encoder | None = None,
    *,
    progress: Progress = no_progress,
) -> SpeechFeatures:
    """Speech features at `fps`, for `frames` frames or all that the audio lasts.

    By default the states of the shipped mouth network's acoustic encoder, (frames, 1, 384); of a speech encoder the
    last one, (frames, 1, channels). What is missing at the end is the last row again.
    """
    encoder = encoder or shipped_encoder()
    if frames is None:
        frames = frame_count(audio.samples, audio.sample_rate, fps)
    if isinstance(encoder, SpeechEncoder):
        features = encode(audio, encoder, fps=fps, timing="resampled", layers="last", progress=progress)
    elif isinstance(encoder, str):
        features = mfcc(audio, recipe="audiodvp", fps=fps, progress=progress)
    else:
        features = encoder.encode(audio, fps, progress=progress)
    rows = torch.arange(frames).clamp(max=features.frames - 1)
    return replace(features, states=features.states[rows])


def features_by_frames(audio: Audio, fps: Fraction, encoder: Encoder) -> Callable[[range], SpeechFeatures]:
    """What gives `speech_features` of any consecutive frames, without computing the others.

    They are those of the whole, within rounding, but for a speech encoder's, whose frames attend to all sound that is
    taken at once: give it some around the frames that count.
    """
    if isinstance(encoder, SpeechEncoder):

        def encoded(frames: range) -> SpeechFeatures:
            begin, end = (frame_end(number, audio.sample_rate, fps) for number in (frames.start, frames.stop))
            end = max(end, begin + audio.sample_rate // 10)  # what is shorter has no features
            return speech_features(Audio(audio.waveform[:, begin:end], audio.sample_rate), fps, len(frames), encoder)

        return encoded
    states = video_mfcc_by_frames(audio, fps) if isinstance(encoder, str) else encoder.by_frames(audio, fps)
    name = encoder_name(encoder)
    timing: Timing = "stock" if isinstance(encoder, str) else "resampled"
    return lambda frames: SpeechFeatures(states(frames), fps, name, timing)


def encoder_name(encoder: Encoder) -> str:
    """The name that features of this encoder have."""
    return encoder if isinstance(encoder, str) else encoder.name


def needs_no_file(model: str) -> bool:
    """Whether features of this name are computed without a speech encoder that the user has loaded."""
    return model == MFCC or model.startswith(f"{NAME}-")


def is_silent(audio: Audio) -> bool:
    """Whether a recording holds no sound at all, or next to none."""
    return not audio.samples or float(audio.waveform.abs().max()) < QUIET
