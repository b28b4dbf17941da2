"""The motion module: attention over time for each pixel (AnimateDiff v2, Guo et al. 2023; "vanilla")."""

from __future__ import annotations

import math

import torch
from torch import nn

from .attention import Attention, FeedForward

GROUPS = 32
"""Norm groups of every motion module, whatever the UNet around it has."""


def sinusoidal_table(length: int, channels: int) -> torch.Tensor:
    """Position codes (1, length, channels): sine at even channels, cosine at odd ones (Vaswani et al. 2017)."""
    rates = torch.exp(torch.arange(0, channels, 2) * (-math.log(10000.0) / channels))
    angles = torch.arange(length)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[None]


class PositionTable(nn.Module):
    """Adds a code for each frame's place in the window; (rows, frames, C)."""

    pe: torch.Tensor

    def __init__(self, length: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("pe", sinusoidal_table(length, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.pe[:, : x.shape[1]]


class TemporalAttention(Attention):
    """Self-attention over frames with position codes."""

    def __init__(self, channels: int, heads: int, frames: int) -> None:
        super().__init__(channels, heads)
        self.pos_encoder = PositionTable(frames, channels)

    def forward(self, x: torch.Tensor, wanted: int | None = None) -> torch.Tensor:
        """(rows, frames, C) to the same, or to the last `wanted` frames alone."""
        x = self.pos_encoder(x)
        queries = self.queries(x if wanted is None else x[:, -wanted:])
        return self.to_out(self.attend(queries, *self.keys_values(x)))


class TemporalBlock(nn.Module):
    """Two self-attentions over time and a feed-forward layer, each on normed tokens, added."""

    def __init__(self, channels: int, heads: int, frames: int) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList([TemporalAttention(channels, heads, frames) for _ in range(2)])
        self.norms = nn.ModuleList([nn.LayerNorm(channels) for _ in range(2)])
        self.ff = FeedForward(channels)
        self.ff_norm = nn.LayerNorm(channels)

    def forward(self, x: torch.Tensor, wanted: int) -> torch.Tensor:
        """(rows, frames, C) to the last `wanted` frames of them."""
        first, second = self.attention_blocks
        x = x + first(self.norms[0](x))
        x = x[:, -wanted:] + second(self.norms[1](x), wanted)
        return x + self.ff(self.ff_norm(x))


class TemporalTransformer(nn.Module):
    def __init__(self, channels: int, heads: int, frames: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([TemporalBlock(channels, heads, frames)])
        self.proj_out = nn.Linear(channels, channels)

    def forward(self, hidden: torch.Tensor, frames: int, before: torch.Tensor | None) -> torch.Tensor:
        size = hidden.shape[-2:]
        # (b f) c h w -> (b h w) f c: the norm is taken within each frame, everything after it along time.
        sequences = self.norm(hidden).unflatten(0, (-1, frames)).permute(0, 3, 4, 1, 2).flatten(0, 2)
        if before is not None:
            count = before.shape[1]
            past = self.norm(before.flatten(0, 1).transpose(1, 2)).unflatten(0, (-1, count))
            past = past.permute(0, 3, 1, 2).flatten(0, 1)
            sequences = torch.cat([past, sequences], dim=1)
        sequences = self.proj_out(self.transformer_blocks[0](self.proj_in(sequences), frames))
        return hidden + sequences.unflatten(0, (-1, *size)).permute(0, 3, 4, 1, 2).flatten(0, 1)


class MotionModule(nn.Module):
    """Frames of a window attend to each other, pixel by pixel; added to the input.

    Args:
        channels: width, a multiple of 32.
        frames: longest window, the length of the table of positions.
    """

    def __init__(self, channels: int, heads: int = 8, frames: int = 32) -> None:
        super().__init__()
        self.temporal_transformer = TemporalTransformer(channels, heads, frames)

    def forward(self, hidden: torch.Tensor, frames: int, before: torch.Tensor | None = None) -> torch.Tensor:
        """(samples * frames, C, H, W), a sample's frames together, to the same.

        `before` (samples, n, H * W, C) are frames that come first and are only attended to.
        """
        return self.temporal_transformer(hidden, frames, before)
