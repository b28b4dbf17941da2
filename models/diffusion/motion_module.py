"""The motion module: attention over time for each pixel (AnimateDiff v2, Guo et al. 2023; "vanilla")."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from .attention import Attention, FeedForward, add_tokens, to_tokens

GROUPS = 32
"""Norm groups of every motion module, whatever the UNet around it has."""

TILE = 64
"""Queries that attention kernels of GPUs take at once. On an H200, tiles full of rows of 16 frames took 0.41 times as
long as one row a tile at 32 x 32 pixels and 640 channels (fp16); twice as many rows gained little more there and lost
where only PyTorch's memory-efficient kernel runs."""


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


def attend_in_groups(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, group: int) -> torch.Tensor:
    """`Attention.attend` with `group` rows at a time as one sequence, in which a mask holds them apart.

    The kernels of a GPU work on tiles of 64 queries and more, which the few frames of one row leave mostly empty.
    """
    apart = torch.eye(group, dtype=torch.bool, device=queries.device)
    mask = apart.repeat_interleave(queries.shape[2], 0).repeat_interleave(keys.shape[2], 1)
    queries, keys, values = (rearrange(x, "(r g) h n d -> r h (g n) d", g=group) for x in (queries, keys, values))
    attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    return rearrange(attended, "r h (g n) d -> (r g) n (h d)", g=group)


class TemporalAttention(Attention):
    """Self-attention over frames with position codes."""

    def __init__(self, channels: int, heads: int, frames: int) -> None:
        super().__init__(channels, heads)
        self.pos_encoder = PositionTable(frames, channels)

    def forward(self, x: torch.Tensor, wanted: int | None = None) -> torch.Tensor:
        """(rows, frames, C) to the same, or to the last `wanted` frames alone."""
        x = self.pos_encoder(x)
        queries = self.queries(x if wanted is None else x[:, -wanted:])
        group = math.gcd(len(x), TILE // queries.shape[2]) if x.is_cuda else 1
        keys, values = self.keys_values(x)
        if group > 1:
            return self.to_out(attend_in_groups(queries, keys, values, group))
        return self.to_out(self.attend(queries, keys, values))


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
        # The norm is taken within each frame, the projections pixel by pixel, the rest along time.
        sequences = rearrange(to_tokens(self.proj_in, self.norm(hidden)), "(b f) p c -> (b p) f c", f=frames)
        if before is not None:
            past = to_tokens(self.proj_in, self.norm(rearrange(before, "b n p c -> (b n) c p")))
            past = rearrange(past, "(b n) p c -> (b p) n c", n=before.shape[1])
            sequences = torch.cat([past, sequences], dim=1)
        sequences = self.transformer_blocks[0](sequences, frames)
        tokens = rearrange(sequences, "(b p) f c -> (b f) p c", p=hidden.shape[-2:].numel())
        return add_tokens(hidden, self.proj_out, tokens)


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
