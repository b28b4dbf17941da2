"""Noise schedules and samplers."""

from __future__ import annotations

import pytest
import torch
from talking_portrait.pipelines.diffusion.samplers import (
    NoiseSchedule,
    ddim_step,
    published_schedule,
    sample_ddim,
    sample_lcm,
    sample_multistep,
    scheduled_betas,
    trailing_timesteps,
)
from talking_portrait.pipelines.errors import TalkingPortraitError


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["linear", "scaled_linear"])
def test_the_last_step_keeps_nothing_and_the_first_what_it_kept(kind: str) -> None:
    plain = NoiseSchedule.of(scheduled_betas(kind, zero_terminal_snr=False))
    rescaled = NoiseSchedule.of(scheduled_betas(kind))
    assert rescaled.alphas_cumprod[-1] == 0
    assert plain.alphas_cumprod[-1] > 0
    torch.testing.assert_close(rescaled.alphas_cumprod[0], plain.alphas_cumprod[0])
    assert (rescaled.alphas_cumprod.diff() < 0).all()


@pytest.mark.parametrize("steps", [1, 3, 4, 25, 40, 48, 96, 1000])
def test_schedule_and_steps_agree_with_diffusers(steps: int) -> None:
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="linear",
        clip_sample=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )
    theirs.set_timesteps(steps)
    schedule = published_schedule()
    torch.testing.assert_close(schedule.alphas_cumprod, theirs.alphas_cumprod, atol=1e-6, rtol=1e-5)
    assert trailing_timesteps(steps) == theirs.timesteps.tolist()
    sample = noise(1, 4, 2, 3, 3)
    for timestep in trailing_timesteps(steps)[-2:]:
        velocity = noise(1, 4, 2, 3, 3, seed=timestep)
        expected = theirs.step(velocity, timestep, sample)
        found, clean = ddim_step(velocity, sample, timestep, schedule, steps)
        torch.testing.assert_close(found, expected.prev_sample, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(clean, expected.pred_original_sample, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 3, 25])
def test_a_perfect_prediction_leads_from_pure_noise_to_the_clean_sample(steps: int) -> None:
    """The noise that is left is known at each step, so the right velocity is too."""
    schedule, clean = published_schedule(), noise(1, 4, 2, 3, 3)
    reports: list[tuple[int, float]] = []

    def predict(sample: torch.Tensor, timestep: int) -> torch.Tensor:
        alpha, sigma = schedule.alpha_sigma(timestep, sample)
        return alpha * (sample - alpha * clean) / sigma - sigma * clean

    def watch(done: int, sample: torch.Tensor, foreseen: torch.Tensor) -> None:
        reports.append((done, float((foreseen - clean).abs().max())))

    found = sample_ddim(predict, noise(1, 4, 2, 3, 3, seed=1), schedule, steps, callback=watch)
    torch.testing.assert_close(found, clean, atol=1e-4, rtol=1e-4)
    assert [done for done, _ in reports] == list(range(1, steps + 1))
    assert max(error for _, error in reports) < 1e-4


def test_the_step_before_is_computed_and_not_searched() -> None:
    """Three steps of 1000 lead from 666 to 333, though 332 is visited next."""
    schedule, sample, velocity = published_schedule(), noise(1, 4), noise(1, 4, seed=1)
    found, clean = ddim_step(velocity, sample, 666, schedule, 3)
    alpha, sigma = schedule.alpha_sigma(666, sample)
    left = alpha * velocity + sigma * sample
    alpha, sigma = schedule.alpha_sigma(333, sample)
    torch.testing.assert_close(found, alpha * clean + sigma * left)


def test_noise_and_velocity_of_a_batch_at_different_times() -> None:
    schedule, clean, added = published_schedule(), noise(2, 3, 4), noise(2, 3, 4, seed=1)
    times = torch.tensor([0, 999])
    noisy = schedule.add_noise(clean, added, times)
    torch.testing.assert_close(noisy[1], added[1])
    torch.testing.assert_close(schedule.velocity(clean, added, times)[1], -clean[1])
    alpha = schedule.alphas_cumprod[0].sqrt()
    torch.testing.assert_close(noisy[0], alpha * clean[0] + (1 - schedule.alphas_cumprod[0]).sqrt() * added[0])
    assert schedule.snr(times)[1] == 0


def test_stopping_in_a_callback_stops_at_once() -> None:
    predictions: list[int] = []

    def predict(sample: torch.Tensor, timestep: int) -> torch.Tensor:
        predictions.append(timestep)
        return sample

    def stop(done: int, sample: torch.Tensor, clean: torch.Tensor) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        sample_ddim(predict, noise(1, 4), published_schedule(), 5, callback=stop)
    assert predictions == [999]


