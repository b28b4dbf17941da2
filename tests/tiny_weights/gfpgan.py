"""GFPGAN's file, tiny: 128 pixels and a few channels under every published name, in the published wrapper."""

from __future__ import annotations

from pathlib import Path

import torch
from talking_portrait.models.gfpgan import GFPGAN, GFPGANConfig

CONFIG = GFPGANConfig(unet=(4, 8, 8, 8, 8, 8), decoder=(8, 16, 16, 16, 16, 16), style=8)


def gfpgan(seed: int = 0) -> GFPGAN:
    generator = torch.Generator().manual_seed(seed)
    network = GFPGAN(CONFIG).eval().requires_grad_(False)
    for tensor in network.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
    return network


def write_models(root: Path) -> None:
    """GFPGANv1.4.pth in `root`, a models folder."""
    folder = root / "upscale_models"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"params_ema": gfpgan().state_dict()}, folder / "GFPGANv1.4.pth")
