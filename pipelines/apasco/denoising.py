"""APasco's denoising of one clip: noise to latents, step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from ...models.diffusion.attention import Reference
from ...models.diffusion.audio_attention import Speech
from ...models.diffusion.compiling import set_compiled
from ...models.diffusion.unet import DeepFeatures, UNet
from ..diffusion.deep_cache import DeepCache
from ..diffusion.samplers import StepCallback, sample_ddim
from ..finite import check_finite
from ..memory import HalvingBatches, loaded
from .portrait import PreparedPortrait
from .settings import Networks, Settings


class Denoiser:
    """The denoising UNet, ready for one clip.

    Unconditional and conditional samples pass it together, or one after the other where memory does not suffice. In
    steps without guidance the conditional sample passes it alone, with all that it attends to in the others.
    """

    def __init__(
        self,
        networks: Networks,
        portrait: PreparedPortrait,
        reference: Reference,
        speech: Speech,
        settings: Settings,
    ) -> None:
        self._networks, self._settings = networks, settings
        self._portrait, self._reference, self._speech = portrait, reference, speech
        self._batches, self._deep = HalvingBatches(portrait.rows, "sample"), DeepCache(settings.deep_every)
        unet, self.device = loaded(networks.denoising_unet, UNet)
        set_compiled(unet, settings.compiled)

    def velocity(self, latents: torch.Tensor, timestep: int, step: int = 0) -> torch.Tensor:
        """The velocity (1, 4, F, h, w) of a step, counted from 0, guided or not; in the precision of the latents."""
        rows = self._portrait.rows
        guided = self._settings.is_guided(step)
        first = 0 if guided else rows - 1
        self._deep.begin(step)

        def predict(start: int, end: int) -> torch.Tensor:
            return self._predict(latents, timestep, first + start, first + end)

        velocities = torch.cat(list(self._batches.each(rows - first, predict))).to(latents.dtype)
        if not guided:
            return velocities
        unconditional, conditional = velocities.chunk(2)
        return unconditional + self._settings.cfg * (conditional - unconditional)

    def _predict(self, latents: torch.Tensor, timestep: int, start: int, end: int) -> torch.Tensor:
        portrait = self._portrait
        dtype = self._networks.dtype
        unconditional_rows = portrait.rows - 1 - start
        reference = replace(
            self._reference,
            unconditional_rows=min(unconditional_rows, end - start),
            motion={name: tokens[start:end] for name, tokens in self._reference.motion.items()},
        )
        has_audio = end == portrait.rows
        feature = portrait.feature[start:end].expand(-1, -1, latents.shape[2], -1, -1)
        unet, device = loaded(self._networks.denoising_unet, UNet)

        def network(deep: DeepFeatures | None) -> torch.Tensor:
            return unet(
                latents.to(device, dtype).expand(end - start, -1, -1, -1, -1),
                timestep,
                portrait.tokens[start:end].to(device),
                pose=[feature.to(device)],
                reference=reference,
                speech=self._speech if has_audio else self._speech.silent(),
                deep=deep,
            )

        return self._deep.run(range(start, end), network)


def denoise(
    denoiser: Denoiser, noise: torch.Tensor, settings: Settings, callback: StepCallback, ticked: Callable[[], None]
) -> torch.Tensor:
    """Noise (1, 4, F, h, w) to clean latents. `ticked` is called after each run of the UNet; it may raise to stop.

    Raises TalkingPortraitError when the network gives NaN.
    """

    step = 0

    def predict(latents: torch.Tensor, timestep: int) -> torch.Tensor:
        nonlocal step
        velocity = denoiser.velocity(latents, timestep, step)
        step += 1
        ticked()
        return velocity

    latents = sample_ddim(predict, noise, settings.noise_schedule(), settings.steps, callback=callback)
    check_finite(latents, "The denoising UNet", "load net.pth in bfloat16 or float32, or download it again")
    return latents
