"""Spatial attention of the UNet: within a frame, to a reference picture and to a few context tokens.

Latent Diffusion (Rombach et al. 2022) for the block; attending to another network's tokens beside one's own is
"reference attention" (Animate Anyone, Hu et al. 2023), as AniPortrait and Hallo use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

Bank = dict[str, torch.Tensor]
"""What a reference UNet writes: block name -> its normed tokens before self-attention (samples, height * width, C)."""

KeysValues = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of an attention layer, each (rows, heads, tokens, channels per head)."""


@dataclass(frozen=True)
class Reference:
    """A bank as a denoising UNet reads it: keys and values of each block, projected once for all steps.

    `keys_values` block name -> two tensors (n, heads, tokens, channels per head), n being 1 or as many as samples read.
    `unconditional_rows` samples at the start of a batch attend to themselves alone.
    `order` (frames,) which of the n pictures each frame of the conditional samples attends to, on the device of keys
    and values, as numbers that are sent to a GPU wait for all that it has to do; without it, all frames of a sample
    attend to the sample's own.
    `motion` block name -> tokens of the frames before (samples, frames, height * width, C), for motion modules that
    attend to them; may be empty.
    """

    keys_values: Mapping[str, KeysValues]
    unconditional_rows: int = 0
    order: torch.Tensor | None = None
    motion: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def of(self, name: str) -> KeysValues:
        """Keys and values for a block, (n, ...) with n as many as frames where there is an order."""
        keys, values = self.keys_values[name]
        if self.order is None:
            return keys, values
        return keys[self.order], values[self.order]


