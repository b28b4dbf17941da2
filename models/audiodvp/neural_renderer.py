"""The neural face renderer: seven rendered lower faces to the photographic one in the middle.

pix2pix's U-Net (Isola et al., CVPR 2017) with AudioDVP's refining convolutions before each transposed one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

_DROPOUT = 0.5
_MOST_CHANGE = 2.0
"""From black to white."""
_SMOOTHING = (1, 2, 1)
"""Of renders that are continued: about as wide as the colours of a mesh with a vertex every two pixels."""
_LEVELS = 5
"""Halvings over which a render is continued: as far as 32 pixels."""
_WITH_DROPOUT = 3
"""How many of the innermost blocks drop features in training (published)."""


@dataclass(frozen=True)
class NeuralRendererConfig:
    """`downs` halvings of the image, whose sides are multiples of 2 ** downs; the sizes are the published `unet_256`.

    A network of 32 channels without `refine` is small enough to be trained on a CPU. With `residual`, which is ours,
    the network's output is added to the render in the middle: lips then move as rendered before anything is learnt,
    where a network that makes the whole image first learns the mean face. With `continued` that render is first
    smoothed and continued beyond the mesh, see `continued_render`.
    """

    in_channels: int = 21
    out_channels: int = 3
    base_channels: int = 64
    downs: int = 8
    refine: bool = True
    residual: bool = False
    continued: bool = False

    @property
    def channels(self) -> tuple[int, ...]:
        """After each halving."""
        return tuple(self.base_channels * min(2**level, 8) for level in range(self.downs))


class Refine(nn.Module):
    """Two convolutions with batch norm."""

    def __init__(self, channels: int, *, dropout: bool) -> None:
        super().__init__()
        self.model = nn.Sequential()
        for _ in range(2):
            layers: list[nn.Module] = [nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)]
            self.model.append(nn.Sequential(*layers, *([nn.Dropout(_DROPOUT)] if dropout else []), nn.ReLU()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


class UNetBlock(nn.Module):
    """Halves the image, runs the next block, doubles the image; except outermost, appends the result to the input.

    The order of the layers in `model` is that of the published file; their numbers are part of its names.
    """

    def __init__(self, config: NeuralRendererConfig, level: int = 0) -> None:
        super().__init__()
        self.outermost, innermost = level == 0, level == config.downs - 1
        inner = config.channels[level]
        outer = config.out_channels if self.outermost else config.channels[level - 1]
        dropout = not self.outermost and level >= config.downs - _WITH_DROPOUT

        before = config.in_channels if self.outermost else outer
        down: list[nn.Module] = [nn.Conv2d(before, inner, 4, stride=2, padding=1, bias=False)]
        if not self.outermost:
            down.insert(0, nn.LeakyReLU(0.2))
        if not self.outermost and not innermost:
            down.append(nn.BatchNorm2d(inner))

        within = inner if innermost else 2 * inner
        up: list[nn.Module] = [nn.ReLU()]
        if config.refine:
            up.append(Refine(within, dropout=dropout))
        up.append(nn.ConvTranspose2d(within, outer, 4, stride=2, padding=1, bias=self.outermost))
        up.append(nn.Tanh() if self.outermost else nn.BatchNorm2d(outer))
        if dropout:
            up.append(nn.Dropout(_DROPOUT))

        middle = [] if innermost else [UNetBlock(config, level + 1)]
        self.model = nn.Sequential(*down, *middle, *up)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # In the published program the activation changes `x` in place before it is appended; the ReLU that follows
        # makes both the same.
        result = self.model(x)
        return result if self.outermost else torch.cat([x, result], 1)


class NeuralRenderer(nn.Module):
    """See the module."""

    render_kernel: torch.Tensor

    def __init__(self, config: NeuralRendererConfig | None = None) -> None:
        super().__init__()
        self.config = config or NeuralRendererConfig()
        self.model = UNetBlock(self.config)
        if self.config.residual:
            self.render_weight = nn.Parameter(torch.ones(()))
        if self.config.continued:
            row = torch.tensor(_SMOOTHING, dtype=torch.float32)
            self.register_buffer("render_kernel", row[:, None] * row / row.sum() ** 2)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Seven images (B, 21, H, W), RGB after RGB in -1..1, to one (B, 3, H, W) in -1..1.

        Images beyond the ends of a clip are 0, which is grey, while a background is -1 (published).
        """
        result = self.model(windows)
        if not self.config.residual:
            return result
        renders = windows.unflatten(1, (-1, self.config.out_channels))
        render = renders[:, renders.shape[1] // 2]
        if self.config.continued:
            render = continued_render(render, self.render_kernel)
        changed = self.render_weight * render + _MOST_CHANGE * result
        return changed if self.training else changed.clamp(-1, 1)


def continued_render(render: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Renders (B, 3, H, W) in -1..1 without the edge to their black background, -1.

    The mask of the lower face reaches beyond the mesh where the mouth is less open than it can be. There a network that
    adds to the render would have to cancel a jagged edge from skin to black, pixel by pixel, which leaves a dark line
    along the chin. So colours are smoothed by `kernel` (3, 3), and what the mesh does not cover is filled from the
    nearest of a pyramid's levels that has colours.
    """
    colours = (render + 1) * (render > -1).any(1, keepdim=True)
    layers = torch.cat([colours, (render > -1).any(1, keepdim=True).to(render)], 1)
    channels = layers.shape[1]
    layers = F.conv2d(layers, kernel.to(layers).expand(channels, 1, 3, 3), padding=1, groups=channels)
    levels = [layers]
    while len(levels) <= _LEVELS and min(levels[-1].shape[-2:]) > 1:
        levels.append(F.avg_pool2d(levels[-1], 2))
    filled = torch.zeros_like(levels[-1][:, :-1])
    for layers in reversed(levels):
        colours, weight = layers[:, :-1], layers[:, -1:]
        coarser = F.interpolate(filled, layers.shape[-2:], mode="bilinear", align_corners=False)
        filled = torch.where(weight > 0, colours / weight.clamp(min=1e-6), coarser)
    return filled - 1


def initialise(network: nn.Module, deviation: float = 0.02) -> None:
    """Random weights as pix2pix draws them, for the U-Net and its discriminator.

    Those that PyTorch draws take many times as many steps to train.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, deviation)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, deviation)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
