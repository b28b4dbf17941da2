"""The UNet's convolutions: residual blocks with the time step's embedding, and changes of resolution."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from .attention import repeat_rows


def sinusoidal_embedding(timesteps: torch.Tensor, channels: int) -> torch.Tensor:
    """Time steps (n,) as (n, channels): cosines, then sines, of falling rates (DDPM, Ho et al. 2020; float32)."""
    half = channels // 2
    rates = torch.exp(torch.arange(half, device=timesteps.device) * (-math.log(10000.0) / half))
    angles = timesteps.float()[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimeEmbedding(nn.Module):
    """Two linear layers over the sinusoidal embedding."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(channels, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear_2(F.silu(self.linear_1(x)))


class ResnetBlock(nn.Module):
    """Two normed convolutions, the time step added between them, and a shortcut."""

    def __init__(self, channels: int, out_channels: int, time: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels, eps=1e-5)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(time, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=1e-5)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(channels, out_channels, 1) if channels != out_channels else nn.Identity()

    def forward(self, hidden: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """(rows, C, H, W) and the time embedding of each sample (samples, width) to (rows, C', H, W)."""
        # The bias of the convolution is added with the time step: one pass over the pixels in place of two.
        shift = self.time_emb_proj(F.silu(time)) + self.conv1.bias
        inner = F.conv2d(F.silu(self.norm1(hidden)), self.conv1.weight, padding=1)
        inner = inner + repeat_rows(shift, len(hidden))[:, :, None, None]
        return self.conv_shortcut(hidden) + self.conv2(F.silu(self.norm2(inner)))


class Downsample(nn.Module):
    """Halves height and width, rounded up."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.conv(hidden)


class Upsample(nn.Module):
    """Nearest pixels of a larger size, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, hidden: torch.Tensor, size: torch.Size) -> torch.Tensor:
        return self.conv(F.interpolate(hidden, size=size, mode="nearest"))
