"""Attention from the pixels of a frame to what is heard in it, apart for the head, the face and the lips.

Hallo (Xu et al. 2024, section 3.2): three cross attentions with the same queries, each shown in its own region only.
APasco adds, beside them, an attention to the tokens of a dense face mesh and a learnt weight for each region.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from .attention import Attention, FeedForward, KeysValues, from_tokens, repeat_rows, to_tokens
from .layout import REGIONS


@dataclass(frozen=True)
class Heard:
    """One branch of an audio block, ready for all steps: what it attends to and how what it reads is added.

    `keys_values` two tensors (rows, heads, tokens, channels per head). `weight` (C, C) is the attention's output layer
    and the branch's convolution in one, `rest` (C,) what its bias becomes, `bias` (C,) the convolution's. A mask is one
    number for a pixel, so it may just as well come before both, or after.
    """

    keys_values: KeysValues
    weight: torch.Tensor
    rest: torch.Tensor
    bias: torch.Tensor


@dataclass(frozen=True)
class Speech:
    """What a denoising UNet hears, and sees of the face's shape, and where: made ready once for all steps.

    `heard` block name -> for each region, and the mesh, if there is one. Where there are fewer rows than frames in the
    batch, the first ones hear silence: tokens of zeros, as unconditional samples have them. `masks` for each
    resolution, the finest first: (3, n, height, width) in 0..1 in the order of `REGIONS`; n is 1, or as many as
    samples, or as rows.
    """

    heard: Mapping[str, Sequence[Heard]]
    masks: Sequence[torch.Tensor]

    def silent(self) -> Speech:
        """The same where nobody hears anything."""

        def nothing(branch: Heard) -> Heard:
            keys, values = branch.keys_values
            return replace(branch, keys_values=(keys[:0], values[:0]))

        return replace(self, heard={name: [nothing(branch) for branch in heard] for name, heard in self.heard.items()})


class AudioBlock(nn.Module):
    """Self-attention, attention to speech in three regions (and to the mesh), feed-forward; on normed tokens, added.

    `name` is the block's path in its UNet; the UNet sets it. `geometry` is the width of mesh tokens, 0 for none;
    `learnt_weights` whether there is a weight for each region to learn (`alpha`).
    """

    def __init__(
        self, channels: int, heads: int, context: int, *, geometry: int = 0, learnt_weights: bool = False
    ) -> None:
        super().__init__()
        self.name = ""
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        for index, region in enumerate(REGIONS):
            self.add_module(f"attn2_{index}", Attention(channels, heads, context))
            self.add_module(f"zero_conv_{region}", nn.Conv2d(channels, channels, 1))
        self.branches = [(f"attn2_{index}", f"zero_conv_{region}") for index, region in enumerate(REGIONS)]
        if geometry:
            self.attn2_geo = Attention(channels, heads, geometry)
            self.zero_conv_geo = nn.Conv2d(channels, channels, 1)
            self.branches.append(("attn2_geo", "zero_conv_geo"))
        if learnt_weights:
            self.alpha = nn.Parameter(torch.ones(len(REGIONS)))
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)
        for _, convolution in self.branches:  # nothing is heard until trained
            for parameter in getattr(self, convolution).parameters():
                nn.init.zeros_(parameter)

    def hear(self, contexts: Iterable[torch.Tensor], weights: Sequence[float]) -> list[Heard]:
        """Speech tokens (rows, n, width) in each region and, where the block has it, mesh tokens after them."""
        speech, *mesh = contexts
        found = []
        for index, ((attention_name, convolution_name), context) in enumerate(
            zip(self.branches, [speech] * len(REGIONS) + mesh, strict=False)
        ):
            attention = cast(Attention, getattr(self, attention_name))
            convolution = cast(nn.Conv2d, getattr(self, convolution_name))
            output = cast(nn.Linear, attention.to_out[0])
            weight: torch.Tensor | float = weights[index]
            if hasattr(self, "alpha") and index < len(REGIONS):
                weight = weight * self.alpha[index]
            shown = weight * convolution.weight.flatten(1)
            found.append(
                Heard(
                    attention.keys_values(context),
                    shown @ output.weight,
                    shown @ output.bias,
                    weight * cast(torch.Tensor, convolution.bias),
                )
            )
        return found

    def forward(self, tokens: torch.Tensor, speech: Speech, mask: torch.Tensor) -> torch.Tensor:
        """Tokens (rows, height * width, C) after the block; `mask` (3, n, height, width) of their resolution."""
        tokens = tokens + self.attn1(self.norm1(tokens))
        branches = speech.heard[self.name]
        deaf = len(tokens) - len(branches[0].keys_values[0])
        normed = self.norm2(tokens[deaf:])
        full, face, lip = mask.flatten(2)[..., None]
        shown = [
            repeat_rows(where, len(tokens)) if len(where) > 1 else where for where in (full, face, lip, face + lip)
        ]
        # Silence is tokens of zeros. Keys and values have no bias, so what is read of them is zero, and biases remain.
        for branch, where in zip(branches, shown, strict=False):
            tokens = tokens + (where * branch.rest + branch.bias)
        hearing = tokens[deaf:]
        for (attention_name, _), branch, where in zip(self.branches, branches, shown, strict=False):
            attention = cast(Attention, getattr(self, attention_name))
            read = attention.attend(attention.queries(normed), *branch.keys_values)
            hearing = hearing + F.linear(read * (where[deaf:] if len(where) > 1 else where), branch.weight)
        tokens = torch.cat([tokens[:deaf], hearing]) if deaf else hearing
        return tokens + self.ff(self.norm3(tokens))


class AudioTransformer(nn.Module):
    """An audio block over the pixels of each frame, between 1 x 1 convolutions, added to its input.

    `inner` is the block's own width.
    """

    def __init__(
        self,
        channels: int,
        inner: int,
        heads: int,
        groups: int,
        context: int,
        *,
        geometry: int = 0,
        learnt_weights: bool = False,
    ) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Conv2d(channels, inner, 1)
        block = AudioBlock(inner, heads, context, geometry=geometry, learnt_weights=learnt_weights)
        self.transformer_blocks = nn.ModuleList([block])
        self.proj_out = nn.Conv2d(inner, channels, 1)

    def forward(self, hidden: torch.Tensor, speech: Speech, level: int) -> torch.Tensor:
        """(rows, C, H, W) to the same; `level` is the number of halvings of its resolution."""
        tokens = to_tokens(self.proj_in, self.norm(hidden))
        tokens = self.transformer_blocks[0](tokens, speech, speech.masks[level])
        return hidden + from_tokens(self.proj_out, tokens, hidden.shape[-2:])
