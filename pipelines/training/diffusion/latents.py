"""Pictures for the training of diffusion networks: latents, noise, and a contact sheet of predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange

from ...diffusion.context_windows import spread_over
from ...diffusion.latents import LATENT_SCALE
from ...diffusion.samplers import NoiseSchedule, published_schedule, sample_ddim

NOISE_OFFSET = 0.05
"""Noise that a whole channel shares, so that networks learn to change a picture's brightness too (Guttenberg 2023)."""
_BATCH = 4
"""Pictures that the VAE encodes at once."""
PICTURE_CFG, PICTURE_STEPS = 3.5, 20
"""Guidance and denoising steps of a picture on the way."""


def unit_pixels(pictures: torch.Tensor) -> torch.Tensor:
    """(B, F, H, W, 3) uint8 as (B, 3, F, H, W) in -1..1."""
    return pictures.permute(0, 4, 1, 2, 3).float() / 127.5 - 1


@torch.no_grad()
def sampled_latents(vae: Any, pictures: torch.Tensor) -> torch.Tensor:
    """Pictures (B, F, H, W, 3) uint8 as scaled latents (B, 4, F, H / 8, W / 8), drawn from the VAE's distribution.

    AniPortrait and Hallo learn from such draws and work with the distribution's mean.
    """
    samples = len(pictures)
    rows = rearrange(unit_pixels(pictures), "s c f h w -> (s f) c h w")
    drawn = torch.cat([vae.encode(part).latent_dist.sample() for part in rows.split(_BATCH)])
    return rearrange(drawn.float() * LATENT_SCALE, "(s f) c h w -> s c f h w", s=samples)


@torch.no_grad()
def decoded_latents(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """(1, 4, F, h, w) as pictures (F, H, W, 3) in 0..1."""
    rows = latents[0].transpose(0, 1) / LATENT_SCALE
    pictures = torch.cat([vae.decode(row[None]).sample for row in rows])
    return (pictures.float() / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)


def training_noise(clean: torch.Tensor, offset: float = NOISE_OFFSET) -> torch.Tensor:
    """Noise for latents (B, C, F, h, w); `offset` is how much of it each sample's channel has in common."""
    shared = torch.randn(*clean.shape[:2], 1, 1, 1, device=clean.device)
    return torch.randn_like(clean) + offset * shared


def differentiable_on_cpu(noisy: torch.Tensor) -> torch.Tensor:
    """Lets a CPU compute gradients of the input too, which are not needed.

    torch (2.13) crashes there in the backward pass of a group norm that learns while its channels-last input does not,
    as the first one of a network does whose earlier layers are frozen.
    """
    return noisy.requires_grad_(noisy.device.type == "cpu")


def noised(clean: torch.Tensor, schedule: NoiseSchedule) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents (B, 4, F, h, w) as they are at a random time of each sample; the noise, and the times (B,) on the CPU."""
    noise = training_noise(clean)
    times = torch.randint(schedule.steps, (len(clean),))
    return differentiable_on_cpu(schedule.add_noise(clean, noise, times)), noise, times


def guided_latents(
    conditional: Callable[[torch.Tensor, int], torch.Tensor],
    unconditional: Callable[[torch.Tensor, int], torch.Tensor],
    like: torch.Tensor,
    steps: int,
) -> torch.Tensor:
    """Latents sampled from noise of the shape of `like` in `steps` steps, with classifier-free guidance."""

    def predict(latents: torch.Tensor, time: int) -> torch.Tensor:
        without = unconditional(latents, time)
        return (without + PICTURE_CFG * (conditional(latents, time) - without)).float()

    return sample_ddim(predict, torch.randn_like(like), published_schedule(), steps)


def contact_sheet(*rows: torch.Tensor, columns: int = 4) -> torch.Tensor:
    """Frames (F or 1, H, W, 3) in 0..1, a row for each of the given, a few of them spread over the clip."""
    frames = max(len(row) for row in rows)
    chosen = spread_over(frames, min(columns, frames))
    cells = [torch.cat([row[i % len(row)] for i in chosen], dim=1) for row in rows]
    return torch.cat(cells, dim=0)
