"""APasco's and Hallo's first stage: single pictures. Both UNets learn, the face locator and the image projection.

Published: 30,000 steps of 8 pictures on each GPU, rate 1e-5, from Stable Diffusion 1.5.
"""

from __future__ import annotations

from typing import Any

import torch

from ...models.apasco.face_locator import FaceLocator
from ...models.apasco.projections import AudioProjection, ImageProjection
from ...models.diffusion.unet import UNet
from .apasco_diffusion import picture_velocity
from .diffusion_loss import training_schedule, velocity_loss
from .latents import differentiable_on_cpu, sampled_latents, training_noise
from .trainer import Batch, Trainer, freeze

UNCONDITIONAL = 0.1
"""Share of steps without reference and identity, from which guidance lives."""


class APascoStage1(Trainer):
    """See the module; `vae` is diffusers' AutoencoderKL."""

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
    ) -> None:
        super().__init__()
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
        noise = training_noise(clean)
        times = torch.randint(self.schedule.steps, (len(clean),))
        noisy = differentiable_on_cpu(self.schedule.add_noise(clean, noise, times))
        embedding, reference = batch["embedding"], None
        if torch.rand(()) < self.unconditional:
            embedding = torch.zeros_like(embedding)
        else:
            reference = sampled_latents(self.vae, batch["reference"][:, None])[:, :, 0]
        velocity = picture_velocity(self, noisy, times.to(clean.device), batch["region"], embedding, reference)
        return velocity_loss(velocity, clean, noise, times, self.schedule)

    def export(self) -> dict[str, dict[str, torch.Tensor]]:
        """The four files of the published program, without prefixes."""
        names = ("reference_unet", "denoising_unet", "face_locator", "imageproj")
        return {name: getattr(self, name).state_dict() for name in names}
