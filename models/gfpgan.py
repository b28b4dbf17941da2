"""GFPGAN: a blurred face becomes a sharp one.

A U-Net encodes the face and predicts, level by level, how a StyleGAN2 decoder's features are scaled and shifted
(Wang et al. 2021, section 3; the "clean" network of versions 1.3 and 1.4, in plain convolutions). Only half of the
channels are modulated so, and each layer has a style vector of its own.

The published program draws the decoder's noise anew at every call, which makes a video's skin flicker; here the noise
that the file holds is used, so the same face always gives the same result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .checkpoints import expect_kind, layer_count, read_checkpoint, sizes_of, strict_load
from .errors import TalkingPortraitError

_SLOPE = 0.2
_EPSILON = 1e-8
MAX_LEVELS = 10
"""Halvings of the picture; published networks have 7."""
_MAPPING_LAYERS = 8
"""Of the decoder's mapping network, which the file holds and nothing uses: the styles come from the U-Net."""


@dataclass(frozen=True)
class GFPGANConfig:
    """Channels of each level, the full size first and 4 x 4 last: `unet` of the U-Net, `decoder` of the decoder."""

    unet: tuple[int, ...] = (32, 64, 128, 256, 256, 256, 256, 256)
    decoder: tuple[int, ...] = (64, 128, 256, 512, 512, 512, 512, 512)
    style: int = 512

    @property
    def size(self) -> int:
        """Side of the picture in pixels."""
        return 4 * 2 ** (len(self.unet) - 1)


def _scaled(x: torch.Tensor, factor: float) -> torch.Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