def repeat_rows(x: torch.Tensor, rows: int) -> torch.Tensor:
    """(n, ...) to (rows, ...), each repeated rows / n times, one after the other; a view where n is 1."""
    return x.unsqueeze(1).expand(-1, rows // len(x), *x.shape[1:]).flatten(0, 1)


class DotProductAttention(nn.Module):
    """softmax(Q K^T) V; on a CPU in parts, each a pass of its own, so that whatever is called between layers is then
    too: of a window of large pictures the whole takes minutes."""

    PART = 10_000_000_000
    """Products of numbers in a part."""

    def forward(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Each (rows, heads, tokens, channels per head), to the shape of `queries`."""
        if queries.device.type != "cpu" or torch.compiler.is_compiling():
            return F.scaled_dot_product_attention(queries, keys, values)
        rows, heads, tokens, width = queries.shape
        most = max(1, self.PART // (2 * heads * width * keys.shape[2]))
        if rows * tokens <= most:
            return F.scaled_dot_product_attention(queries, keys, values)
        together = max(1, most // tokens)
        attended = torch.empty_like(queries)
        for row in range(0, rows, together):
            some = slice(row, row + together)
            for start in range(0, tokens, most):
                part = (some, slice(None), slice(start, start + most))
                attended[part] = self(queries[part], keys[some], values[some])
        return attended


class Attention(nn.Module):
    """Multi-head attention without biases but for the last layer.

    `context` is the width of what is attended to, by default `channels`.
    """

    def __init__(self, channels: int, heads: int, context: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context or channels, channels, bias=False)
        self.to_v = nn.Linear(context or channels, channels, bias=False)
        self.to_out = nn.Sequential(nn.Linear(channels, channels))  # a list of one in the published names
        self.dot_product = DotProductAttention()

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return rearrange(x, "b n (h d) -> b h n d", h=self.heads)

    def queries(self, x: torch.Tensor) -> torch.Tensor:
        return self._split(self.to_q(x))

    def keys_values(self, x: torch.Tensor) -> KeysValues:
        return self._split(self.to_k(x)), self._split(self.to_v(x))

    def attend(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """(rows, heads, tokens, channels per head) to (rows, tokens, C), before the output layer."""
        return rearrange(self.dot_product(queries, keys, values), "b h n d -> b n (h d)")

    def to_few(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Attention of (rows, tokens, C) to tokens (samples, n, width) that are few; a sample's rows lie together.

        The few tokens are projected through the query and output layers, so that these two need not run over the many
        tokens of `x`.
        """
        keys, values = self.keys_values(context)
        heads, count, width = keys.shape[1:]
        queries = self.to_q.weight.unflatten(0, (heads, width))
        output = cast(nn.Linear, self.to_out[0])
        projected_keys = torch.einsum("shnd,hdc->scnh", keys * width**-0.5, queries).flatten(2)
        projected_values = torch.einsum("shnd,chd->snhc", values, output.weight.unflatten(1, (heads, width))).flatten(
            1, 2
        )
        scores = torch.bmm(x.unflatten(0, (len(context), -1)).flatten(1, 2), projected_keys)
        attention = scores.unflatten(-1, (count, heads)).softmax(dim=-2).flatten(-2)
        return torch.baddbmm(output.bias, attention, projected_values).reshape(x.shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Self-attention over (rows, tokens, C)."""
        return self.to_out(self.attend(self.queries(x), *self.keys_values(x)))


class GatedLinear(nn.Module):
    """GEGLU (Shazeer 2020): one half of a projection, gated by the GELU of the other."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, 2 * inner)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Two products, not the halves of one: element by element, a GPU is twice as fast over memory without gaps.
        weights, biases = self.proj.weight.chunk(2), self.proj.bias.chunk(2)
        values, gate = (F.linear(x, weight, bias) for weight, bias in zip(weights, biases, strict=True))
        return values * F.gelu(gate)


class FeedForward(nn.Module):
    """Gated feed-forward layer of four times the width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # The identity stands where the published networks have a dropout of 0; it keeps their numbering.
        self.net = nn.Sequential(GatedLinear(channels, 4 * channels), nn.Identity(), nn.Linear(4 * channels, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class TransformerBlock(nn.Module):
    """Self-attention (and the reference), cross attention to the context, feed-forward; each on normed tokens, added.

    `name` is the block's path in its UNet, under which banks hold its tokens; the UNet sets it.
    """

    def __init__(self, channels: int, heads: int, context: int) -> None:
        super().__init__()
        self.name = ""
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = Attention(channels, heads, context)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)

    def forward(
        self, tokens: torch.Tensor, context: torch.Tensor, reference: KeysValues | None, unconditional_rows: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (rows, L, C) after the block, and the normed ones that a bank keeps.

        `context` (samples, n, width); a sample's rows, its frames, lie together. `reference` keys and values for the
        rows from `unconditional_rows` on.
        """
        normed = self.norm1(tokens)
        tokens = tokens + self._attend_to_reference(normed, reference, unconditional_rows)
        tokens = tokens + self._attend_to_context(tokens, context)
        return tokens + self.ff(self.norm3(tokens)), normed

    def _attend_to_reference(
        self, normed: torch.Tensor, reference: KeysValues | None, unconditional_rows: int
    ) -> torch.Tensor:
        if reference is None:
            return self.attn1(normed)
        attend, queries = self.attn1.attend, self.attn1.queries(normed)
        keys, values = self.attn1.keys_values(normed)
        more_keys, more_values = (repeat_rows(x, len(normed) - unconditional_rows) for x in reference)
        attended = attend(
            queries[unconditional_rows:],
            torch.cat([keys[unconditional_rows:], more_keys], dim=2),
            torch.cat([values[unconditional_rows:], more_values], dim=2),
        )
        if unconditional_rows:
            attended = torch.cat(
                [attend(queries[:unconditional_rows], keys[:unconditional_rows], values[:unconditional_rows]), attended]
            )
        return self.attn1.to_out(attended)

    def _attend_to_context(self, tokens: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        if context.shape[1] == 1:
            # A softmax over one key is 1 whatever the query, so every token receives the same value.
            return repeat_rows(self.attn2.to_out(self.attn2.to_v(context)), len(tokens))
        return self.attn2.to_few(self.norm2(tokens), context)


def to_tokens(projection: nn.Conv2d | nn.Linear, hidden: torch.Tensor) -> torch.Tensor:
    """(rows, C, H, W) through a 1 x 1 convolution to tokens (rows, H * W, C').

    A matrix product reads its factors in either order, so the pixels are never copied into the order of tokens.
    """
    weight = projection.weight.flatten(1).T.expand(len(hidden), -1, -1)
    return torch.baddbmm(cast(torch.Tensor, projection.bias), hidden.flatten(2).transpose(1, 2), weight)


def add_tokens(hidden: torch.Tensor, projection: nn.Conv2d | nn.Linear, tokens: torch.Tensor) -> torch.Tensor:
    """`hidden` (rows, C', H, W) plus tokens (rows, H * W, C) through a 1 x 1 convolution: the way back."""
    weight = projection.weight.flatten(1).expand(len(tokens), -1, -1)
    biased = hidden + cast(torch.Tensor, projection.bias)[:, None, None]
    return torch.baddbmm(biased.flatten(2), weight, tokens.transpose(1, 2)).view_as(hidden)


class SpatialTransformer(nn.Module):
    """A transformer block over the pixels of each frame, between 1 x 1 convolutions, added to its input."""

    def __init__(self, channels: int, heads: int, groups: int, context: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(channels, heads, context)])
        self.proj_out = nn.Conv2d(channels, channels, 1)

    @property
    def block(self) -> TransformerBlock:
        return cast(TransformerBlock, self.transformer_blocks[0])

    def forward(
        self,
        hidden: torch.Tensor,
        context: torch.Tensor,
        reference: Reference | None = None,
        written: Bank | None = None,
    ) -> torch.Tensor:
        """(rows, C, H, W) to the same; adds its normed tokens to `written`, if there is one."""
        tokens = to_tokens(self.proj_in, self.norm(hidden))
        block = self.block
        frames = len(tokens) // len(context)
        if reference is not None and reference.unconditional_rows * frames >= len(tokens):
            reference = None
        tokens, normed = block(
            tokens,
            context,
            reference.of(block.name) if reference else None,
            reference.unconditional_rows * frames if reference else 0,
        )
        if written is not None:
            written[block.name] = normed
        return add_tokens(hidden, self.proj_out, tokens)
