"""Audio2Mesh: speech to the moving shape of a face (AniPortrait, section 3.1)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..face.face_mesh import VERTICES
from ..speech.encoder import SpeechEncoder

FPS = 30
"""Frames a second of everything that AniPortrait derives from audio."""


class Audio2Mesh(nn.Module):
    """A fine-tuned wav2vec2 and two linear layers.

    `audio_encoder` is a wav2vec2 of transformers; its states enter `forward` at 30 frames a second.
    """

    def __init__(self, audio_encoder: Any, width: int = 512) -> None:
        super().__init__()
        self.audio_encoder = audio_encoder
        self.in_fn = nn.Linear(audio_encoder.config.hidden_size, width)
        self.out_fn = nn.Linear(width, 3 * VERTICES)

    @property
    def encoder(self) -> SpeechEncoder:
        """The wav2vec2 as an encoder of speech at 30 frames a second."""
        return SpeechEncoder(self.audio_encoder, "aniportrait-audio2mesh")

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """The encoder's last hidden states (..., frames, channels) to offsets (..., frames, 468, 3).

        Offsets are in cm in MediaPipe's canonical head frame, to be added to the face at rest.
        """
        return self.out_fn(self.in_fn(states)).unflatten(-1, (VERTICES, 3))
