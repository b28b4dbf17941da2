"""GFPGAN's file, tiny: 128 pixels and a few channels under every published name, in the published wrapper."""

from __future__ import annotations

from pathlib import Path

import torch
from talking_portrait.models.gfpgan import GFPGAN, GFPGANConfig

CONFIG = GFPGANConfig(unet=(4, 8, 8, 8, 8, 8), decoder=(8, 16, 16, 16, 16, 16), style=8)


def generated(network: GFPGAN, seed: int = 0) -> GFPGAN:
    """With weights that keep activations at a natural size."""
    generator = torch.Generator().manual_seed(seed)
    network = network.eval().requires_grad_(False)
    for tensor in network.state_dict().values():
        scale = tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.1
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * scale)
    return network


def gfpgan(seed: int = 0) -> GFPGAN:
    return generated(GFPGAN(CONFIG), seed)


def write_models(root: Path) -> None:
    """GFPGANv1.4.pth in `root`, a models folder."""
    write_file(root / "upscale_models" / "GFPGANv1.4.pth", CONFIG)


def write_file(path: Path, config: GFPGANConfig) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"params_ema": generated(GFPGAN(config)).state_dict()}, path)