def test_every_count_of_steps_starts_at_the_end_and_falls() -> None:
    for steps in range(1, 301):
        times = trailing_timesteps(steps)
        assert len(times) == steps
        assert times[0] == 999
        assert times[-1] >= 0
        assert all(a > b for a, b in zip(times, times[1:], strict=False))


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_step_counts_are_refused(steps: int) -> None:
    with pytest.raises(TalkingPortraitError, match=f"in {steps} steps"):
        trailing_timesteps(steps)


# --- samplers of fewer steps ---


def gaussian_velocity(schedule: NoiseSchedule, mean: torch.Tensor, deviation: float):
    """What a perfect network predicts for samples distributed around `mean`: each is mean + deviation * noise."""

    def predict(sample: torch.Tensor, timestep: int) -> torch.Tensor:
        alpha, sigma = schedule.alpha_sigma(timestep, sample)
        clean = mean + alpha * deviation**2 / (alpha**2 * deviation**2 + sigma**2) * (sample - alpha * mean)
        return (alpha * sample - clean) / sigma

    return predict


@pytest.mark.parametrize("kind", ["dpmpp_2m", "unipc"])
def test_fewer_steps_lead_where_ddim_leads_in_many(kind: str) -> None:
    schedule, start, mean = published_schedule(), noise(1, 4, 2, 8, 8), noise(1, 4, 2, 8, 8, seed=1)
    predict, exact = gaussian_velocity(schedule, mean, 1.0), mean + start

    def error(found: torch.Tensor) -> float:
        return float((found - exact).abs().mean())

    ddim = {steps: error(sample_ddim(predict, start, schedule, steps)) for steps in (12, 250)}
    found = {steps: error(sample_multistep(kind, predict, start, schedule, steps)) for steps in (12, 25, 250)}
    assert ddim[250] < 0.01
    assert found[12] < 0.5 * ddim[12]
    assert found[250] < found[25] < found[12]
    assert found[250] < 0.3 * ddim[250]


@pytest.mark.parametrize("steps", [1, 4, 25])
@pytest.mark.parametrize("kind", ["dpmpp_2m", "unipc"])
def test_samplers_visit_the_same_times_and_report_each_step(kind: str, steps: int) -> None:
    schedule, visited, calls = published_schedule(), [], []
    predict = gaussian_velocity(schedule, noise(1, 4), 0.5)

    def recorded(sample: torch.Tensor, timestep: int) -> torch.Tensor:
        visited.append(timestep)
        return predict(sample, timestep)

    found = sample_multistep(
        kind, recorded, noise(1, 4), schedule, steps, callback=lambda done, sample, clean: calls.append(done)
    )
    assert found.isfinite().all()
    assert visited == trailing_timesteps(steps)
    assert calls == list(range(1, steps + 1))


def test_lcm_agrees_with_diffusers_step_by_step() -> None:
    from diffusers import LCMScheduler

    theirs = LCMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        clip_sample=False,
    )
    times = trailing_timesteps(4)
    theirs.set_timesteps(timesteps=times, original_inference_steps=1000)
    assert theirs.timesteps.tolist() == times
    schedule, found = published_schedule(), []
    predict = gaussian_velocity(schedule, noise(1, 4, 3, 3, seed=1), 0.5)
    generator = torch.Generator().manual_seed(5)
    added = [torch.randn((1, 4, 3, 3), generator=generator) for _ in times]

    def keep(done: int, sample: torch.Tensor, clean: torch.Tensor) -> None:
        found.append(sample)

    last = sample_lcm(predict, noise(1, 4, 3, 3), schedule, 4, lambda step: added[step - 1], callback=keep)
    sample = noise(1, 4, 3, 3)
    generator = torch.Generator().manual_seed(5)
    for time, own in zip(times, found, strict=True):
        sample = theirs.step(predict(sample, time), time, sample, generator=generator).prev_sample
        torch.testing.assert_close(own, sample, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(last, found[-1])


def test_lcm_lands_at_the_clean_sample_that_is_foreseen_alike_at_each_step() -> None:
    schedule, clean = published_schedule(), noise(1, 4, 3, 3)

    def predict(sample: torch.Tensor, timestep: int) -> torch.Tensor:
        alpha, sigma = schedule.alpha_sigma(timestep, sample)
        return (alpha * sample - clean) / sigma

    for steps in (1, 4, 8):
        found = sample_lcm(
            predict, noise(1, 4, 3, 3, seed=1), schedule, steps, lambda step: noise(1, 4, 3, 3, seed=step)
        )
        torch.testing.assert_close(found, clean, atol=2e-3, rtol=1e-2)
