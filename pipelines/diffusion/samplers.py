"""Diffusion sampling: noise schedules, and samplers as functions over any prediction, with a callback for each step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from ..errors import TalkingPortraitError

Predict = Callable[[torch.Tensor, int], torch.Tensor]
"""(noisy sample, time step) to the velocity v of the same shape."""

StepCallback = Callable[[int, torch.Tensor, torch.Tensor], None]
"""(steps done, the sample after the step, the predicted clean sample); may raise to stop."""


_LCM_SIGMA_DATA, _LCM_TIMESTEP_SCALING = 0.5, 10.0
"""Constants of the published distillation."""


def no_callback(step: int, sample: torch.Tensor, clean: torch.Tensor) -> None:
    """The default callback."""


def scheduled_betas(
    kind: Literal["linear", "scaled_linear"],
    *,
    start: float = 0.00085,
    end: float = 0.012,
    steps: int = 1000,
    zero_terminal_snr: bool = True,
) -> torch.Tensor:
    """Variances (steps,) that diffusion adds, float32.

    "linear" grows evenly, "scaled_linear" in its square root. AniPortrait and Hallo sample with the first and were
    trained with the second; their published pictures come from that mismatch.
    """
    if kind == "linear":
        betas = torch.linspace(start, end, steps)
    else:
        betas = torch.linspace(start**0.5, end**0.5, steps) ** 2
    return _rescaled(betas) if zero_terminal_snr else betas


def _rescaled(betas: torch.Tensor) -> torch.Tensor:
    """Betas whose last step leaves no signal at all (Lin et al. 2024, algorithm 1)."""
    alpha = torch.cumprod(1 - betas, 0).sqrt()
    alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
    return NoiseSchedule(alpha.square()).betas


@dataclass(frozen=True)
class NoiseSchedule:
    """`alphas_cumprod` (steps,) float32: the share of a clean sample's power at each time step (alpha bar)."""

    alphas_cumprod: torch.Tensor

    @staticmethod
    def of(betas: torch.Tensor) -> NoiseSchedule:
        return NoiseSchedule(torch.cumprod(1 - betas, 0))

    @property
    def steps(self) -> int:
        return len(self.alphas_cumprod)

    @property
    def betas(self) -> torch.Tensor:
        """The variances that lead to `alphas_cumprod`."""
        return 1 - torch.cat([self.alphas_cumprod[:1], self.alphas_cumprod[1:] / self.alphas_cumprod[:-1]])

    def alpha_sigma(self, timesteps: torch.Tensor | int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Factors of the clean sample and of the noise at (n,) time steps, shaped to multiply `like` (n, ...)."""
        timesteps = torch.as_tensor(timesteps, device=self.alphas_cumprod.device)
        power = self.alphas_cumprod[timesteps].to(like.device)
        power = power.reshape(power.shape + (1,) * (like.ndim - 1) if power.ndim else ())
        return power.sqrt(), (1 - power).sqrt()

    def add_noise(self, clean: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Samples (n, ...) as they are at (n,) time steps."""
        alpha, sigma = self.alpha_sigma(timesteps, clean)
        return alpha * clean + sigma * noise

    def velocity(self, clean: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """What a network learns to predict: v = alpha * noise - sigma * clean (Salimans and Ho 2022)."""
        alpha, sigma = self.alpha_sigma(timesteps, clean)
        return alpha * noise - sigma * clean

    def clean_sample(self, velocity: torch.Tensor, sample: torch.Tensor, timesteps: torch.Tensor | int) -> torch.Tensor:
        """The clean sample that a predicted velocity stands for: alpha * sample - sigma * velocity."""
        alpha, sigma = self.alpha_sigma(timesteps, sample)
        return alpha * sample - sigma * velocity

    def snr(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Signal-to-noise ratio (n,) of power."""
        alphas_cumprod = self.alphas_cumprod[timesteps]
        return alphas_cumprod / (1 - alphas_cumprod)


def published_schedule() -> NoiseSchedule:
    """What AniPortrait and Hallo sample with: linear betas, no signal left at the last step."""
    return NoiseSchedule.of(scheduled_betas("linear"))


def trailing_timesteps(steps: int, total: int = 1000) -> list[int]:
    """Time steps to visit, the noisiest first, evenly spaced from the end: 3 of 1000 gives 999, 666, 332.

    Raises TalkingPortraitError unless 1 <= steps <= total.
    """
    if not 1 <= steps <= total:
        raise TalkingPortraitError(f"Sampling in {steps} steps was requested, but 1 to {total} are possible.")
    # NumPy's own spacing, as published: its rounding errors decide where a time lies between two steps (48 of 1000),
    # and add a step that is none after the last (61 of 1000), which is cut off.
    times = np.round(np.arange(total, 0, -total / steps))[:steps]
    return [int(time) - 1 for time in times]


def ddim_step(
    velocity: torch.Tensor, sample: torch.Tensor, timestep: int, schedule: NoiseSchedule, steps: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step of DDIM (Song et al. 2021) without fresh noise: (the sample at the previous time step, the clean one).

    That previous time step is `timestep - total // steps`, which need not be the next one visited: 3 steps of 1000
    visit 999, 666 and 332, and lead from 999 to 666, from 666 to 333, and from 332 to the clean sample.
    """
    alpha, sigma = schedule.alpha_sigma(timestep, sample)
    clean = schedule.clean_sample(velocity, sample, timestep)
    noise = alpha * velocity + sigma * sample
    previous = timestep - schedule.steps // steps
    if previous < 0:
        return clean, clean
    alpha, sigma = schedule.alpha_sigma(previous, sample)
    return alpha * clean + sigma * noise, clean


def sample_ddim(
    predict: Predict,
    noise: torch.Tensor,
    schedule: NoiseSchedule,
    steps: int,
    *,
    callback: StepCallback = no_callback,
) -> torch.Tensor:
    """Noise to a clean sample of the same shape in `steps` predictions."""
    sample = noise
    for done, timestep in enumerate(trailing_timesteps(steps, schedule.steps), 1):
        sample, clean = ddim_step(predict(sample, timestep), sample, timestep, schedule, steps)
        callback(done, sample, clean)
    return sample


def sample_multistep(
    kind: Literal["dpmpp_2m", "unipc"],
    predict: Predict,
    noise: torch.Tensor,
    schedule: NoiseSchedule,
    steps: int,
    *,
    callback: StepCallback = no_callback,
) -> torch.Tensor:
    """As `sample_ddim`, but each step also uses the one before, so that fewer are needed.

    DPM-Solver++ 2M (Lu et al. 2022) or UniPC (Zhao et al. 2023), by diffusers' schedulers.
    """
    from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

    scheduler_class: Any = {"dpmpp_2m": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler}[kind]
    scheduler = scheduler_class(
        num_train_timesteps=schedule.steps,
        trained_betas=schedule.betas.tolist(),
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=bool(schedule.alphas_cumprod[-1] == 0),
    )
    scheduler.set_timesteps(steps)
    sample = noise
    for done, timestep in enumerate(trailing_timesteps(steps, schedule.steps), 1):
        velocity = predict(sample, timestep)
        clean = schedule.clean_sample(velocity, sample, timestep)
        sample = scheduler.step(velocity, timestep, sample).prev_sample
        callback(done, sample, clean)
    return sample


def sample_lcm(
    predict: Predict,
    noise: torch.Tensor,
    schedule: NoiseSchedule,
    steps: int,
    fresh: Callable[[int], torch.Tensor],
    *,
    callback: StepCallback = no_callback,
) -> torch.Tensor:
    """As `sample_ddim`, for a network distilled to predict the clean sample at once: 4 to 8 steps.

    Latent consistency models (Luo et al. 2023): after each step but the last, `fresh(step)` noise is added anew.
    """
    timesteps = trailing_timesteps(steps, schedule.steps)
    sample = noise
    for done, timestep in enumerate(timesteps, 1):
        clean = schedule.clean_sample(predict(sample, timestep), sample, timestep)
        # Towards time step 0 the sample itself stands in for the network's answer, as it did in the distillation.
        time, data_variance = (timestep * _LCM_TIMESTEP_SCALING) ** 2, _LCM_SIGMA_DATA**2
        clean = (time / (time + data_variance)) ** 0.5 * clean + data_variance / (time + data_variance) * sample
        sample = clean
        if done < steps:
            alpha, sigma = schedule.alpha_sigma(timesteps[done], sample)
            sample = alpha * clean + sigma * fresh(done)
        callback(done, sample, clean)
    return sample
