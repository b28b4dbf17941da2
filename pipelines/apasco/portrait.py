"""What APasco takes from a portrait, once for all clips: latents, face tokens, masks, the reference UNet's tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ...models.diffusion.attention import Bank, Reference
from ...models.diffusion.unet import UNet
from ..diffusion.latents import ImageCodec, check_precision
from ..finite import check_finite
from ..memory import HalvingBatches, loaded
from .pictures import portrait_picture
from .settings import Inputs, Networks, Settings


@dataclass(frozen=True)
class PreparedPortrait:
    """One portrait, ready for every clip.

    `picture` (H, W, 3) of the video's size, on the CPU. `tokens` (1 or 2, n, C) of the face, the unconditional ones
    first. `bank` the reference UNet's tokens of the portrait with each of them, `reference` the same ready to be
    read. `feature` (1 or 2, C, 1, h, w) of the face locator. `masks` (3, 1, h, w) for each resolution.
    """

    picture: torch.Tensor
    tokens: torch.Tensor
    bank: Bank
    reference: Reference
    feature: torch.Tensor
    masks: list[torch.Tensor]

    @property
    def rows(self) -> int:
        """Samples for each frame: an unconditional and a conditional one with guidance, else one."""
        return len(self.tokens)


def prepare_portrait(networks: Networks, codec: ImageCodec, inputs: Inputs, settings: Settings) -> PreparedPortrait:
    """Runs every network that does not depend on speech or time.

    Raises TalkingPortraitError where a network gives NaN.
    """
    picture = portrait_picture(inputs.portrait, settings.size)
    latents = codec.encode(picture[None])
    check_finite(latents, "The VAE")
    dtype = networks.dtype

    imageproj, device = loaded(networks.imageproj, torch.nn.Module)
    embedding = inputs.embedding.to(device, dtype)
    tokens = imageproj(embedding)
    if settings.has_guidance:
        tokens = torch.cat([imageproj(torch.zeros_like(embedding)), tokens])

    located = inputs.masks.located(settings.size)
    locator, device = loaded(networks.face_locator, torch.nn.Module)
    feature = locator(located.to(device, dtype))
    if settings.has_guidance:
        feature = torch.cat([torch.zeros_like(feature), feature])

    bank = written(networks, latents.expand(len(tokens), -1, -1, -1), tokens)
    unet, device = loaded(networks.denoising_unet, UNet)
    reference = unet.read_bank(
        {name: x.to(device) for name, x in bank.items()},
        unconditional_rows=len(tokens) - 1,
        order=_order(settings),
        rounding=settings.rounding,
    )
    levels = inputs.masks.levels(settings.latent_size, len(unet.config.channels))
    masks = [mask.to(device, dtype) for mask in levels]
    return PreparedPortrait(picture, tokens, bank, reference, feature, masks)


def _order(settings: Settings) -> tuple[int, ...]:
    """Which picture each conditional frame attends to, of the two that differ in face tokens, if there are two."""
    if not settings.has_guidance:
        return ()
    each, last = 1 + settings.past_frames, settings.clip
    if settings.mixed_rows:
        # The published program tiles the pictures of both samples over rows in which each sample's frames lie together.
        rows = (0, each % 2)
        return tuple(rows[(last + frame) % 2] for frame in range(last))
    return (1,) * last


def written(networks: Networks, latents: torch.Tensor, tokens: torch.Tensor) -> Bank:
    """The reference UNet's tokens of clean pictures (n, 4, h, w), each with its own face tokens."""
    unet, device = loaded(networks.reference_unet, UNet)
    check_precision(device, networks.dtype)
    pictures, faces = latents[:, :, None].to(device, networks.dtype), tokens.to(device)
    batches = HalvingBatches(len(pictures), "picture")
    parts = list(batches.each(len(pictures), lambda start, end: unet.write_bank(pictures[start:end], faces[start:end])))
    bank = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    for values in bank.values():
        check_finite(values, "The reference UNet")
    return bank


def with_motion(
    portrait: PreparedPortrait,
    networks: Networks,
    codec: ImageCodec,
    frames: torch.Tensor | None,
    settings: Settings,
) -> Reference:
    """The reference of one clip: the portrait, and the `frames` (n, H, W, 3) before the clip; None before the first.

    Before the first clip the portrait stands for them, whose bank is there already.
    """
    faces = _faces_of_motion(portrait.rows, settings)
    if frames is None:
        bank = {name: tokens[faces] for name, tokens in portrait.bank.items()}
    else:
        # A frame with the same tokens in both samples is encoded once.
        latents = codec.encode(frames)
        check_finite(latents, "The VAE")
        wanted = [(row % settings.past_frames, face) for row, face in enumerate(faces)]
        distinct = sorted(set(wanted))
        new = written(
            networks, latents[[frame for frame, _ in distinct]], portrait.tokens[[face for _, face in distinct]]
        )
        places = [distinct.index(pair) for pair in wanted]
        bank = {name: tokens[places] for name, tokens in new.items()}
    unet, device = loaded(networks.denoising_unet, UNet)
    moved = {name: tokens.to(device) for name, tokens in bank.items()}
    motion = unet.read_motion(moved, settings.past_frames, rounding=settings.rounding)
    return replace(portrait.reference, motion=motion)


def _faces_of_motion(rows: int, settings: Settings) -> list[int]:
    """Which of the face tokens go with each frame before a clip, sample by sample."""
    each = 1 + settings.past_frames
    if not settings.mixed_rows:
        return [row // each for row in range(rows * each) if row % each]
    # The published program tiles both samples' tokens over rows in which each sample's pictures lie together.
    return [row % rows for row in range(rows * each) if row % each]
