"""APasco's and Hallo's first stage: single pictures. Both UNets learn, the face locator and the image projection.

Published: 30,000 steps of 8 pictures on each GPU, rate 1e-5, from Stable Diffusion 1.5.
"""

from __future__ import annotations

from typing import Any

import torch

from ....models.apasco.face_locator import FaceLocator
from ....models.apasco.projections import AudioProjection, ImageProjection
from ....models.diffusion.unet import UNet
from ..core.trainer import Batch, Trainer, freeze
from ..diffusion.latents import PICTURE_STEPS, contact_sheet, decoded_latents, guided_latents, noised, sampled_latents
from ..diffusion.loss import training_schedule, velocity_loss
from .diffusion import picture_velocity

UNCONDITIONAL = 0.1
"""Share of unconditional steps, without reference and identity, for classifier-free guidance."""


class APascoStage1(Trainer):
    """Trains both UNets on single pictures.

    `vae` is diffusers' AutoencoderKL, `picture_steps` denoising steps of a picture on the way.
    """

    title = "apasco-stage1"
    audioproj: AudioProjection  # no part of this stage

    def __init__(
        self,
        reference_unet: UNet,
        denoising_unet: UNet,
        face_locator: FaceLocator,
        imageproj: ImageProjection,
        vae: Any,
        *,
        unconditional: float = UNCONDITIONAL,
        recompute: bool = False,
        picture_steps: int = PICTURE_STEPS,
    ) -> None:
        super().__init__()
        self.picture_steps = picture_steps
        self.reference_unet, self.denoising_unet = reference_unet, denoising_unet
        self.face_locator, self.imageproj, self.vae = face_locator, imageproj, vae
        self.unconditional, self.schedule = unconditional, training_schedule()
        for unet in (reference_unet, denoising_unet):
            unet.recompute(recompute)
        for network in (reference_unet, denoising_unet, face_locator, imageproj):
            freeze(network, but=lambda name: True)
        freeze(vae)

    def loss(self, batch: Batch, step: int) -> torch.Tensor:
        clean = sampled_latents(self.vae, batch["picture"][:, None])
        noisy, noise, times = noised(clean, self.schedule)
        embedding, reference = batch["embedding"], None
        if torch.rand(()) < self.unconditional:
            embedding = torch.zeros_like(embedding)
        else:
            reference = sampled_latents(self.vae, batch["reference"][:, None])[:, :, 0]
        velocity = picture_velocity(self, noisy, times.to(clean.device), batch["region"], embedding, reference)
        return velocity_loss(velocity, clean, noise, times, self.schedule)

    def picture(self, batch: Batch) -> torch.Tensor:
        """The reference, the face's region, the prediction and the target, a row each."""
        region, embedding = batch["region"][:1], batch["embedding"][:1]
        reference = sampled_latents(self.vae, batch["reference"][:1, None])[:, :, 0]
        target = sampled_latents(self.vae, batch["picture"][:1, None])

        def predicted(
            latents: torch.Tensor, time: int, whose: torch.Tensor, reference_latents: torch.Tensor | None
        ) -> torch.Tensor:
            times = torch.full((1,), time, device=latents.device)
            return picture_velocity(self, latents, times, region, whose, reference_latents)

        latents = guided_latents(
            lambda latents, time: predicted(latents, time, embedding, reference),
            lambda latents, time: predicted(latents, time, torch.zeros_like(embedding), None),
            target,
            self.picture_steps,
        )
        return contact_sheet(
            batch["reference"][:1].float().cpu() / 255,
            region[0].permute(1, 2, 3, 0).float().cpu(),
            decoded_latents(self.vae, latents).cpu(),
            batch["picture"][:1].float().cpu() / 255,
        )

    def export(self) -> dict[str, dict[str, torch.Tensor]]:
        """The four files of the published program, without prefixes."""
        names = ("reference_unet", "denoising_unet", "face_locator", "imageproj")
        return {name: getattr(self, name).state_dict() for name in names}
