"""Building blocks of AniTalker's stage 1: LIA's, which are StyleGAN2's, in plain torch.

Names are the published ones. Weights are stored unscaled and divided by the root of their fan-in where they are used
("equalised learning rate").

Source: Wang et al. 2022 (LIA); Karras et al. 2020 (StyleGAN2); AniTalker's published program.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

SLOPE, GAIN = 0.2, math.sqrt(2)
"""Every activation is a leaky ReLU times the root of two."""
TAPS = 4
"""Of the low-pass filter, on either axis."""
TINY = 1e-8


def _unit(weight: torch.Tensor) -> float:
    """One over the root of the number of inputs to each output."""
    return 1 / math.sqrt(weight.shape[-1] if weight.ndim == 2 else math.prod(weight.shape[-3:]))


def _per_channel(kernel: torch.Tensor, channels: int) -> torch.Tensor:
    return kernel.expand(channels, 1, TAPS, TAPS)


class EqualLinear(nn.Module):
    """A linear layer with equalised weights and a plain bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight * _unit(self.weight), self.bias)


class EqualConv(nn.Module):
    """A convolution with equalised weights."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        return F.conv2d(x, self.weight * _unit(self.weight), bias, self.stride, self.padding)


class ActivationBias(nn.Module):
    """What the published files keep apart from its convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(1, channels, 1, 1))


class Blur(nn.Module):
    """The low-pass filter, with `before` zeros to the left and above and `after` to the right and below."""

    kernel: torch.Tensor

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.pad, self.stride = (before, after, before, after), stride
        self.register_buffer("kernel", torch.empty(TAPS, TAPS))

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        channels = x.shape[1]
        padding = 0
        if len(set(self.pad)) == 1:
            padding = self.pad[0]
        else:
            x = F.pad(x, self.pad)
        kernel = _per_channel(self.kernel, channels)
        return F.conv2d(x, kernel, bias, stride=self.stride, padding=padding, groups=channels)


class Upsample(nn.Module):
    """Twice the size: zeros between the pixels, then the low-pass filter."""

    kernel: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.empty(TAPS, TAPS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        channels = x.shape[1]
        return F.conv_transpose2d(x, _per_channel(self.kernel, channels), stride=2, padding=1, groups=channels)


class ConvLayer(nn.Sequential):
    """A convolution, to half the size when `down`, with bias and activation or without both.

    The published names are places in this list. A 1 x 1 convolution reads every second blurred pixel, so the blur
    computes no others.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, down: bool = False, activate: bool = True) -> None:
        padding = TAPS - 2 + kernel - 1
        skipped = down and kernel == 1
        convolution = EqualConv(inputs, outputs, kernel, 2 if down and not skipped else 1, 0 if down else kernel // 2)
        super().__init__(
            *([Blur((padding + 1) // 2, padding // 2, 2 if skipped else 1)] if down else []),
            convolution,
            *([ActivationBias(outputs)] if activate else []),
        )
        self.activated = activate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.activated:
            return super().forward(x)
        *before, convolution, activation = self
        for layer in before:
            x = layer(x)
        bias = cast("ActivationBias", activation).bias.flatten()
        return F.leaky_relu(convolution(x, bias), SLOPE, inplace=True).mul_(GAIN)


class ResBlock(nn.Module):
    """Two convolutions, the second to half the size, and a short cut; scaled to keep the power."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = ConvLayer(inputs, inputs, 3)
        self.conv2 = ConvLayer(inputs, outputs, 3, down=True)
        self.skip = ConvLayer(inputs, outputs, 1, down=True, activate=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv2(self.conv1(x)).add_(self.skip(x)).div_(GAIN)


class ModulatedConv(nn.Module):
    """A convolution whose inputs a style vector weighs, optionally to twice the size.

    With `demodulate` each output channel is brought to the power it has for a neutral style.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, style: int, *, up: bool = False, demodulate: bool = True
    ) -> None:
        super().__init__()
        self.demodulate = demodulate
        self.weight = nn.Parameter(torch.empty(1, outputs, inputs, kernel, kernel))
        self.modulation = EqualLinear(style, inputs)
        self.blur: Blur | None = Blur(1, 1) if up else None

    def forward(
        self, x: torch.Tensor, style: torch.Tensor, bias: torch.Tensor | None = None, gain: float = 1.0
    ) -> torch.Tensor:
        """Features (B, inputs, H, W) and styles (B, style) to (B, outputs, H', W'), times `gain`, plus `bias`.

        A frame on its own gets a kernel of its own where that has fewer numbers than its features; else the kernel is
        shared and the features are weighed, before and after it. Both give the same.
        """
        weight = self.weight[0]
        scales = self.modulation(style) * _unit(weight)
        factors = scales.new_full((len(x), len(weight)), gain)
        if self.demodulate:
            factors *= torch.rsqrt(scales.square() @ weight.square().sum((2, 3)).T + TINY)
        if len(x) == 1 and x.numel() > weight.numel():
            return self._convolved(x, weight * scales[0, :, None, None] * factors[0, :, None, None, None], bias)
        x = self._convolved(x * scales[:, :, None, None], weight, None)
        factors = factors[:, :, None, None]
        return x * factors if bias is None else torch.addcmul(bias[:, None, None], x, factors)

    def _convolved(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if self.blur is None:
            return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
        return self.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), bias)


class StyledConv(nn.Module):
    """A modulated 3 x 3 convolution with bias and activation. The noise of the published one is never given."""

    def __init__(self, inputs: int, outputs: int, style: int, *, up: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, 3, style, up=up)
        self.activate = ActivationBias(outputs)

    def forward(self, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        # The gain goes in before the activation, which is the same for a positive one.
        bias = self.activate.bias.flatten() * GAIN
        return F.leaky_relu(self.conv(x, style, bias, GAIN), SLOPE, inplace=True)
