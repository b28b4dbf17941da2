"""The loss of the diffusion networks."""

from __future__ import annotations

import torch
from talking_portrait.pipelines.training.diffusion.loss import min_snr_weights, training_schedule, velocity_loss


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_weights_are_one_until_the_signal_is_strong() -> None:
    schedule = training_schedule()
    times = torch.arange(1000)
    weights = min_snr_weights(schedule, times)
    shifted = schedule.snr(times) + 1
    assert (weights[shifted <= 5] == 1).all()
    torch.testing.assert_close(weights[shifted > 5], 5 / shifted[shifted > 5])
    assert weights[999] == 1
    assert weights[0] < 0.01


def test_the_loss_vanishes_at_the_velocity_and_weighs_each_sample() -> None:
    schedule, clean, added = training_schedule(), noise(2, 4, 1, 4, 4), noise(2, 4, 1, 4, 4, seed=1)
    times = torch.tensor([50, 900])
    target = schedule.velocity(clean, added, times)
    assert velocity_loss(target, clean, added, times, schedule) == 0
    off = target + torch.tensor([1.0, 2.0])[:, None, None, None, None]
    weights = min_snr_weights(schedule, times)
    expected = (weights * torch.tensor([1.0, 4.0])).mean()
    torch.testing.assert_close(velocity_loss(off, clean, added, times, schedule), expected, atol=1e-5, rtol=1e-5)
