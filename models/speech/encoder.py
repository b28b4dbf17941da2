"""wav2vec2 and HuBERT, run in parts so that features can change their frame rate in between.

Both are the same network (Baevski et al. 2020, Hsu et al. 2021): strided convolutions over the wave, 50 frames a
second; a projection; a transformer. transformers' public modules or ComfyUI's own do the work; what is added here is
the split, an exact chunked convolution, and hidden states that mean the same under every library version.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from ..errors import TalkingPortraitError

SAMPLE_RATE = 16000
CHUNK_FRAMES = 500
"""Frames that leave the convolutions at once."""

Step = Callable[[], None]
"""Called after each piece of work; may raise to stop."""


def _no_step() -> None:
    pass


def resample_time(features: torch.Tensor, frames: int) -> torch.Tensor:
    """(1, T, C) features at `frames` evenly spaced times, the first and the last kept (linear, corners aligned).

    Source: AniPortrait and Hallo do this between the convolutions and the projection.
    """
    return F.interpolate(features.transpose(1, 2), size=frames, mode="linear", align_corners=True).transpose(1, 2)


def normalise_wave(wave: torch.Tensor) -> torch.Tensor:
    """Zero mean and unit variance over the whole clip: (x - mean) / sqrt(variance + 1e-7), in float64 inside."""
    exact = wave.double()
    return ((exact - exact.mean()) / torch.sqrt(exact.var(correction=0) + 1e-7)).float()


@dataclass(frozen=True)
class SpeechEncoder:
    """A wav2vec2 or HuBERT and how its input is prepared.

    `model` has `feature_extractor`, `feature_projection` and `encoder` in transformers' naming; whoever owns it moves
    it between devices. `name` such as "wav2vec2-base"; `normalise` whether the wave is normalised over the clip first.
    """

    model: Any
    name: str
    normalise: bool = True

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def layers(self) -> int:
        return len(self.model.encoder.layers)

    @property
    def channels(self) -> int:
        return int(self.model.feature_projection.projection.weight.shape[0])

    @property
    def convolutions(self) -> list[tuple[int, int]]:
        """(kernel, stride) of each convolution over time."""
        return [(layer.conv.kernel_size[0], layer.conv.stride[0]) for layer in self.model.feature_extractor.conv_layers]

    def frames(self, samples: int) -> int:
        """Frames that the convolutions make of `samples` at 16 kHz; one second gives 49."""
        for kernel, stride in self.convolutions:
            samples = (samples - kernel) // stride + 1
        return max(samples, 0)

    def pieces(self, samples: int, *, chunk_frames: int = CHUNK_FRAMES) -> int:
        """How often `convolve` calls `step` for `samples` at 16 kHz."""
        count = math.ceil(self.frames(samples) / chunk_frames)
        if self._normalises_over_the_clip:
            (kernel, stride), *later = self.convolutions
            count += math.ceil(((samples - kernel) // stride + 1) / (chunk_frames * _stride(later)))
        return count

    @property
    def _normalises_over_the_clip(self) -> bool:
        first = self.model.feature_extractor.conv_layers[0]
        return isinstance(getattr(first, "layer_norm", None), torch.nn.GroupNorm)

    def prepare(self, wave: torch.Tensor) -> torch.Tensor:
        """(samples,) at 16 kHz, normalised where the network was trained so."""
        return normalise_wave(wave) if self.normalise else wave

    def convolve(
        self,
        wave: torch.Tensor,
        *,
        device: torch.device | None = None,
        chunk_frames: int = CHUNK_FRAMES,
        step: Step = _no_step,
    ) -> torch.Tensor:
        """(samples,) prepared wave to (1, T, C) features on the CPU, in chunks that give exactly what one pass gives.

        The first layer of base models normalises each channel over the whole clip, so its mean and variance are
        gathered in a first pass.

        Raises TalkingPortraitError when the wave is shorter than one frame.
        """
        frames = self.frames(len(wave))
        kernels = self.convolutions
        field = _receptive_field(kernels)
        if frames < 1:
            raise TalkingPortraitError(
                f"The audio has {len(wave)} samples at {SAMPLE_RATE} Hz, but the speech encoder needs at least {field} "
                f"({field * 1000 // SAMPLE_RATE} ms); use a longer recording."
            )
        device = device or self.device
        first, *rest = self.model.feature_extractor.conv_layers
        moments = None
        if self._normalises_over_the_clip:
            moments = self._first_layer_moments(first.conv, wave, device, chunk_frames, step)
        stride = _stride(kernels)
        chunks = []
        for start in range(0, frames, chunk_frames):
            end = min(start + chunk_frames, frames)
            piece = wave[start * stride : (end - 1) * stride + field].to(device)[None]
            hidden = _normalised_layer(first, piece[:, None], moments) if moments else first(piece[:, None])
            for layer in rest:
                hidden = layer(hidden)
            chunks.append(hidden.transpose(1, 2).float().cpu())
            step()
        return torch.cat(chunks, dim=1)

    def _first_layer_moments(
        self, conv: torch.nn.Module, wave: torch.Tensor, device: torch.device, chunk_frames: int, step: Step
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance (C, 1) of the first convolution's output over the whole clip, in float64."""
        (kernel, stride), *later = self.convolutions
        frames = (len(wave) - kernel) // stride + 1
        chunk = chunk_frames * _stride(later)
        count, mean, square = 0, torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        for start in range(0, frames, chunk):
            end = min(start + chunk, frames)
            piece = wave[start * stride : (end - 1) * stride + kernel].to(device)
            variance, centre = torch.var_mean(conv(piece[None, None])[0].float(), dim=-1, correction=0, keepdim=True)
            # Chunks join as in Chan et al. 1979, in float64 on the CPU, since not every device has it.
            size, shift = end - start, centre.cpu().double() - mean
            square = square + variance.cpu().double() * size + shift.square() * (count * size / (count + size))
            mean = mean + shift * (size / (count + size))
            count += size
            step()
        return mean, square / count

    def transform(
        self,
        features: torch.Tensor,
        *,
        every_layer: bool = True,
        mix: torch.Tensor | None = None,
        device: torch.device | None = None,
        step: Step = _no_step,
    ) -> torch.Tensor:
        """(1, T, C) features to hidden states (layers + 1, T, channels) on the CPU, or the last one alone (1, T, ...).

        With `mix`, a share (layers + 1,) for each, their weighted sum (1, T, channels) is gathered on the way.

        State 0 enters the first layer, state i leaves layer i, and the last one is the encoder's output, that is, after
        its final layer norm where the network ends with one. This is what transformers 4 calls hidden_states;
        transformers 5 leaves that norm out of its last one.
        """
        states: list[torch.Tensor] = []
        shares = None if mix is None else iter(mix.tolist())

        def gather(state: torch.Tensor) -> None:
            state = state.float().cpu()
            if shares is None:
                states.append(state)
            elif states:
                states[0].add_(state, alpha=next(shares))
            else:
                states.append(state * next(shares))

        def keep(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if every_layer or shares is not None:
                gather(args[0] if args else kwargs["hidden_states"])
            step()

        hooks = [layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in self.model.encoder.layers]
        try:
            hidden = self.model.feature_projection(features.to(device or self.device))
            output = self.model.encoder(hidden[0] if isinstance(hidden, tuple) else hidden)
        finally:
            for hook in hooks:
                hook.remove()
        gather(output[0])
        return torch.cat(states)


def _receptive_field(kernels: list[tuple[int, int]]) -> int:
    """Samples that one frame is made of."""
    field = 1
    for kernel, stride in reversed(kernels):
        field = (field - 1) * stride + kernel
    return field


def _stride(kernels: list[tuple[int, int]]) -> int:
    """Samples between two frames."""
    stride = 1
    for _, step in kernels:
        stride *= step
    return stride


def _normalised_layer(layer: Any, wave: torch.Tensor, moments: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """The first layer with the clip's moments in place of the chunk's."""
    hidden = layer.conv(wave)
    norm = layer.layer_norm
    mean, variance = moments
    scale = torch.rsqrt(variance + norm.eps) * norm.weight.cpu().double()[:, None]
    shift = norm.bias.cpu().double()[:, None] - mean * scale
    hidden = hidden * scale.float().to(hidden) + shift.float().to(hidden)
    return getattr(layer, "activation", F.gelu)(hidden)
