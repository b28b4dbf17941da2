"""AniPortrait's Audio2Mesh: speech to how a face moves from its rest.

What is known of the published training: the loss is the distance of each coordinate (L1), the speech encoder learns too
but for its convolutions, from random slices of about an hour of good speech. The rest is chosen to fit inference.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ....models.aniportrait.audio2mesh import Audio2Mesh
from ..core.trainer import Batch, Trainer
from .audio_encoder import encode_waves, freeze_convolutions, published_spelling

FRAMES = 150
"""Of a slice: five seconds."""


class Audio2MeshTrainer(Trainer):
    """Trains Audio2Mesh on slices of prepared clips: speech to vertex offsets."""

    title = "audio2mesh"

    def __init__(self, model: Audio2Mesh) -> None:
        super().__init__()
        self.model = model
        freeze_convolutions(model)

    def loss(self, batch: Batch, step: int) -> torch.Tensor:
        offsets = batch["offsets"]
        states = encode_waves(self.model.audio_encoder, batch["wave"], offsets.shape[1])
        return F.l1_loss(self.model(states).float(), offsets)

    def export(self) -> dict[str, dict[str, torch.Tensor]]:
        return {"audio2mesh": published_spelling(self.model.state_dict())}


def new_audio2mesh(audio_encoder: Any) -> Audio2Mesh:
    """A network that leaves every face at rest, around a wav2vec2 of transformers."""
    model = Audio2Mesh(audio_encoder)
    nn.init.zeros_(model.out_fn.weight)
    nn.init.zeros_(model.out_fn.bias)
    return model
