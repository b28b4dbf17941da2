"""Stable Diffusion 1.x's VAE: without a host's own, and any that answers to ComfyUI's method names as a codec."""

from __future__ import annotations

from typing import Any

import torch

from ..memory import Managed, loaded
from .latents import LATENT_SCALE

LATENT_CHANNELS = 4


class VaeCodec:
    """An `ImageCodec` from a VAE with ComfyUI's `encode` and `decode`, whose latents are not scaled."""

    def __init__(self, vae: Any) -> None:
        self.vae = vae

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.vae.encode(pictures) * LATENT_SCALE

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.vae.decode(latents.float() / LATENT_SCALE).to("cpu", torch.float32)


class LoadedVae:
    """VAE without ComfyUI: pictures (B, H, W, 3) in 0..1 to latents (B, 4, H / 8, W / 8), unscaled, and back.

    `memory` manages the network that `models/diffusion/vae.py` loads.
    """

    latent_channels = LATENT_CHANNELS

    def __init__(self, memory: Managed) -> None:
        self.memory = memory

    @torch.no_grad()
    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """The distribution's mean."""
        network: Any
        network, device = loaded(self.memory, torch.nn.Module)
        pixels = pictures[..., :3].movedim(-1, 1).to(device) * 2 - 1
        return network.encode(pixels).latent_dist.mean.cpu()

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        network: Any
        network, device = loaded(self.memory, torch.nn.Module)
        pixels = network.decode(latents.to(device)).sample
        return (pixels / 2 + 0.5).clamp(0, 1).movedim(1, -1).cpu()
