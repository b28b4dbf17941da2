"""AniTalker's sampler: DDIM over evenly spaced time steps, with clean samples limited to -1..1.

Source: the published program, which takes its sampler from Preechakul et al. 2022 (Diffusion Autoencoders). It
differs from `diffusion/samplers.py`: the network predicts noise, the schedule keeps some noise at the last step and
some signal at the first, and time steps are counted up from 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..diffusion.samplers import StepCallback, no_callback
from ..errors import TalkingPortraitError

TOTAL = 1000
_FIRST_BETA, _LAST_BETA = 1e-4, 0.02

Predict = Callable[[torch.Tensor, int], torch.Tensor]
"""(noisy sample, time step) to the noise in it."""


def possible_steps(wanted: int) -> int:
    """The smallest number of steps, from `wanted` on, that a whole stride through the time steps gives: 41 gives 42.

    Raises TalkingPortraitError outside 2..1000.
    """
    if not 2 <= wanted <= TOTAL:
        raise TalkingPortraitError(
            f"Sampling in {wanted} steps was requested, but 2 to {TOTAL} are possible; 50 is usual."
        )
    longest_stride = (TOTAL - 1) // (wanted - 1)
    return math.ceil(TOTAL / longest_stride)


@dataclass(frozen=True)
class Schedule:
    """`timesteps` that are visited, ascending; `alphas_cumprod` the share of the clean sample's power left there and
    `alphas_cumprod_prev` the share at the one visited after it, both float64."""

    timesteps: list[int]
    alphas_cumprod: torch.Tensor
    alphas_cumprod_prev: torch.Tensor


def strided_schedule(steps: int) -> Schedule:
    """Raises TalkingPortraitError for a number of steps that no whole stride gives; see `possible_steps`."""
    if (possible := possible_steps(steps)) != steps:
        raise TalkingPortraitError(
            f"Sampling in {steps} steps was requested, which no even stride through {TOTAL} time steps gives; "
            f"{possible} is the next number that does."
        )
    timesteps = list(range(0, TOTAL, math.ceil(TOTAL / steps)))
    betas = torch.linspace(_FIRST_BETA, _LAST_BETA, TOTAL, dtype=torch.float64)
    alphas_cumprod = torch.cumprod(1 - betas, 0)[timesteps]
    return Schedule(timesteps, alphas_cumprod, torch.cat([alphas_cumprod.new_ones(1), alphas_cumprod[:-1]]))


def sample(
    predict: Predict, noise: torch.Tensor, schedule: Schedule, *, callback: StepCallback = no_callback
) -> torch.Tensor:
    """Noise to a clean sample in -1..1 of the same shape, one prediction for each time step, the noisiest first.

    The noise is computed from the limited clean sample; without that the published weights diverge.
    """
    x = noise
    steps = len(schedule.timesteps)
    for done, index in enumerate(reversed(range(steps)), 1):
        alphas_cumprod, alphas_cumprod_prev = schedule.alphas_cumprod[index], schedule.alphas_cumprod_prev[index]
        reciprocal, noise_factor = (1 / alphas_cumprod).sqrt().item(), (1 / alphas_cumprod - 1).sqrt().item()
        clean = (reciprocal * x - noise_factor * predict(x, schedule.timesteps[index])).clamp(-1, 1)
        eps = (reciprocal * x - clean) / noise_factor
        x = alphas_cumprod_prev.sqrt().item() * clean + (1 - alphas_cumprod_prev).sqrt().item() * eps
        callback(done, x, clean)
    return x
