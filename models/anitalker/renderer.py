"""Stage 1's renderer: a portrait's feature maps, warped and painted over level by level by a motion code.

Source: AniTalker's published program; Wang et al. 2022 (LIA). Kept as published, since the weights have learned it:
the sampling grid puts its corners on the middles of the corner pixels while the sampling takes them for the picture's
corners, so no flow at all still shrinks a map a little; and the picture is painted from the warped map alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import nn

from .encoder import Encoded
from .layers import GAIN, SLOPE, ActivationBias, ConvLayer, ModulatedConv, StyledConv, Upsample

APART = 64
"""Side of a map from which on a processor paints one frame after the other."""


@dataclass(frozen=True)
class Scene:
    """A portrait made ready for all its frames.

    `start` (B, style), `maps` (B, C, R, R), `colours` (B, 3, size, size) of the largest map, and the `basis` of motion;
    B is 1, or the number of frames. `layout` in memory that features are to have.
    """

    start: torch.Tensor
    maps: list[torch.Tensor]
    colours: torch.Tensor
    basis: torch.Tensor
    layout: torch.memory_format


class Canvas(NamedTuple):
    """Between two levels: features `x`, `raw` flow and visibility, and the `picture` so far."""

    x: torch.Tensor
    raw: Any = None
    picture: Any = None


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

    def mixed(self, x: torch.Tensor) -> torch.Tensor:
        """Features (B, C, H, W) to three channels, before bias and activation."""
        return self.conv[0](x)

    def forward(self, mixed: torch.Tensor, previous: torch.Tensor | None) -> torch.Tensor:
        bias = cast("ActivationBias", self.conv[1]).bias
        colours = F.leaky_relu(mixed + bias, SLOPE) * GAIN + self.bias
        return colours if previous is None else colours + self.upsample(previous)


class ToFlow(nn.Module):
    """Features to where each pixel of a map comes from, and its visibility."""

    def __init__(self, channels: int, style: int) -> None:
        super().__init__()
        self.upsample = Upsample()
        self.conv = ModulatedConv(channels, 3, 1, style, demodulate=False)
        self.bias = nn.Parameter(torch.empty(1, 3, 1, 1))

    def forward(self, x: torch.Tensor, style: torch.Tensor, previous: torch.Tensor | None) -> torch.Tensor:
        """(B, 3, R, R): flow to the right and down and visibility, all before their squashing."""
        raw = self.conv(x, style, self.bias.flatten())
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
    """Feature maps of a portrait and a motion code to a picture."""

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

    def prepare(self, encoded: Encoded) -> Scene:
        """What all frames of one portrait (B = 1) share, or of B portraits, one for each frame."""
        last = cast("ToRGB", self.to_rgbs[-1])
        # On a CPU convolutions to few channels are faster with the channels of a pixel side by side.
        layout = torch.channels_last if encoded.start.device.type == "cpu" else torch.contiguous_format
        maps = [features.contiguous(memory_format=layout) for features in encoded.maps]
        return Scene(encoded.start, maps, last.mixed(maps[-1]), self.direction.basis(), layout)

    def forward(self, scene: Scene, codes: torch.Tensor) -> torch.Tensor:
        """Pictures (B, 3, size, size) for codes (B, motion), nominally -1..1 and not limited."""
        style = scene.start + codes @ scene.basis.T
        constant = self.input.input.expand(len(codes), -1, -1, -1).contiguous(memory_format=scene.layout)
        canvas = Canvas(self.conv1(constant, style))
        # Large maps of many frames do not fit a processor's cache, so there each frame is finished on its own.
        together = len(scene.maps)
        if codes.device.type == "cpu":
            together = sum(features.shape[-1] < APART for features in scene.maps)
        for level in range(together):
            canvas = self._painted(level, canvas, style, scene, slice(None))
        if together == len(scene.maps):
            return canvas.picture
        frames = []
        for i in range(len(codes)):
            own = slice(i, i + 1)
            frame = Canvas(*(part[own] for part in canvas))
            for level in range(together, len(scene.maps)):
                frame = self._painted(level, frame, style[own], scene, own)
            frames.append(frame.picture)
        return torch.cat(frames)

    def _painted(self, level: int, canvas: Canvas, style: torch.Tensor, scene: Scene, frames: slice) -> Canvas:
        """The canvas after one more level."""
        x = self.convs[2 * level + 1](self.convs[2 * level](canvas.x, style), style)
        raw = self.to_flows[level](x, style, canvas.raw)
        visibility, grid = raw[:, 2:].sigmoid(), sampling_grid(raw)
        to_rgb = cast("ToRGB", self.to_rgbs[level])
        if level == len(scene.maps) - 1:
            # Nothing but colours leaves the last level, and they can be mixed before they are sampled.
            return Canvas(x, raw, to_rgb(sampled(_of(scene.colours, frames), grid) * visibility, canvas.picture))
        warped = sampled(_of(scene.maps[level], frames), grid).mul_(visibility)
        return Canvas(torch.addcmul(warped, x, 1 - visibility), raw, to_rgb(to_rgb.mixed(warped), canvas.picture))


def _of(maps: torch.Tensor, frames: slice) -> torch.Tensor:
    """Those of these frames, or the ones that all share."""
    return maps if len(maps) == 1 else maps[frames]
