"""The published speech features: ATnet's, where the user has its file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch

from ...models.audiodvp.audio_features import AudioFeatures
from ...models.audiodvp.loading import build_audio_features
from ...models.checkpoints import identify, read_checkpoint
from ...models.speech.loading import load_speech_encoder
from ..audio.mfcc import mfcc, video_mfcc_by_frames
from ..files.output_paths import as_path
from ..person.speech import Encoder
from ..types import Audio, Progress, SpeechFeatures, no_progress

CHUNK = 500
"""Frames that are computed at once."""


@dataclass(frozen=True)
class Atnet:
    """ATnet's audio branch as an encoder of speech."""

    network: AudioFeatures
    name: str = "atnet"

    def encode(self, audio: Audio, fps: Fraction, *, progress: Progress = no_progress) -> SpeechFeatures:
        """(frames, 1, 256) at `fps`, none of them negative."""
        windows = mfcc(audio, recipe="audiodvp", fps=fps).states
        return SpeechFeatures(self._encoded(windows, progress), fps, self.name, "resampled")

    def by_frames(self, audio: Audio, fps: Fraction) -> Callable[[range], torch.Tensor]:
        """What gives the states (n, 1, 256) of any consecutive frames of a recording."""
        windows = video_mfcc_by_frames(audio, fps)
        return lambda frames: self._encoded(windows(frames))

    @torch.no_grad()
    def _encoded(self, windows: torch.Tensor, progress: Progress = no_progress) -> torch.Tensor:
        """(n, 28, 12) to (n, 1, 256)."""
        parts = []
        for start in range(0, len(windows), CHUNK):
            parts.append(self.network(windows[start : start + CHUNK]))
            progress(min(start + CHUNK, len(windows)), len(windows))
        return torch.cat(parts)[:, None]


def load_encoder(path: str | Path | None) -> Encoder | None:
    """ATnet, wav2vec2 or HuBERT, by what the file is; None for None.

    Raises TalkingPortraitError as `load_speech_encoder`.
    """
    if path is None:
        return None
    path = as_path(path, "speech encoder")
    if path.is_file():
        state = read_checkpoint(path, mapped=True)
        kind = identify(state)
        if kind is not None and kind.name == "atnet":
            return Atnet(build_audio_features(state, path=path))
    return load_speech_encoder(path)
