"""Stable Diffusion 1.x's VAE: without a host's own, and any that answers to ComfyUI's method names as a codec."""

from __future__ import annotations

from typing import Any

import torch

from ..errors import TalkingPortraitError, quoted
from ..memory import Managed, loaded
from ..progress import check_between_layers
from .latents import LATENT_SCALE, LATENT_SIDE

LATENT_CHANNELS = 4


class VaeCodec:
    """An `ImageCodec` from a VAE with ComfyUI's `encode` and `decode`, whose latents are not scaled."""

    def __init__(self, vae: Any) -> None:
        self.vae = vae
        check_between_layers(getattr(vae, "first_stage_model", None))

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """Raises TalkingPortraitError where the VAE gives no latents of Stable Diffusion 1.x."""
        latents = self.vae.encode(pictures)
        height, width = (side // LATENT_SIDE for side in pictures.shape[1:3])
        _check_result(latents, (len(pictures), LATENT_CHANNELS, height, width), "latents")
        return latents * LATENT_SCALE

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Raises TalkingPortraitError where the VAE gives no pictures of these latents."""
        pictures = self.vae.decode(latents.float() / LATENT_SCALE)
        height, width = (side * LATENT_SIDE for side in latents.shape[2:])
        _check_result(pictures, (len(latents), height, width, 3), "pictures")
        return pictures.to("cpu", torch.float32)


def _check_result(values: Any, shape: tuple[int, ...], what: str) -> None:
    if not isinstance(values, torch.Tensor) or values.shape != shape:
        given = f"the shape {tuple(values.shape)}" if isinstance(values, torch.Tensor) else quoted(values)
        raise TalkingPortraitError(
            f"The VAE gives {what} of {given}, but the shape {shape} is expected; load sd-vae-ft-mse with Load VAE."
        )


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
