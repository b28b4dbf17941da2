"""pix2pix's PatchGAN (Isola et al., CVPR 2017), which classifies patches of an image given its input."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class DiscriminatorConfig:
    """`layers` that halve the image; the sizes are the published ones: 21 channels of input and 3 of the image."""

    in_channels: int = 24
    base_channels: int = 64
    layers: int = 3


class Discriminator(nn.Module):
    """Convolutions of 4 pixels; the numbers of the layers in `model` are part of the file's names."""

    def __init__(self, config: DiscriminatorConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DiscriminatorConfig()
        channels = config.base_channels
        layers: list[nn.Module] = [nn.Conv2d(config.in_channels, channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for level in range(1, config.layers + 1):
            wider, stride = config.base_channels * min(2**level, 8), 2 if level < config.layers else 1
            layers += [nn.Conv2d(channels, wider, 4, stride=stride, padding=1, bias=False), nn.BatchNorm2d(wider)]
            layers.append(nn.LeakyReLU(0.2))
            channels = wider
        self.model = nn.Sequential(*layers, nn.Conv2d(channels, 1, 4, padding=1))

    def forward(self, windows: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Windows (B, 21, H, W) and an image (B, 3, H, W), in -1..1, to logits (B, 1, H / 8 - 2, W / 8 - 2)."""
        return self.model(torch.cat([windows, image], 1))
