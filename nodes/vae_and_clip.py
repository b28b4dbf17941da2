"""ComfyUI's VAE and CLIP_VISION as diffusion pipelines use them, and what stands in for both without ComfyUI.

The stand-ins have ComfyUI's method names, so that one adapter is enough for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..pipelines.diffusion.latents import LATENT_SCALE, ImageCodec, PictureEncoder
from ..pipelines.errors import TalkingPortraitError
from ..pipelines.memory import loaded
from . import host
from .checked_node import described

LATENT_CHANNELS = 4


def codec(vae: Any, name: str = "vae") -> ImageCodec:
    """VAE as a codec. Raises TalkingPortraitError, naming the input, for what is no VAE or another system's."""
    if not callable(getattr(vae, "encode", None)) or not callable(getattr(vae, "decode", None)):
        raise TalkingPortraitError(
            f'The input "{name}" is {described(vae)}, but a VAE is expected; connect Load VAE with sd-vae-ft-mse.'
        )
    channels = getattr(vae, "latent_channels", LATENT_CHANNELS)
    if channels != LATENT_CHANNELS or getattr(vae, "latent_dim", 2) != 2:
        raise TalkingPortraitError(
            f'The VAE at the input "{name}" makes latents of {channels} channels, but Stable Diffusion 1.x\'s with '
            f"{LATENT_CHANNELS} is expected; load sd-vae-ft-mse."
        )
    return _Codec(vae)


def picture_encoder(clip_vision: Any, name: str = "clip_vision") -> PictureEncoder:
    """CLIP_VISION as an encoder. Raises TalkingPortraitError, naming the input, for what is none."""
    if not callable(getattr(clip_vision, "encode_image", None)):
        raise TalkingPortraitError(
            f'The input "{name}" is {described(clip_vision)}, but a CLIP vision encoder is expected; connect Load CLIP '
            "Vision with the image encoder of sd-image-variations."
        )
    return _Encoder(clip_vision)


class _Codec:
    def __init__(self, vae: Any) -> None:
        self.vae = vae

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.vae.encode(pictures) * LATENT_SCALE

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.vae.decode(latents.float() / LATENT_SCALE).to("cpu", torch.float32)


class _Encoder:
    def __init__(self, clip_vision: Any) -> None:
        self.clip_vision = clip_vision

    def embed(self, portrait: torch.Tensor) -> torch.Tensor:
        from ..pipelines.aniportrait.pictures import CLIP_SIZE
        from ..pipelines.image.resizing import resized_on_bytes

        # Resized to a square as published; ComfyUI's own resizing would cut the sides off.
        picture = resized_on_bytes(portrait, (CLIP_SIZE, CLIP_SIZE), "BICUBIC").movedim(1, -1)
        embedding = self.clip_vision.encode_image(picture)["image_embeds"]
        if not isinstance(embedding, torch.Tensor):
            raise TalkingPortraitError(
                "The CLIP vision encoder has no projection, which the networks expect; load the image encoder of "
                "sd-image-variations (ViT-L/14 with projection)."
            )
        return embedding.float()


class LoadedVae:
    """VAE without ComfyUI: pictures (B, H, W, 3) in 0..1 to latents (B, 4, H / 8, W / 8), unscaled, and back."""

    latent_channels = LATENT_CHANNELS

    def __init__(self, path: Path) -> None:
        from ..models.diffusion.vae import load_vae

        self.memory = host.ManagedModule(load_vae(path))

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


class LoadedClipVision:
    """CLIP_VISION without ComfyUI."""

    def __init__(self, path: Path) -> None:
        from ..models.diffusion.clip_vision import load_clip_vision

        self.memory = host.ManagedModule(load_clip_vision(path))

    @torch.no_grad()
    def encode_image(self, image: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Projected embeddings (B, C), as `image_embeds`, of pictures in its own size, (B, 224, 224, 3) in 0..1."""
        from ..pipelines.aniportrait.pictures import CLIP_MEAN, CLIP_STD

        pixels = (image - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)
        network, device = loaded(self.memory, torch.nn.Module)
        return {"image_embeds": network(pixel_values=pixels.movedim(-1, 1).to(device)).image_embeds.cpu()}
