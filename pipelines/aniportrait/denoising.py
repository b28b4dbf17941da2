"""AniPortrait's denoising loop: all frames of a video, window by window, step by step.

    bank = reference_unet.write_bank(reference_latents[:, :, None], token)
    features = pose_features(pose_guider, drawings, windows)
    latents = denoise(Denoiser(denoising_unet, bank, token, features, windows), noise)

Neither the bank nor the features depend on the time step, so their networks run once and may then leave the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ...models.aniportrait.pose_guider import PoseGuider
from ...models.diffusion.attention import Bank, Reference
from ...models.diffusion.unet import UNet
from ..errors import TalkingPortraitError
from ..sampling import NoiseSchedule, StepCallback, nobody_watches, published_schedule, sample_ddim
from ..types import Progress, no_progress

Windows = Sequence[Sequence[int]]
"""Frame numbers that the network sees together, as `pipelines/windows.py` plans them; all of one length."""


def pose_features(
    pose_guider: PoseGuider,
    drawings: torch.Tensor,
    windows: Windows,
    *,
    batch_statistics: bool = True,
    progress: Progress = no_progress,
) -> list[list[torch.Tensor]]:
    """The pose guider's five features for each window of drawn faces (1, 3, F, H, W), as `pose_pixels` makes them.

    `batch_statistics`: see `models/aniportrait/pose_guider.py`; it is why a window's features are its own.
    """
    features = []
    for done, window in enumerate(windows, 1):
        features.append(pose_guider(drawings[:, :, list(window)], batch_statistics=batch_statistics))
        progress(done, len(windows))
    return features


class Denoiser:
    """The denoising UNet, ready for one portrait and one sequence of drawn faces.

    Args:
        bank: the reference UNet's, of one picture.
        token: CLIP's embedding of the portrait (1, 1, C).
        features: from `pose_features`, for the same windows.
        cfg: classifier-free guidance; 1 and less go without, at half the cost.
        batch: how many windows pass the UNet at once.
        bank_rounding: see `UNet.read_bank`.
        sum_overlaps: what the published program does without guidance: predictions of overlapping windows are added up
            and not averaged, which spoils those frames; only for comparison with it.
    """

    def __init__(
        self,
        denoising_unet: UNet,
        bank: Bank,
        token: torch.Tensor,
        features: Sequence[Sequence[torch.Tensor]],
        windows: Windows,
        *,
        cfg: float = 3.5,
        batch: int = 1,
        bank_rounding: torch.dtype | None = torch.float16,
        sum_overlaps: bool = False,
    ) -> None:
        self.windows, self.cfg, self.batch, self.sum_overlaps = windows, cfg, batch, sum_overlaps
        self._unet, self._token, self._features = denoising_unet, token, features
        self._reference = denoising_unet.read_bank(bank, rounding=bank_rounding)

    @property
    def guided(self) -> bool:
        return self.cfg > 1

    @property
    def evaluations(self) -> int:
        """How often the UNet runs for each step."""
        return -(-len(self.windows) // self.batch)

    def predict(self, latents: torch.Tensor, timestep: int, index: int, count: int = 1) -> torch.Tensor:
        """The network's velocities for `count` windows from `index` on: (rows, 4, frames, H, W).

        Guided, the first half of the rows is unconditional. The network computes in the token's precision, the sampler
        in that of the latents.
        """
        sample = torch.cat([latents[:, :, list(window)] for window in self.windows[index : index + count]])
        pose = [torch.cat(level) for level in zip(*self._features[index : index + count], strict=True)]
        context = self._token.expand(len(sample), -1, -1)
        unread = 0
        if self.guided:
            unread = len(sample)
            sample = torch.cat([sample, sample])
            context = torch.cat([torch.zeros_like(context), context])
        reference = Reference(self._reference.keys_values, unread)
        velocities = self._unet(sample.to(context.dtype), timestep, context, pose=pose, reference=reference)
        return velocities.to(latents.dtype)

    def velocity(self, latents: torch.Tensor, timestep: int, tick: Callable[[], None] = lambda: None) -> torch.Tensor:
        """The guided velocity (1, 4, F, H, W) of all frames, averaged where windows overlap.

        `tick` is called after each run of the UNet; it may raise to stop.
        """
        total = torch.zeros_like(latents)
        times = torch.zeros(latents.shape[2], device=latents.device, dtype=latents.dtype)
        for index in range(0, len(self.windows), self.batch):
            velocities = self.predict(latents, timestep, index, self.batch)
            if self.guided:
                blind, seeing = velocities.chunk(2)
                velocities = blind + self.cfg * (seeing - blind)
            for window, velocity in zip(self.windows[index : index + self.batch], velocities, strict=True):
                total[0, :, list(window)] += velocity
                times[list(window)] += 1
            tick()
        if self.sum_overlaps and not self.guided:
            return total
        return total / times[:, None, None]


def denoise(
    denoiser: Denoiser,
    noise: torch.Tensor,
    steps: int = 25,
    *,
    schedule: NoiseSchedule | None = None,
    callback: StepCallback = nobody_watches,
    progress: Progress = no_progress,
) -> torch.Tensor:
    """Noise (1, 4, F, H, W) to clean latents of a video.

    `progress` is called after each run of the UNet, `callback` after each step.

    Raises TalkingPortraitError when the windows leave frames out.
    """
    frames = noise.shape[2]
    if {i for window in denoiser.windows for i in window} != set(range(frames)):
        raise TalkingPortraitError(
            f"The windows do not cover the {frames} frames of the noise exactly; plan them for this number of frames."
        )
    done, total = 0, steps * denoiser.evaluations

    def tick() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    def predict(latents: torch.Tensor, timestep: int) -> torch.Tensor:
        return denoiser.velocity(latents, timestep, tick)

    return sample_ddim(predict, noise, schedule or published_schedule(), steps, callback=callback)
