"""The loss of the diffusion networks: the noise schedule, the velocity to predict, the weight of each time step."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ...diffusion.samplers import NoiseSchedule, scheduled_betas


def training_schedule() -> NoiseSchedule:
    """Scaled linear betas without signal at the last step: the training of AniPortrait and Hallo forces them."""
    return NoiseSchedule.of(scheduled_betas("scaled_linear"))


def min_snr_weights(schedule: NoiseSchedule, timesteps: torch.Tensor, gamma: float = 5.0) -> torch.Tensor:
    """Weights (n,) of squared velocity errors (Hang et al. 2023): min(s, gamma) / s, with s = SNR + 1."""
    shifted = schedule.snr(timesteps) + 1
    return shifted.clamp(max=gamma) / shifted


def velocity_loss(
    prediction: torch.Tensor,
    clean: torch.Tensor,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
    schedule: NoiseSchedule,
    *,
    gamma: float = 5.0,
) -> torch.Tensor:
    """Mean weighted squared error of predicted velocities (n, ...), a scalar in float32."""
    target = schedule.velocity(clean, noise, timesteps)
    errors = F.mse_loss(prediction.float(), target.float(), reduction="none").flatten(1).mean(1)
    return (errors * min_snr_weights(schedule, timesteps, gamma).to(errors.device)).mean()
