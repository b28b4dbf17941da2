"""From speech to the expression of each frame."""

from __future__ import annotations

import torch

from ...models.audiodvp.speech_to_expression import SpeechToExpression
from ..types import SpeechFeatures

CHUNK = 1500
"""Frames whose expression is computed at once."""


def network_features(features: SpeechFeatures) -> torch.Tensor:
    """What the network takes of speech features: a row (channels) for each frame."""
    return features.states.flatten(1)


@torch.no_grad()
def predict_expression(network: SpeechToExpression, features: torch.Tensor, *, chunk: int = CHUNK) -> torch.Tensor:
    """Coefficients (T, K) of features (T, F); `chunk` changes nothing but memory."""
    parts = []
    for start in range(0, len(features), chunk):
        stop = min(start + chunk, len(features))
        first, last = max(0, start - network.context), min(len(features), stop + network.context)
        parts.append(network(features[None, first:last])[0, start - first : stop - first])
    return torch.cat(parts)