class ResBlock(nn.Module):
    """Two convolutions with a change of size by `factor` between, and a straight way past them."""

    def __init__(self, channels_in: int, channels_out: int, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.conv1 = nn.Conv2d(channels_in, channels_in, 3, padding=1)
        self.conv2 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.skip = nn.Conv2d(channels_in, channels_out, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = _scaled(F.leaky_relu(self.conv1(x), _SLOPE), self.factor)
        return F.leaky_relu(self.conv2(inner), _SLOPE) + self.skip(_scaled(x, self.factor))


class ModulatedConv(nn.Module):
    """A convolution whose input channels a style weighs (StyleGAN2); `demodulate` brings the result to unit spread."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, style: int, *, demodulate: bool) -> None:
        super().__init__()
        self.demodulate = demodulate
        self.modulation = nn.Linear(style, channels_in)
        self.weight = nn.Parameter(torch.empty(1, channels_out, channels_in, kernel, kernel))

    def forward(self, x: torch.Tensor, style: torch.Tensor, bias: torch.Tensor, gain: float = 1.0) -> torch.Tensor:
        """x (B, C, H, W) under styles (B, style), times `gain`, plus `bias`."""
        # Each face has kernels of its own: a group of one convolution over all faces.
        weight = self.weight * self.modulation(style)[:, None, :, None, None]
        if self.demodulate:
            spread = torch.rsqrt(weight.float().square().sum((2, 3, 4), keepdim=True) + _EPSILON)
            weight = weight * (spread * gain).to(weight.dtype)
        faces = len(x)
        y = F.conv2d(
            x.reshape(1, -1, *x.shape[2:]),
            weight.flatten(0, 1),
            bias.flatten().repeat(faces),
            padding=weight.shape[-1] // 2,
            groups=faces,
        )
        return y.unflatten(1, (faces, -1))[0]


class StyleConv(nn.Module):
    """Modulated convolution, noise, bias. `weight` is the noise's."""

    def __init__(self, channels_in: int, channels_out: int, style: int, *, upsample: bool) -> None:
        super().__init__()
        self.upsample = upsample
        self.modulated_conv = ModulatedConv(channels_in, channels_out, 3, style, demodulate=True)
        self.weight = nn.Parameter(torch.empty(1))
        self.bias = nn.Parameter(torch.empty(1, channels_out, 1, 1))

    def forward(self, x: torch.Tensor, style: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        x = self.modulated_conv(_scaled(x, 2) if self.upsample else x, style, self.bias, math.sqrt(2))
        return F.leaky_relu(x + self.weight * noise, _SLOPE)


class ToRGB(nn.Module):
    """One level's part of the picture, added to what the levels below made."""

    def __init__(self, channels: int, style: int) -> None:
        super().__init__()
        self.modulated_conv = ModulatedConv(channels, 3, 1, style, demodulate=False)
        self.bias = nn.Parameter(torch.empty(1, 3, 1, 1))

    def forward(self, x: torch.Tensor, style: torch.Tensor, below: torch.Tensor | None = None) -> torch.Tensor:
        colours = self.modulated_conv(x, style, self.bias)
        return colours if below is None else colours + _scaled(below, 2)


class Constant(nn.Module):
    """What the decoder starts from."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, channels, 4, 4))


class Decoder(nn.Module):
    """StyleGAN2's synthesis, with half of each level's features scaled and shifted from outside."""

    def __init__(self, config: GFPGANConfig) -> None:
        super().__init__()
        style = config.style
        deepest, *upwards = reversed(config.decoder)
        self.style_mlp = nn.Sequential(
            *[layer for _ in range(_MAPPING_LAYERS) for layer in (nn.Identity(), nn.Linear(style, style))]
        )
        self.constant_input = Constant(deepest)
        self.style_conv1 = StyleConv(deepest, deepest, style, upsample=False)
        self.to_rgb1 = ToRGB(deepest, style)
        self.style_convs, self.to_rgbs, self.noises = nn.ModuleList(), nn.ModuleList(), nn.Module()
        self.noises.register_buffer("noise0", torch.empty(1, 1, 4, 4))
        for level, (before, channels) in enumerate(zip((deepest, *upwards), upwards, strict=False)):
            side = 8 * 2**level
            self.style_convs.append(StyleConv(before, channels, style, upsample=True))
            self.style_convs.append(StyleConv(channels, channels, style, upsample=False))
            self.to_rgbs.append(ToRGB(channels, style))
            for number in (2 * level + 1, 2 * level + 2):
                self.noises.register_buffer(f"noise{number}", torch.empty(1, 1, side, side))

    def _noise(self, number: int) -> torch.Tensor:
        return self.noises.get_buffer(f"noise{number}")

    def forward(self, styles: torch.Tensor, conditions: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        """Styles (B, layers, style) and each level's (scale, shift), 8 x 8 first, to colours (B, 3, size, size)."""
        x = self.constant_input.weight.expand(len(styles), -1, -1, -1)
        x = self.style_conv1(x, styles[:, 0], self._noise(0))
        colours = self.to_rgb1(x, styles[:, 1])
        for level, (scale, shift) in enumerate(conditions):
            first = 2 * level + 1
            x = self.style_convs[2 * level](x, styles[:, first], self._noise(first))
            kept, modulated = x.tensor_split([x.shape[1] - scale.shape[1]], dim=1)
            x = torch.cat([kept, modulated * scale + shift], dim=1)
            x = self.style_convs[2 * level + 1](x, styles[:, first + 1], self._noise(first + 1))
            colours = self.to_rgbs[level](x, styles[:, first + 2], colours)
        return colours


class GFPGAN(nn.Module):
    """A blurred face to a sharp one. The largest published network takes and gives 512 x 512 pixels."""

    def __init__(self, config: GFPGANConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or GFPGANConfig()
        channels, deepest = config.unet, config.unet[-1]
        upwards = channels[-2::-1]
        self.conv_body_first = nn.Conv2d(3, channels[0], 1)
        self.conv_body_down = nn.ModuleList(
            ResBlock(*pair, factor=0.5) for pair in zip(channels, channels[1:], strict=False)
        )
        self.final_conv = nn.Conv2d(deepest, deepest, 3, padding=1)
        self.conv_body_up = nn.ModuleList(
            ResBlock(*pair, factor=2) for pair in zip((deepest, *upwards), upwards, strict=False)
        )
        self.final_linear = nn.Linear(deepest * 16, 2 * len(channels) * config.style)
        # Pictures at each level, which only training looks at.
        self.toRGB = nn.ModuleList(nn.Conv2d(width, 3, 1) for width in upwards)
        halves = [width // 2 for width in config.decoder[-2::-1]]
        self.condition_scale = nn.ModuleList(_condition(*pair) for pair in zip(upwards, halves, strict=True))
        self.condition_shift = nn.ModuleList(_condition(*pair) for pair in zip(upwards, halves, strict=True))
        self.stylegan_decoder = Decoder(config)

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """Faces (B, 3, size, size), RGB in -1..1, aligned to the FFHQ template, to restored ones, about -1..1."""
        x = F.leaky_relu(self.conv_body_first(faces), _SLOPE)
        skips = []
        for down in self.conv_body_down:
            x = down(x)
            skips.append(x)
        x = F.leaky_relu(self.final_conv(x), _SLOPE)
        styles = self.final_linear(x.flatten(1)).unflatten(1, (-1, self.config.style))
        conditions = []
        for up, scale, shift in zip(self.conv_body_up, self.condition_scale, self.condition_shift, strict=True):
            x = up(x + skips.pop())
            conditions.append((scale(x), shift(x)))
        return self.stylegan_decoder(styles, conditions)


def _condition(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_in, 3, padding=1),
        nn.LeakyReLU(_SLOPE),
        nn.Conv2d(channels_in, channels_out, 3, padding=1),
    )


def load_gfpgan(path: str | Path, *, dtype: torch.dtype = torch.float32) -> GFPGAN:
    """GFPGANv1.3.pth or GFPGANv1.4.pth. Raises TalkingPortraitError for another file."""
    state = expect_kind(read_checkpoint(path), ("gfpgan",), "a GFPGAN face restorer", path)
    return build_gfpgan(state, path=path, dtype=dtype)


def build_gfpgan(state: Mapping[str, torch.Tensor], *, path: str | Path, dtype: torch.dtype = torch.float32) -> GFPGAN:
    """From named tensors, on the CPU, for inference; sizes are read off the tensors. `path` names them in errors."""
    with sizes_of(state, path), torch.device("meta"):
        network = GFPGAN(_derive_config(state)).to(dtype)
    strict_load(network, state, path=path)
    return network.eval().requires_grad_(False)


def restorer_from(upscale_model: Any, *, dtype: torch.dtype = torch.float32) -> GFPGAN:
    """A GFPGAN that another program has loaded: an object whose `model` is a torch module with the published names.

    Raises TalkingPortraitError for another network.
    """
    module = getattr(upscale_model, "model", None)
    if not isinstance(module, nn.Module):
        raise TalkingPortraitError(
            f"The upscale model is {type(upscale_model).__name__}, but a loaded GFPGAN is expected; connect Load "
            "Upscale Model, or Load Face Restorer."
        )
    state = expect_kind(module.state_dict(), ("gfpgan",), "a GFPGAN face restorer", "The upscale model")
    return build_gfpgan(
        {name: tensor.to("cpu") for name, tensor in state.items()}, path="The upscale model", dtype=dtype
    )


def _derive_config(state: Mapping[str, torch.Tensor]) -> GFPGANConfig:
    def channels(name: str, axis: int = 0) -> int:
        return state[name].shape[axis] if name in state else 0

    levels = layer_count(state, "toRGB.")
    if levels > MAX_LEVELS:
        raise ValueError(f"{levels} resolutions")
    return GFPGANConfig(
        unet=(
            channels("conv_body_first.weight"),
            *(channels(f"conv_body_down.{i}.skip.weight") for i in range(levels)),
        ),
        decoder=(
            *(channels(f"stylegan_decoder.to_rgbs.{i}.modulated_conv.weight", 2) for i in reversed(range(levels))),
            channels("stylegan_decoder.constant_input.weight", 1),
        ),
        style=channels("stylegan_decoder.style_mlp.1.weight"),
    )
