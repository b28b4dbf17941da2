"""AniPortrait's Audio2Pose: speech to head movement, each frame from those before it.

It learns with the true poses before each frame in place of its own ("teacher forcing"). Of the published training as
little is known as of Audio2Mesh's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ....models.aniportrait.audio2pose import Audio2Pose
from ....models.diffusion.motion_module import sinusoidal_table
from ..core.trainer import Batch, Trainer
from .audio_encoder import encode_waves, freeze_convolutions, published_spelling

FRAMES = 150
"""Of a slice: the five seconds that sampling makes at once."""
DROPOUT = 0.1
_TABLE = 600
"""Length of the table of positions in the published file. It is computed here for any length."""


class Audio2PoseTrainer(Trainer):
    """Trains Audio2Pose on slices of prepared clips: speech to head pose, each frame from those before it."""

    title = "audio2pose"

    def __init__(self, model: Audio2Pose, *, dropout: float = DROPOUT) -> None:
        super().__init__()
        self.model, self.dropout = model, dropout
        freeze_convolutions(model)

    def loss(self, batch: Batch, step: int) -> torch.Tensor:
        poses = batch["poses"]
        states = encode_waves(self.model.audio_encoder, batch["wave"], poses.shape[1])
        guess = self.model.teach(states, poses, batch["identity"], dropout=self.dropout)
        return F.l1_loss(guess.float(), poses)

    def export(self) -> dict[str, dict[str, torch.Tensor]]:
        state = published_spelling(self.model.state_dict())
        return {"audio2pose": state | {"PPE.pe": sinusoidal_table(_TABLE, self.model.in_fn.out_features)}}
