"""ComfyUI's VAE and CLIP_VISION, checked, as diffusion pipelines use them."""

from __future__ import annotations

from typing import Any

from ..pipelines.diffusion.latents import ImageCodec, PictureEncoder
from ..pipelines.errors import TalkingPortraitError
from .checked_node import described


def codec(vae: Any, name: str = "vae") -> ImageCodec:
    """VAE as a codec. Raises TalkingPortraitError, naming the input, for what is no VAE or another system's."""
    from ..pipelines.diffusion.vae import LATENT_CHANNELS, VaeCodec

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
    return VaeCodec(vae)


def picture_encoder(clip_vision: Any, name: str = "clip_vision") -> PictureEncoder:
    """CLIP_VISION as an encoder. Raises TalkingPortraitError, naming the input, for what is none."""
    from ..pipelines.aniportrait.clip_encoder import ClipEncoder

    if not callable(getattr(clip_vision, "encode_image", None)):
        raise TalkingPortraitError(
            f'The input "{name}" is {described(clip_vision)}, but a CLIP vision encoder is expected; connect Load CLIP '
            "Vision with the image encoder of sd-image-variations."
        )
    return ClipEncoder(clip_vision)
