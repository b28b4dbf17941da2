"""Attention from the pixels of a frame to its audio tokens, apart for the head, the face and the lips.

Hallo (Xu et al. 2024, section 3.2): three cross attentions with the same queries, each limited to its own region.
APasco adds, beside them, an attention to the tokens of a dense face mesh and a learnt weight for each region.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from .attention import Attention, FeedForward, KeysValues, add_tokens, repeat_rows, to_tokens
from .layout import REGIONS


@dataclass(frozen=True)
class AudioBranch:
    """One branch of an audio block, ready for all steps: keys and values, and how its result is added.

    `keys_values` two tensors (rows, heads, tokens, channels per head). `weight` (C, C) is the attention's output layer
    and the branch's convolution in one, `rest` (C,) what its bias becomes, `bias` (C,) the convolution's. A mask is one
    number for each pixel, so it gives the same before both linear layers as after them.
    """

    keys_values: KeysValues
    weight: torch.Tensor
    rest: torch.Tensor
    bias: torch.Tensor


@dataclass(frozen=True)
class Speech:
    """Audio branches (speech, and the mesh) of a denoising UNet and their masks, projected once for all steps.

    `branches` block name -> one for each region, and for the mesh, if there is one. Where there are fewer rows than
    frames in the batch, the first frames get tokens of zeros, as unconditional samples have them. `masks` for each
    resolution, the finest first: (3, n, height, width) in 0..1 in the order of `REGIONS`; n is 1, or as many as
    samples, or as rows.
    """

    branches: Mapping[str, Sequence[AudioBranch]]
    masks: Sequence[torch.Tensor]

    def silent(self) -> Speech:
        """The same with tokens of zeros in all rows."""

        def nothing(branch: AudioBranch) -> AudioBranch:
            keys, values = branch.keys_values
            return replace(branch, keys_values=(keys[:0], values[:0]))

        return replace(
            self, branches={name: [nothing(branch) for branch in branches] for name, branches in self.branches.items()}
        )


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
        for _, convolution in self.branches:  # audio adds nothing until trained
            for parameter in getattr(self, convolution).parameters():
                nn.init.zeros_(parameter)

    def project_audio(self, contexts: Iterable[torch.Tensor], weights: Sequence[float]) -> list[AudioBranch]:
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
            projection = weight * convolution.weight.flatten(1)
            found.append(
                AudioBranch(
                    attention.keys_values(context),
                    projection @ output.weight,
                    projection @ output.bias,
                    weight * cast(torch.Tensor, convolution.bias),
                )
            )
        return found

    def forward(self, tokens: torch.Tensor, branches: Sequence[AudioBranch], mask: torch.Tensor) -> torch.Tensor:
        """Tokens (rows, height * width, C) after the block; `mask` (3, n, height, width) of their resolution.

        Where branches have fewer rows than there are tokens, see `Speech`.
        """
        tokens = tokens + self.attn1(self.norm1(tokens))
        silent_rows = len(tokens) - len(branches[0].keys_values[0])
        normed = self.norm2(tokens[silent_rows:])
        full, face, lip = mask.flatten(2)[..., None]
        masks = [
            repeat_rows(region, len(tokens)) if len(region) > 1 else region for region in (full, face, lip, face + lip)
        ]
        # Silence is tokens of zeros. Keys and values have no bias, so attention to them gives zero, and biases remain.
        biases = torch.zeros_like(branches[0].bias)
        for branch, branch_mask in zip(branches, masks, strict=False):
            biases = biases + (branch_mask * branch.rest + branch.bias)
        tokens = tokens + biases
        audio_context = tokens[silent_rows:]
        for (attention_name, _), branch, branch_mask in zip(self.branches, branches, masks, strict=False):
            attention = cast(Attention, getattr(self, attention_name))
            attended = attention.attend(attention.queries(normed), *branch.keys_values)
            own_mask = branch_mask[silent_rows:] if len(branch_mask) > 1 else branch_mask
            audio_context = audio_context + F.linear(attended * own_mask, branch.weight)
        tokens = torch.cat([tokens[:silent_rows], audio_context]) if silent_rows else audio_context
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
        block = cast(AudioBlock, self.transformer_blocks[0])
        tokens = block(tokens, speech.branches[block.name], speech.masks[level])
        return add_tokens(hidden, self.proj_out, tokens)
