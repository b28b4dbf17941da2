"""The conformer that AniTalker's stage 2 is made of: attention with relative positions, and convolution over time.

Source: Gulati et al. 2020; ESPnet's encoder with the options that AniTalker chose. Unlike most, it norms after each
part and not before, twice in a row at the end of a block, and its feed-forward layers do not widen.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

EPSILON = 1e-12
"""Of the layer norms."""
_WAVELENGTHS = 10000.0
WEIGHTS_AT_ONCE = 1 << 17
"""Attention weights of each head that are in memory at once, in whole rows; two minutes have nine million."""


def relative_positions(frames: int, width: int) -> torch.Tensor:
    """(2 frames - 1, width) float32 codes of the distances frames - 1, frames - 2 ... 1 - frames.

    Sines in the even channels, cosines in the odd ones.
    """
    distances = torch.arange(frames - 1, -frames, -1, dtype=torch.float32)
    rates = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * -(math.log(_WAVELENGTHS) / width))
    angles = distances[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class FeedForward(nn.Module):
    """Two layers with a swish between."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.w_1 = nn.Linear(width, inner)
        self.w_2 = nn.Linear(inner, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w_2(F.silu(self.w_1(x)))


class RelativeAttention(nn.Module):
    """Self-attention that scores content and distance, with a learned bias for each (Transformer-XL)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linear_q = nn.Linear(width, width)
        self.linear_k = nn.Linear(width, width)
        self.linear_v = nn.Linear(width, width)
        self.linear_out = nn.Linear(width, width)
        self.linear_pos = nn.Linear(width, width, bias=False)
        self.pos_bias_u = nn.Parameter(torch.empty(heads, width // heads))
        self.pos_bias_v = nn.Parameter(torch.empty(heads, width // heads))

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        """(..., T, width) to (..., heads, T, width / heads)."""
        return rearrange(x, "... n (h d) -> ... h n d", h=self.heads)

    def place_keys(self, positions: torch.Tensor) -> torch.Tensor:
        """`relative_positions` as keys for the queries: (heads, 2 T - 1, width / heads)."""
        return self._split(self.linear_pos(positions))

    def queries_and_keys(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x (B, T, width), projected: both (B, heads, T, width / heads)."""
        return self._split(self.linear_q(x)), self._split(self.linear_k(x))

    def scores(
        self, query: torch.Tensor, key: torch.Tensor, places: torch.Tensor, start: int, end: int
    ) -> torch.Tensor:
        """Attention weights (B, heads, end - start, T) of some frames' queries before the softmax."""
        frames, rows = key.shape[-2], query[..., start:end, :]
        by_content = (rows + self.pos_bias_u[:, None]) @ key.transpose(-1, -2)
        reached = places[:, frames - end : 2 * frames - 1 - start]
        by_distance = _rows_shifted((rows + self.pos_bias_v[:, None]) @ reached.transpose(-1, -2))
        return by_content.add_(by_distance).div_(math.sqrt(query.shape[-1]))

    def forward(self, x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        query, key = self.queries_and_keys(x)
        values = self._split(self.linear_v(x))
        attended, frames = torch.empty_like(values), x.shape[1]
        at_once = max(WEIGHTS_AT_ONCE // frames, 1)
        for start in range(0, frames, at_once):
            end = min(start + at_once, frames)
            attended[..., start:end, :] = self.scores(query, key, places, start, end).softmax(-1) @ values
        return self.linear_out(rearrange(attended, "... h n d -> ... n (h d)"))


def _rows_shifted(scores: torch.Tensor) -> torch.Tensor:
    """(B, heads, n, T + n - 1) by distance, the furthest behind last, to (B, heads, n, T) by key.

    Row i uses distances that begin n - 1 - i columns in: a view with one column less to each row.
    """
    rows, columns = scores.shape[-2:]
    batch, heads, row, _ = scores.contiguous().stride()
    return scores.contiguous().as_strided(
        (*scores.shape[:2], rows, columns - rows + 1), (batch, heads, row - 1, 1), scores.storage_offset() + rows - 1
    )


class Convolution(nn.Module):
    """Gated pointwise, depthwise over time, norm by gathered statistics, swish, pointwise."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.pointwise_conv1 = nn.Conv1d(width, 2 * width, 1)
        self.depthwise_conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.BatchNorm1d(width)
        self.pointwise_conv2 = nn.Conv1d(width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = F.glu(self.pointwise_conv1(x.transpose(1, 2)), dim=1)
        hidden = F.silu(self.norm(self.depthwise_conv(hidden)))
        return self.pointwise_conv2(hidden).transpose(1, 2)


class Block(nn.Module):
    """Half a feed-forward step, attention, convolution, the other half; a norm after each, and one more."""

    def __init__(self, width: int, inner: int, heads: int, kernel: int) -> None:
        super().__init__()
        self.feed_forward_macaron = FeedForward(width, inner)
        self.self_attn = RelativeAttention(width, heads)
        self.conv_module = Convolution(width, kernel)
        self.feed_forward = FeedForward(width, inner)
        self.norm_ff_macaron = nn.LayerNorm(width, eps=EPSILON)
        self.norm_mha = nn.LayerNorm(width, eps=EPSILON)
        self.norm_conv = nn.LayerNorm(width, eps=EPSILON)
        self.norm_ff = nn.LayerNorm(width, eps=EPSILON)
        self.norm_final = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        x = self.norm_ff_macaron(x + 0.5 * self.feed_forward_macaron(x))
        x = self.norm_mha(x + self.self_attn(x, places))
        x = self.norm_conv(x + self.conv_module(x))
        return self.norm_final(self.norm_ff(x + 0.5 * self.feed_forward(x)))


class Conformer(nn.Module):
    """Blocks over a whole sequence (B, T, width), each frame attending to all of it."""

    def __init__(self, width: int, *, inner: int, heads: int, kernel: int, blocks: int) -> None:
        super().__init__()
        self.width = width
        self.encoders = nn.ModuleList([Block(width, inner, heads, kernel) for _ in range(blocks)])

    def place_keys(self, frames: int) -> list[torch.Tensor]:
        """Each block's view of the distances, which depends on the length alone."""
        blocks = cast("list[Block]", list(self.encoders))
        positions = relative_positions(frames, self.width).to(blocks[0].self_attn.linear_pos.weight)
        return [block.self_attn.place_keys(positions) for block in blocks]

    def forward(self, x: torch.Tensor, places: list[torch.Tensor] | None = None) -> torch.Tensor:
        """`places`: from `place_keys`, for callers that come again with the same length."""
        x = x * math.sqrt(self.width)
        for block, place in zip(self.encoders, places or self.place_keys(x.shape[1]), strict=True):
            x = block(x, place)
        return x
