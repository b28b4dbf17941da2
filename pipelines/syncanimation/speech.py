"""Speech features as SyncAnimation's networks take them, for a whole recording or piece by piece."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

from ..audio.mouth_states import MouthEncoder
from ..errors import TalkingPortraitError
from ..person.speech import MFCC, Encoder, features_by_frames
from ..timing import frame_count
from ..types import Audio, SpeechFeatures

CONTEXT_SECONDS, MOUTH_CONTEXT_SECONDS = 3, 15
"""Of sound before and after a piece that its motion is predicted from; features of the mouth network cost little."""
FIRST_PIECE, LONGEST_PIECE = 1, 16
"""Seconds; each piece is twice as long as the one before, so that the first frames come soon."""
_SHORTEST = 0.1
"""Seconds of sound that speech features need; shorter sound is followed by silence."""


@dataclass(frozen=True)
class SpeechScale:
    """The features that a person was trained on: the `model` they are of, `mean` and `scale` (C,) of each channel.

    `mouth_encoder` computes them where they are a mouth network's.
    """

    model: str
    mean: torch.Tensor
    scale: torch.Tensor
    mouth_encoder: MouthEncoder | None = None

    @classmethod
    def measure(cls, speech: SpeechFeatures, encoder: MouthEncoder | None, frames: np.ndarray) -> SpeechScale:
        """Of the frames that are trained on."""
        rows = speech.states[torch.from_numpy(frames)].flatten(0, 1)
        return cls(speech.model, rows.mean(0), rows.std(0).clamp(min=1e-6), encoder)

    def encoder(self, given: Encoder | None) -> Encoder:
        """What computes the features: the encoder that was `given`, or else the person's own.

        Raises TalkingPortraitError where one must be given.
        """
        own: Encoder | None = self.mouth_encoder or (MFCC if self.model == MFCC else None)
        if given is None and own is None:
            raise TalkingPortraitError(
                f"The model was trained on speech features of {self.model}, which needs that speech encoder; load it "
                "too."
            )
        return given or own  # type: ignore[return-value]

    def standardised(self, speech: SpeechFeatures) -> torch.Tensor:
        """(N, C, S) with mean 0 and deviation 1; S are the steps, or layers, of a frame.

        Raises TalkingPortraitError for features of another kind.
        """
        channels = speech.states.shape[-1]
        if speech.model != self.model or channels != len(self.mean):
            raise TalkingPortraitError(
                f"The speech features are {channels} channels of {speech.model}, but the model was trained on "
                f"{len(self.mean)} of {self.model}; load the speech encoder that the person was prepared with, or none "
                "where it was none."
            )
        return ((speech.states.float() - self.mean) / self.scale).transpose(1, 2)


@dataclass(frozen=True)
class SpeechPiece:
    """Frames `start` to `stop` of a recording, with the `features` (n, C, S) of those from `first` on and beyond."""

    start: int
    stop: int
    first: int
    features: torch.Tensor


def speech_pieces(
    audio: Audio, fps: Fraction, scale: SpeechScale, encoder: Encoder | None = None
) -> Iterator[SpeechPiece]:
    """All frames of a recording, in pieces that never hold more than some seconds of features."""
    silence = max(0, round(_SHORTEST * audio.sample_rate) - audio.samples)
    sound = Audio(torch.nn.functional.pad(audio.waveform, (0, silence)), audio.sample_rate)
    frames = frame_count(audio.samples, audio.sample_rate, fps)
    computed_by = scale.encoder(encoder)
    seconds_around = MOUTH_CONTEXT_SECONDS if isinstance(computed_by, MouthEncoder) else CONTEXT_SECONDS
    context = math.ceil(seconds_around * fps)
    features_of = features_by_frames(sound, fps, computed_by)
    start, seconds = 0, FIRST_PIECE
    while start < frames:
        stop = min(frames, start + math.ceil(seconds * fps))
        first, last = max(0, start - context), min(frames, stop + context)
        yield SpeechPiece(start, stop, first, scale.standardised(features_of(range(first, last))))
        start, seconds = stop, min(2 * seconds, LONGEST_PIECE)
