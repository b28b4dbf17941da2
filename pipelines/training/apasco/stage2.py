"""APasco's and Hallo's second stage: clips with speech. The audio projection, audio and motion modules learn.

Published: 30,000 steps of 4 clips of 14 frames on each GPU, rate 1e-5, motion modules from AnimateDiff's mm_sd_v15_v2.
With a mesh encoder (this pack's own addition, see `models/apasco/mesh_encoder.py`) that one learns as well.
"""

from __future__ import annotations

from typing import Any

import torch

from ....models.apasco.networks import Networks
from ..core.trainer import Batch, Trainer, freeze
from ..diffusion.latents import PICTURE_STEPS, contact_sheet, decoded_latents, guided_latents, noised, sampled_latents
from ..diffusion.loss import training_schedule
from .datasets import still_lips
from .diffusion import clip_loss, clip_velocity

NO_REFERENCE, NO_SPEECH, NO_FRAMES_BEFORE = 0.05, 0.05, 0.05
"""Shares of steps without the reference, without sound, and with grey pictures for the frames before."""
NO_MESH, STILL_LIPS = 0.1, 0.5
"""Shares of steps without the mesh, and with one whose lips do not move."""
_GREY = 128


class APascoStage2(Trainer):
    """Trains the audio and motion modules on clips; `vae` is diffusers' AutoencoderKL.

    `mixed_rows`: see `diffusion.py`; networks that begin from Hallo's weights have learnt with it.
    `picture_steps` denoising steps of a picture on the way.
    """

    title = "apasco-stage2"

    def __init__(
        self,
        networks: Networks,
        vae: Any,
        *,
        mixed_rows: bool = False,
        recompute: bool = False,
        picture_steps: int = PICTURE_STEPS,
    ) -> None:
        super().__init__()
        self.picture_steps = picture_steps
        self.networks, self.vae, self.mixed_rows = networks, vae, mixed_rows
        self.schedule = training_schedule()
        for unet in (networks.reference_unet, networks.denoising_unet):
            unet.recompute(recompute)
        freeze(networks, but=learns)
        freeze(vae)

    def loss(self, batch: Batch, step: int) -> torch.Tensor:
        clean = sampled_latents(self.vae, batch["frames"])
        noisy, noise, times = noised(clean, self.schedule)
        chances = torch.rand(5).tolist()
        velocity = clip_velocity(
            self.networks,
            noisy,
            times.to(clean.device),
            batch["region"],
            batch["embedding"],
            None
            if chances[0] < NO_REFERENCE
            else self._picture_latents(batch["pictures"], chances[2] < NO_FRAMES_BEFORE),
            batch["windows"],
            self._masks(batch),
            mesh=self._mesh(batch, chances[3] < NO_MESH, chances[4] < STILL_LIPS),
            silent=chances[1] < NO_SPEECH,
            mixed_rows=self.mixed_rows,
        )
        return clip_loss(velocity, clean, noise, times, self.schedule)

    def picture(self, batch: Batch) -> torch.Tensor:
        """The reference, the face's region, the prediction from it and speech, and the target, a row each."""
        batch = {name: values[:1] for name, values in batch.items()}
        target = sampled_latents(self.vae, batch["frames"])
        picture_latents = self._picture_latents(batch["pictures"], False)
        mesh, masks = self._mesh(batch, False, False), self._masks(batch)

        def predicted(latents: torch.Tensor, time: int, unconditional: bool) -> torch.Tensor:
            return clip_velocity(
                self.networks,
                latents,
                torch.full((1,), time, device=latents.device),
                batch["region"],
                batch["embedding"],
                picture_latents,
                batch["windows"],
                masks,
                mesh=torch.zeros_like(mesh) if mesh is not None and unconditional else mesh,
                unconditional=unconditional,
            )

        latents = guided_latents(
            lambda latents, time: predicted(latents, time, False),
            lambda latents, time: predicted(latents, time, True),
            target,
            self.picture_steps,
        )
        return contact_sheet(
            batch["pictures"][0, :1].float().cpu() / 255,
            batch["region"][0].permute(1, 2, 3, 0).float().cpu(),
            decoded_latents(self.vae, latents).cpu(),
            batch["frames"][0].float().cpu() / 255,
        )

    def _masks(self, batch: Batch) -> list[torch.Tensor]:
        levels = len(self.networks.config.denoising_unet.channels)
        return [batch[f"masks{level}"].transpose(0, 1) for level in range(levels)]

    def _picture_latents(self, pictures: torch.Tensor, begins: bool) -> torch.Tensor:
        """Latents (B, 1 + n, 4, h, w); those of a clip that `begins` have nothing before them."""
        if begins:
            pictures = torch.cat([pictures[:, :1], torch.full_like(pictures[:, 1:], _GREY)], dim=1)
        return sampled_latents(self.vae, pictures).transpose(1, 2)

    def _mesh(self, batch: Batch, none: bool, still: bool) -> torch.Tensor | None:
        encoder = self.networks.mesh_encoder
        if encoder is None:
            return None
        meshes = still_lips(batch["meshes"], batch["portrait"]) if still else batch["meshes"]
        tokens = encoder(meshes, batch["portrait"])
        return torch.zeros_like(tokens) if none else tokens

    def export(self) -> dict[str, dict[str, torch.Tensor]]:
        """net, with the prefixes of net.pth."""
        return {"net": self.networks.state_dict()}


def learns(name: str) -> bool:
    """Whether the second stage trains a parameter of this name in net.pth."""
    if name.startswith("denoising_unet."):
        return ".audio_modules." in name or ".motion_modules." in name
    return name.startswith(("audioproj.", "mesh_encoder."))
