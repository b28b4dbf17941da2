"""What AniPortrait takes from a portrait, once for all frames: latents, CLIP's token, the reference UNet's bank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch

from ...models.diffusion.attention import Bank
from ...models.diffusion.unet import UNet, UNetConfig
from ..diffusion.latents import ImageCodec, PictureEncoder, check_precision
from ..errors import TalkingPortraitError
from ..finite import check_finite
from ..memory import loaded
from ..types import FaceTrack
from .pictures import reference_picture
from .settings import Networks

SAME_SHAPE = 0.02
"""Sides over each other that differ by no more than this part count as equal."""


@dataclass(frozen=True)
class PreparedPortrait:
    """`token` (1, 1, C) and `bank`, on the reference UNet's device, in the networks' precision."""

    token: torch.Tensor
    bank: Bank


@torch.no_grad()
def prepare_portrait(
    networks: Networks, codec: ImageCodec, encoder: PictureEncoder, portrait: torch.Tensor, size: tuple[int, int]
) -> PreparedPortrait:
    """`portrait` (H, W, 3) in 0..1, squeezed to `size` (height, width).

    Raises TalkingPortraitError for one that is no picture, and where the VAE, CLIP or the network give NaN.
    """
    if portrait.ndim != 3 or portrait.shape[-1] != 3 or 0 in portrait.shape:
        raise TalkingPortraitError(
            f"The portrait is a tensor of the shape {tuple(portrait.shape)}, but (height, width, 3) is expected."
        )
    latents = codec.encode(reference_picture(portrait.float().cpu(), size))
    embedding = encoder.embed(portrait)
    check_finite(latents, "The VAE")
    check_finite(embedding, "CLIP's image encoder")

    height, width = latents.shape[-2:]
    config = cast(UNet, networks.reference_unet.module).config
    _check_token(embedding, config)
    memory = height * width * config.channels[0] * 24 * networks.dtype.itemsize
    unet, device = loaded(networks.reference_unet, UNet, memory)
    check_precision(device, networks.dtype)
    token = embedding[:, None].to(device, networks.dtype)
    bank = unet.write_bank(latents[:, :, None].to(device, networks.dtype), token)
    for tokens in bank.values():
        check_finite(tokens, "The reference UNet")
    return PreparedPortrait(token, bank)


def check_landmarks(portrait: torch.Tensor, track: FaceTrack) -> None:
    """Raises TalkingPortraitError for landmarks of a picture of another shape than the portrait (H, W, 3).

    Another size is fine: drawings are stretched with the portrait.
    """
    (height, width), (track_height, track_width) = portrait.shape[:2], track.image_size
    if abs(track_height * width - track_width * height) > SAME_SHAPE * track_height * width:
        raise TalkingPortraitError(
            f"The landmarks are of a picture of {track_width} x {track_height} pixels, but the portrait is {width} x "
            f"{height}; detect them in this very portrait."
        )


def _check_token(embedding: torch.Tensor, config: UNetConfig) -> None:
    if embedding.shape[-1] != config.context:
        raise TalkingPortraitError(
            f"CLIP's embedding has {embedding.shape[-1]} values, but AniPortrait's networks expect "
            f"{config.context}; load the image encoder ViT-L/14 with its projection."
        )
