"""AniPortrait's first stage: single pictures. The reference UNet, the denoising UNet and the pose guider learn.

Published: 300,000 steps of 2 pictures on each of 4 GPUs, rate 1e-5, from Stable Diffusion 1.5.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ....models.aniportrait.pose_guider import PoseGuider, PoseGuiderConfig
from ..core.trainer import freeze
from .diffusion import AniPortraitDiffusion

_LAST_BLOCK = "up_blocks.3."


class AniPortraitStage1(AniPortraitDiffusion):
    """Trains both UNets and the pose guider on single pictures.

    The reference UNet's last block is frozen: hardly any of its output is used.
    """

    title = "aniportrait-stage1"

    def __init__(self, *networks: Any, **options: Any) -> None:
        super().__init__(*networks, **options)
        freeze(self.reference_unet, but=lambda name: not name.startswith(_LAST_BLOCK))
        freeze(self.denoising_unet, but=lambda name: True)
        freeze(self.pose_guider, but=lambda name: True)

    def pose_features(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        # Modules in training mode use the batch's own statistics and gather them for inference without a batch.
        return self.pose_guider(pixels, batch_statistics=False)

    def export(self) -> dict[str, dict[str, torch.Tensor]]:
        """In the published names: reference_unet, denoising_unet, pose_guider."""
        names = ("reference_unet", "denoising_unet", "pose_guider")
        return {name: getattr(self, name).state_dict() for name in names}


def new_pose_guider(channels: int) -> PoseGuider:
    """A pose guider whose last layer is zero, so that at first the UNet predicts what it did without it."""
    guider = PoseGuider(PoseGuiderConfig(channels))
    assert guider.final_proj.bias is not None
    nn.init.zeros_(guider.final_proj.weight)
    nn.init.zeros_(guider.final_proj.bias)
    return guider
