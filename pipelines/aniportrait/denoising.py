"""AniPortrait's denoising loop: frames of a video, window by window, step by step.

    bank = reference_unet.write_bank(reference_latents[:, :, None], token)
    denoiser = Denoiser(denoising_unet, bank, token, features)
    latents = denoise(denoiser, noise, lambda step: windows)

The bank does not depend on the time step, so its network runs once and may then leave the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch

from ...models.diffusion.attention import Bank, Reference
from ...models.diffusion.unet import UNet
from ..diffusion.deep_cache import DeepCache
from ..diffusion.latents import rough_picture
from ..diffusion.samplers import (
    NoiseSchedule,
    Predict,
    StepCallback,
    no_callback,
    published_schedule,
    sample_ddim,
    sample_lcm,
    sample_multistep,
)
from ..errors import TalkingPortraitError
from ..finite import check_finite
from ..memory import HalvingBatches, Managed, loaded
from ..types import Progress, no_progress
from .pose import PoseFeatures
from .settings import Scheduler

Windows = Sequence[Sequence[int]]
"""Frame numbers that the network processes together, as `context_windows` lays them; all of one length."""
ContextSchedule = Callable[[int], Windows]
"""Step, counted from 0, to its windows."""

_WORK = 24
"""Values that the UNet holds at once for each pixel and channel of its first resolution: its widest layer, the
feed-forward one, has eight for the values and their gate and four for the product; the rest are skips and copies."""


class Denoiser:
    """The denoising UNet, ready for one portrait and one sequence of drawn faces.

    Args:
        denoising_unet: comes to its device here and again at each run, as other networks may have taken its place.
        bank: the reference UNet's, of one picture.
        token: CLIP's embedding of the portrait (1, 1, C).
        features: from `pipelines/aniportrait/pose.py`, by the frame numbers of the windows.
        cfg: classifier-free guidance; 1 and less go without, at half the cost.
        guided: whether a step, counted from 0, uses guidance at all.
        batch: how many windows pass the UNet at once; fewer, when memory runs out.
        weights: length of a window to how much each of its frames counts where windows overlap; alike by default.
        deep_every: every how many steps all layers are computed; windows have to stay where they are in between.
        bank_rounding: see `UNet.read_bank`.
        sum_overlaps: what the published program does without guidance: predictions of overlapping windows are added up
            and not averaged, which spoils those frames; only for comparison with it.
    """

    def __init__(
        self,
        denoising_unet: Managed,
        bank: Bank,
        token: torch.Tensor,
        features: PoseFeatures,
        *,
        cfg: float = 3.5,
        guided: Callable[[int], bool] = lambda step: True,
        batch: int = 1,
        weights: Callable[[int], Sequence[float]] | None = None,
        deep_every: int = 1,
        bank_rounding: torch.dtype | None = torch.float16,
        sum_overlaps: bool = False,
    ) -> None:
        self.cfg, self.sum_overlaps = cfg, sum_overlaps
        self._managed, self._features, self._guided_step = denoising_unet, features, guided
        self._weights, self._deep = weights, DeepCache(deep_every)
        self._batches = HalvingBatches(batch, "window")
        unet, self.device = loaded(denoising_unet, UNet)
        self._token = token.to(self.device)
        on_device = {name: tokens.to(self.device) for name, tokens in bank.items()}
        self._keys_values = unet.read_bank(on_device, rounding=bank_rounding).keys_values

    def guided(self, step: int) -> bool:
        return self.cfg > 1 and self._guided_step(step)

    def predict(self, latents: torch.Tensor, timestep: int, windows: Windows, *, guided: bool = True) -> torch.Tensor:
        """The network's velocities for some windows: (rows, 4, frames, H, W).

        Guided, the first half of the rows is unconditional. The network computes in the token's precision, the sampler
        in that of the latents.
        """
        guided = guided and self.cfg > 1
        pose = [torch.cat(level) for level in zip(*(self._features(window) for window in windows), strict=True)]
        unet = self._loaded(latents, windows)
        sample = torch.cat([latents[:, :, list(window)] for window in windows])
        names = [(True, *window) for window in windows]
        context = self._token.expand(len(sample), -1, -1)
        unconditional_rows = 0
        if guided:
            unconditional_rows = len(sample)
            sample = torch.cat([sample, sample])
            names = [(False, *window) for window in windows] + names
            context = torch.cat([torch.zeros_like(context), context])
        reference = Reference(self._keys_values, unconditional_rows)
        sample = sample.to(context.dtype)
        velocities = self._deep.run(
            names, lambda deep: unet(sample, timestep, context, pose=pose, reference=reference, deep=deep)
        )
        return velocities.to(latents.dtype)

    def velocity(
        self,
        latents: torch.Tensor,
        timestep: int,
        windows: Windows,
        *,
        step: int = 0,
        tick: Callable[[int], None] = lambda windows: None,
    ) -> torch.Tensor:
        """The guided velocity (1, 4, F, H, W) of all frames, averaged where windows overlap; 0 where there is none.

        `tick` is called after each run of the UNet with the number of windows; it may raise to stop.
        """
        guided = self.guided(step)
        self._deep.begin(step)
        total = torch.zeros_like(latents)
        times = torch.zeros(latents.shape[2], device=latents.device, dtype=latents.dtype)
        length = len(windows[0])
        weights = torch.tensor(self._weights(length) if self._weights else [1.0] * length).to(times)
        done = 0

        def run(start: int, end: int) -> torch.Tensor:
            velocities = self.predict(latents, timestep, windows[start:end], guided=guided)
            if not guided:
                return velocities
            unconditional, conditional = velocities.chunk(2)
            return unconditional + self.cfg * (conditional - unconditional)

        for velocities in self._batches.each(len(windows), run):
            for window, velocity in zip(windows[done : done + len(velocities)], velocities, strict=True):
                total[0, :, list(window)] += weights[:, None, None] * velocity
                times[list(window)] += weights
            done += len(velocities)
            tick(len(velocities))
        if self.sum_overlaps and not guided:
            return total
        return total / times.clamp_min(torch.finfo(times.dtype).tiny)[:, None, None]

    def _loaded(self, latents: torch.Tensor, windows: Windows) -> UNet:
        height, width = latents.shape[-2:]
        rows = min(self._batches.size, len(windows)) * len(windows[0]) * (2 if self.cfg > 1 else 1)
        values = rows * height * width * cast(UNet, self._managed.module).config.channels[0] * _WORK
        unet, _ = loaded(self._managed, UNet, values * self._token.element_size())
        return unet


@dataclass(frozen=True)
class FinishedFrames:
    """Finished frames at the beginning, which only condition the others: latents and noise (1, 4, n, H, W).

    In each step they carry as much of their own noise as there is in the others then.
    """

    latents: torch.Tensor
    noise: torch.Tensor

    @property
    def frames(self) -> int:
        return self.latents.shape[2]

    def put_into(self, sample: torch.Tensor, timestep: int, schedule: NoiseSchedule) -> torch.Tensor:
        """A copy of the sample whose first frames are these."""
        alpha, sigma = schedule.alpha_sigma(timestep, sample)
        return torch.cat([alpha * self.latents + sigma * self.noise, sample[:, :, self.frames :]], dim=2)


@torch.no_grad()
def denoise(
    denoiser: Denoiser,
    noise: torch.Tensor,
    context_schedule: ContextSchedule,
    steps: int = 25,
    *,
    schedule: NoiseSchedule | None = None,
    scheduler: Scheduler = "ddim",
    fresh: Callable[[int], torch.Tensor] | None = None,
    finished: FinishedFrames | None = None,
    callback: StepCallback = no_callback,
    progress: Progress = no_progress,
) -> torch.Tensor:
    """Noise (1, 4, F, H, W) to clean latents of a video.

    Args:
        context_schedule: the windows of each step; over the finished frames there need not be any.
        fresh: noise that "lcm" adds after a step (counted from 1).
        callback: called after each step.
        progress: called after each run of the UNet with the windows done and those to do, and after each step with a
            rough picture of the middle frame.

    Raises TalkingPortraitError when the windows leave frames out, or when the network gives NaN.
    """
    schedule = schedule or published_schedule()
    frames = range(finished.frames if finished else 0, noise.shape[2])
    total = sum(len(context_schedule(step)) for step in range(steps))
    done = step = 0

    def tick(windows: int) -> None:
        nonlocal done
        done += windows
        progress(done, total)

    def predict(latents: torch.Tensor, timestep: int) -> torch.Tensor:
        nonlocal step
        windows = context_schedule(step)
        _check_cover(windows, frames)
        if finished:
            latents = finished.put_into(latents, timestep, schedule)
        velocity = denoiser.velocity(latents, timestep, windows, step=step, tick=tick)
        step += 1
        check_finite(velocity, "The denoising UNet", where=f" in step {step} of {steps}")
        return velocity

    def report_step(number: int, sample: torch.Tensor, clean: torch.Tensor) -> None:
        callback(number, sample, clean)
        progress(done, total, rough_picture(clean[0, :, (frames.start + frames.stop) // 2]))

    latents = _sample(scheduler, predict, noise, schedule, steps, fresh, report_step)
    return torch.cat([finished.latents, latents[:, :, finished.frames :]], dim=2) if finished else latents


def _sample(
    scheduler: Scheduler,
    predict: Predict,
    noise: torch.Tensor,
    schedule: NoiseSchedule,
    steps: int,
    fresh: Callable[[int], torch.Tensor] | None,
    report_step: StepCallback,
) -> torch.Tensor:
    if scheduler == "ddim":
        return sample_ddim(predict, noise, schedule, steps, callback=report_step)
    if scheduler == "lcm":
        assert fresh is not None
        return sample_lcm(predict, noise, schedule, steps, fresh, callback=report_step)
    return sample_multistep(scheduler, predict, noise, schedule, steps, callback=report_step)


def _check_cover(windows: Windows, frames: range) -> None:
    covered = {frame for window in windows for frame in window}
    if not covered.issuperset(frames) or max(covered) >= frames.stop or min(covered) < 0:
        raise TalkingPortraitError(
            f"The windows do not cover the {frames.stop} frames of the noise exactly; plan them for this number of "
            "frames."
        )
