"""Speech features to expression coefficients by dilated convolutions over time.

Our own, in place of the published affine map, with two thirds of a second of context to either side. Width, dilations
and dropout were chosen on a synthetic person of 50 seconds: wider networks learn the training speech by heart. A linear
map of the frames around, fitted with a strong penalty, errs elsewhere: the mean of both is nearer than either.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class TemporalExpressionConfig:
    """`dilations` has one entry for each residual block; `dropout` acts in training only; `linear` are the frames, an
    odd number, of the linear map beside the convolutions, 0 for none."""

    features: int = 336
    expressions: int = 32
    channels: int = 32
    dilations: tuple[int, ...] = (1, 2, 4, 8)
    dropout: float = 0.5
    linear: int = 0

    @property
    def context(self) -> int:
        """Frames on either side that a frame depends on."""
        return max(1 + sum(self.dilations), self.linear // 2)


class Block(nn.Module):
    """A dilated convolution over three frames and one over the channels, added to their input."""

    def __init__(self, channels: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.dilated = nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.mix = nn.Conv1d(channels, channels, 1)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.mix.weight)  # so that a block begins as the identity, and the stack needs no norm
        nn.init.zeros_(self.mix.bias)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.mix(self.dropout(F.gelu(self.dilated(x))))


class TemporalExpression(nn.Module):
    """See the module."""

    def __init__(self, config: TemporalExpressionConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or TemporalExpressionConfig()
        self.stem = nn.Conv1d(config.features, config.channels, 3, padding=1)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config.channels, dilation, config.dropout) for dilation in config.dilations)
        self.head = nn.Conv1d(config.channels, config.expressions, 1)
        if config.linear:
            self.linear = nn.Conv1d(config.features, config.expressions, config.linear, padding=config.linear // 2)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features (B, T, features) to coefficients (B, T, expressions); zeros beyond both ends."""
        features = features.transpose(1, 2)
        x = self.dropout(self.stem(self.dropout(features)))
        for block in self.blocks:
            x = block(x)
        x = self.head(F.gelu(x))
        if self.config.linear:
            x = (x + self.linear(features)) / 2
        return x.transpose(1, 2)
