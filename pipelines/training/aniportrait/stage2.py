"""AniPortrait's second stage: clips. Motion modules are trained, everything else is frozen.

Published: 40,000 steps of 1 clip of 16 frames on each of 4 GPUs, rate 1e-5, from AnimateDiff's mm_sd_v15_v2.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ....models.checkpoints import expect_kind, read_checkpoint
from ....models.diffusion.loading import POSITIONS, derive_unet_config, load_unet
from ....models.diffusion.unet import UNet
from ..core.trainer import freeze
from ..diffusion.starting_weights import begin_motion
from .diffusion import AniPortraitDiffusion

FRAMES, STRIDES = 16, (1, 4)
"""Frames of a clip, and how far they are apart, one as likely as the other."""
_MOTION = ".motion_modules."


class AniPortraitStage2(AniPortraitDiffusion):
    """Trains the motion modules on clips."""

    title = "aniportrait-stage2"

    def __init__(self, *networks: Any, **options: Any) -> None:
        super().__init__(*networks, **options)
        freeze(self.denoising_unet, but=lambda name: _MOTION in name)

    def pose_features(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        return self.pose_guider(pixels, batch_statistics=True)

    def export(self) -> dict[str, dict[str, torch.Tensor]]:
        """motion_module in the published names."""
        state = self.denoising_unet.state_dict()
        return {"motion_module": {name: tensor for name, tensor in state.items() if _MOTION in name}}


def with_new_motion(path: str | Path) -> UNet:
    """A denoising UNet from a file without motion modules, which begin without effect: their last layers give zeros."""
    state = expect_kind(read_checkpoint(path), ("sd_unet",), "a denoising UNet without motion modules", path)
    network = UNet(replace(derive_unet_config(state), motion_frames=POSITIONS))
    begin_motion(network)
    motion = {name: tensor for name, tensor in network.state_dict().items() if _MOTION in name}
    return load_unet({**state, **motion}, path=path)
