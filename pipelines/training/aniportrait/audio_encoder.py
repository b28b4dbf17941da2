"""A speech encoder in training: the numbers of inference, with gradients, for slices of one length in a batch."""

from __future__ import annotations

from typing import Any

import torch

from ....models.speech.encoder import resample_time
from ..core.trainer import freeze

_OLD_SPELLING = {
    "pos_conv_embed.conv.parametrizations.weight.original0": "pos_conv_embed.conv.weight_g",
    "pos_conv_embed.conv.parametrizations.weight.original1": "pos_conv_embed.conv.weight_v",
}
"""Weight norm as the published files spell it."""


def freeze_convolutions(model: Any) -> None:
    """Freezes the convolutions of a model's `audio_encoder`, as published, and its unused mask; the rest is trained."""
    unmoved = ("audio_encoder.feature_extractor.", "audio_encoder.masked_spec_embed")
    freeze(model, but=lambda name: not name.startswith(unmoved))


def encode_waves(audio_encoder: Any, waves: torch.Tensor, frames: int) -> torch.Tensor:
    """Last hidden states (B, frames, channels) of prepared waves (B, samples) at 16 kHz."""
    with torch.no_grad():
        features = audio_encoder.feature_extractor(waves).transpose(1, 2)
    hidden = audio_encoder.feature_projection(resample_time(features, frames))
    hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    return audio_encoder.encoder(hidden)[0]


def published_spelling(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A model's tensors under the names of the published files."""
    renamed = {}
    for name, tensor in state.items():
        new = name
        for now, old in _OLD_SPELLING.items():
            new = new.replace(now, old)
        renamed[new] = tensor
    return renamed
