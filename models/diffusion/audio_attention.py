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

from .attention import Attention, FeedForward, KeysValues, repeat_rows

REGIONS = ("full", "face", "lip")
"""What is outside the face, the face around the lips, and the lips; in the order of weights and masks."""


@dataclass(frozen=True)
class Speech:
    """What a denoising UNet hears, and sees of the face's shape, and where: made ready once for all steps.

    `keys_values` block name -> for each region (and the mesh, if there is one) two tensors (rows, heads, tokens,
    channels per head). Where there are fewer rows than frames in the batch, the first ones hear silence: tokens of
    zeros, as unconditional samples have them. `masks` for each resolution, the finest first: (3, n, height, width) in
    0..1 in the order of `REGIONS`; n is 1, or as many as samples, or as rows. `weights` of the regions, then the mesh.
    """

    keys_values: Mapping[str, Sequence[KeysValues]]
    masks: Sequence[torch.Tensor]
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)

    def silent(self) -> Speech:
        """The same where nobody hears anything."""
        nobody = {
            name: [(keys[:0], values[:0]) for keys, values in branches] for name, branches in self.keys_values.items()
        }
        return replace(self, keys_values=nobody)


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

    def keys_values(self, contexts: Iterable[torch.Tensor]) -> list[KeysValues]:
        """Of speech tokens (rows, n, width) for each region and, where the block has it, mesh tokens after them."""
        speech, *mesh = contexts
        attentions = [cast(Attention, getattr(self, attention)) for attention, _ in self.branches]
        return [
            attention.keys_values(context)
            for attention, context in zip(attentions, [speech] * len(REGIONS) + mesh, strict=False)
        ]

    def forward(self, tokens: torch.Tensor, speech: Speech, mask: torch.Tensor) -> torch.Tensor:
        """Tokens (rows, height * width, C) after the block; `mask` (3, n, height, width) of their resolution."""
        tokens = tokens + self.attn1(self.norm1(tokens))
        normed = self.norm2(tokens)
        heard = speech.keys_values[self.name]
        deaf = len(tokens) - len(heard[0][0])
        full, face, lip = mask.flatten(2)[..., None]
        shown = (full, face, lip, face + lip)
        for index, ((attention, convolution), keys_values) in enumerate(zip(self.branches, heard, strict=False)):
            weight: torch.Tensor | float = speech.weights[index]
            if hasattr(self, "alpha") and index < len(REGIONS):
                weight = weight * self.alpha[index]
            where = repeat_rows(shown[index], len(tokens)) if mask.shape[1] > 1 else shown[index]
            tokens = tokens + weight * self._listen(attention, convolution, normed, keys_values, where, deaf)
        return tokens + self.ff(self.norm3(tokens))

    def _listen(
        self,
        attention_name: str,
        convolution_name: str,
        normed: torch.Tensor,
        keys_values: KeysValues,
        mask: torch.Tensor,
        deaf: int,
    ) -> torch.Tensor:
        attention = cast(Attention, getattr(self, attention_name))
        convolution = cast(nn.Conv2d, getattr(self, convolution_name))

        def shown(read: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
            return F.linear(read * where, convolution.weight.flatten(1), convolution.bias)

        read = attention.to_out(attention.attend(attention.queries(normed[deaf:]), *keys_values))
        heard = shown(read, mask[deaf:] if len(mask) > 1 else mask)
        if not deaf:
            return heard
        # Silence is tokens of zeros. Keys and values have no bias, so what is read of them is zero, and the output
        # layer's bias remains: the same in every row.
        rest = cast(nn.Linear, attention.to_out[0]).bias
        silence = shown(rest.expand(1, 1, -1), mask[:deaf])
        return torch.cat([silence.expand(deaf, -1, -1), heard])


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
        size = hidden.shape[-2:]
        tokens = self.proj_in(self.norm(hidden)).permute(0, 2, 3, 1).flatten(1, 2)
        tokens = self.transformer_blocks[0](tokens, speech, speech.masks[level])
        return self.proj_out(tokens.unflatten(1, size).permute(0, 3, 1, 2)) + hidden
