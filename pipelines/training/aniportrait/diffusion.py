"""What AniPortrait's two stages of diffusion training share: they differ in the trained networks and in frames."""

from __future__ import annotations

from typing import Any

import torch

from ....models.aniportrait.pose_guider import PoseGuider
from ....models.diffusion.attention import Reference
from ....models.diffusion.unet import UNet
from ..core.trainer import Batch, Trainer, freeze
from ..diffusion.latents import (
    PICTURE_STEPS,
    contact_sheet,
    decoded_latents,
    guided_latents,
    noised,
    sampled_latents,
    unit_pixels,
)
from ..diffusion.loss import training_schedule, velocity_loss

UNCONDITIONAL = 0.1
"""Share of unconditional steps, without the reference picture, for classifier-free guidance."""


class AniPortraitDiffusion(Trainer):
    """The five networks, of which the VAE is diffusers' and CLIP's image encoder, with its projection, transformers'.

    Args:
        unconditional: share of steps without a reference.
        blank_token: what CLIP's token is in those steps: zeros, as sampling has it, or what CLIP makes of a picture
            of zeros, as the published networks were trained.
        recompute: less memory for more time, see `UNet.recompute`.
        picture_steps: denoising steps of a picture on the way.

    The networks get the reference in full precision, where sampling rounds it to half: a gradient would not survive
    that rounding.
    """

    def __init__(
        self,
        reference_unet: UNet,
        denoising_unet: UNet,
        pose_guider: PoseGuider,
        vae: Any,
        image_encoder: Any,
        *,
        unconditional: float = UNCONDITIONAL,
        blank_token: bool = False,
        recompute: bool = False,
        picture_steps: int = PICTURE_STEPS,
    ) -> None:
        super().__init__()
        self.reference_unet, self.denoising_unet = reference_unet, denoising_unet
        self.pose_guider, self.vae, self.image_encoder = pose_guider, vae, image_encoder
        self.unconditional, self.blank_token, self.picture_steps = unconditional, blank_token, picture_steps
        self.schedule = training_schedule()
        for unet in (reference_unet, denoising_unet):
            unet.recompute(recompute)
        for network in self.children():
            freeze(network)

    def loss(self, batch: Batch, step: int) -> torch.Tensor:
        clean = sampled_latents(self.vae, batch["frames"])
        noisy, noise, times = noised(clean, self.schedule)
        unconditional = bool(torch.rand(()) < self.unconditional)
        token = self.token(batch["clip_image"], unconditional)
        reference = None if unconditional else self.read(batch["reference"], token)
        pose = self.pose_features(unit_pixels(batch["drawings"]))
        prediction = self.denoising_unet(noisy, times.to(clean.device), token, pose=pose, reference=reference)
        return velocity_loss(prediction, clean, noise, times, self.schedule)

    @torch.no_grad()
    def token(self, pixels: torch.Tensor, unconditional: bool) -> torch.Tensor:
        """(B, 1, C) from CLIP's pixels (B, 3, 224, 224), or without the picture."""
        token = self.image_encoder(torch.zeros_like(pixels) if unconditional else pixels).image_embeds[:, None].float()
        return torch.zeros_like(token) if unconditional and self.blank_token else token

    def read(self, pictures: torch.Tensor, token: torch.Tensor) -> Reference:
        """The reference pictures (B, H, W, 3) uint8 as the denoising UNet reads them."""
        latents = sampled_latents(self.vae, pictures[:, None])
        return self.denoising_unet.read_bank(self.reference_unet.write_bank(latents, token), rounding=None)

    def pose_features(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Of drawings (B, 3, F, H, W) in -1..1."""
        raise NotImplementedError

    def picture(self, batch: Batch) -> torch.Tensor:
        """The reference, the drawings, the prediction and the target, a row each."""
        token = self.token(batch["clip_image"][:1], False)
        reference = self.read(batch["reference"][:1], token)
        pose = self.pose_features(unit_pixels(batch["drawings"][:1]))
        target = sampled_latents(self.vae, batch["frames"][:1])

        def conditional(latents: torch.Tensor, time: int) -> torch.Tensor:
            return self.denoising_unet(latents, time, token, pose=pose, reference=reference)

        def unconditional(latents: torch.Tensor, time: int) -> torch.Tensor:
            return self.denoising_unet(latents, time, torch.zeros_like(token), pose=pose)

        latents = guided_latents(conditional, unconditional, target, self.picture_steps)
        rows = (batch["reference"][:1], batch["drawings"][0], batch["frames"][0])
        portrait, drawings, frames = (pictures.float().cpu() / 255 for pictures in rows)
        return contact_sheet(portrait, drawings, decoded_latents(self.vae, latents).cpu(), frames)
