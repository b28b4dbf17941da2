"""Stage 1's renderer: a portrait's feature maps, warped and painted over level by level as a motion code says.

Source: AniTalker's published program; Wang et al. 2022 (LIA). Kept as published, since the weights have learned it:
the sampling grid puts its corners on the middles of the corner pixels while the sampling takes them for the picture's
corners, so no flow at all still shrinks a map a little; and the picture is painted from the warped map alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from .layers import ConvLayer, ModulatedConv, StyledConv, Upsample


@dataclass(frozen=True)
class RendererConfig:
    """`channels` of each level from 4 x 4 to the full size; `style` of the vectors; `motion` of the code."""

    channels: tuple[int, ...] = (512, 512, 512, 512, 256, 128, 64)
    style: int = 512
    motion: int = 20

    @property
    def size(self) -> int:
        """Side of the picture in pixels."""
        return 4 * 2 ** (len(self.channels) - 1)


class Direction(nn.Module):
    """The directions that the numbers of a motion code move along."""

    def __init__(self, style: int, motion: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(style, motion))

    def basis(self) -> torch.Tensor:
        """Orthonormal directions (style, motion) by Householder reflections, whose signs give the codes their meaning.

        Computed on the CPU, so that they are the same everywhere.
        """
        return torch.linalg.qr(self.weight.float().cpu() + 1e-8)[0].to(self.weight)


class ConstantInput(nn.Module):
    """What the first level starts from."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.empty(1, channels, 4, 4))


class ToRGB(nn.Module):
    """Features to colours, on top of the smaller picture of the level before."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.upsample = Upsample()
        self.conv = ConvLayer(channels, 3, 1)
        self.bias = nn.Parameter(torch.empty(1, 3, 1, 1))

    def forward(self, x: torch.Tensor, previous: torch.Tensor | None) -> torch.Tensor:
        colours = self.conv(x) + self.bias
        return colours if previous is None else colours + self.upsample(previous)


class ToFlow(nn.Module):
    """Features to where each pixel of a map comes from, and how much of it is shown."""

    def __init__(self, channels: int, style: int) -> None:
        super().__init__()
        self.upsample = Upsample()
        self.conv = ModulatedConv(channels, 3, 1, style, demodulate=False)
        self.bias = nn.Parameter(torch.empty(1, 3, 1, 1))

    def forward(self, x: torch.Tensor, style: torch.Tensor, previous: torch.Tensor | None) -> torch.Tensor:
        """(B, 3, R, R): flow to the right and down and visibility, all before their squashing."""
        raw = self.conv(x, style)[0] + self.bias
        return raw if previous is None else raw + self.upsample(previous)


def sampling_grid(raw: torch.Tensor) -> torch.Tensor:
    """Where to sample, (B, R, R, 2) in -1..1, x before y."""
    size = raw.shape[-1]
    line = torch.linspace(-1, 1, size, dtype=torch.float64).to(raw)
    flow = raw[:, :2].tanh()
    return torch.stack([flow[:, 0] + line, flow[:, 1] + line[:, None]], dim=-1)


def sampled(maps: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Maps (1 or B, C, R, R) at a grid's places; black outside."""
    return F.grid_sample(maps.expand(len(grid), -1, -1, -1), grid, align_corners=False)


class Renderer(nn.Module):
    """See the module."""

    def __init__(self, config: RendererConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or RendererConfig()
        channels, style = config.channels, config.style
        self.direction = Direction(style, config.motion)
        self.input = ConstantInput(channels[0])
        self.conv1 = StyledConv(channels[0], channels[0], style)
        self.convs = nn.ModuleList()
        for narrow, wide in zip(channels, channels[1:], strict=False):
            self.convs.append(StyledConv(narrow, wide, style, up=True))
            self.convs.append(StyledConv(wide, wide, style))
        self.to_rgbs = nn.ModuleList([ToRGB(width) for width in channels[1:]])
        self.to_flows = nn.ModuleList([ToFlow(width, style) for width in channels[1:]])

    def forward(
        self, start: torch.Tensor, codes: torch.Tensor, maps: list[torch.Tensor], basis: torch.Tensor
    ) -> torch.Tensor:
        """Pictures (B, 3, size, size), nominally -1..1 and not limited.

        Args:
            start: appearance (1 or B, style).
            codes: (B, motion).
            maps: the portrait's features (1 or B, C, R, R), R = 8 first.
            basis: from `Direction.basis`, once for all frames.
        """
        style = start + codes @ basis.T
        x = self.conv1(self.input.input.expand(len(codes), -1, -1, -1), style)
        raw: torch.Tensor | None = None
        picture: torch.Tensor | None = None
        for level, features in enumerate(maps):
            x = self.convs[2 * level + 1](self.convs[2 * level](x, style), style)
            raw = cast("torch.Tensor", self.to_flows[level](x, style, raw))
            shown = raw[:, 2:].sigmoid()
            warped = sampled(features, sampling_grid(raw)) * shown
            picture = self.to_rgbs[level](warped, picture)
            x = warped + x * (1 - shown)
        return cast("torch.Tensor", picture)
