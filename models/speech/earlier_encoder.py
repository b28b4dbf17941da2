"""The acoustic encoder of persons and drivers that were trained before the pack had Whisper's.

It is the beginning of hama 1.7's phoneme recogniser (Seongmin Park, Apache-2.0), whose weights those files hold: 80
log-mel bands at 100 Hz, a convolution that halves the rate, and Conformer blocks (Gulati et al. 2020,
arXiv:2005.08100) without positions.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from .mel_scale import slaney_hertz, slaney_mel

BANDS = 80
SPECTRUM = 400
"""Samples at 16 kHz of a spectrum, under a Hann window."""
CHANNELS = 144
HEADS = 4
KERNEL = 31
_WIDER = 4
_LOWEST, _HIGHEST = 40.0, 7600.0
LEVEL_DB = -29.0
"""The speech level (`mouth_network.speech_level`) at which the recogniser is given speech."""
_FLOOR_DB = -50.0
"""Under the speech level, what is added to all power: to digital silence the recogniser attends as to nothing else."""
_WIDTH = 0.025
"""What a filter makes of power 1 in all bins."""
_SCALE = 10000.0
"""What the recogniser's power is of ours, whose full scale is 1: the square of half the sum of its window."""


def acoustic_filters() -> torch.Tensor:
    """Filters (80, 201) of the recogniser: triangles of unit area in Hz between whole bins, on Slaney's mel scale.

    Where three corners are not three bins, the later ones move up.
    """
    mels = torch.linspace(slaney_mel(_LOWEST), slaney_mel(_HIGHEST), BANDS + 2, dtype=torch.float64)
    hertz = slaney_hertz(mels).numpy()
    corners = np.floor((SPECTRUM + 1) * hertz / 16000).astype(int)
    bins = np.arange(SPECTRUM // 2 + 1)
    filters = np.zeros((len(bins), BANDS))
    for band in range(BANDS):
        left = corners[band]
        middle = max(corners[band + 1], left + 1)
        right = max(corners[band + 2], middle + 1)
        triangle = np.minimum((bins - left) / (middle - left), (right - bins) / (right - middle))
        filters[:, band] = np.maximum(0, triangle) * 2 / (hertz[band + 2] - hertz[band])
    return torch.from_numpy(filters.T.copy()).float()


def acoustic_input(power: torch.Tensor, level: torch.Tensor | float) -> torch.Tensor:
    """Mel power (..., frames, 80) by `acoustic_filters`, to encoder input; `level` is that of speech in dB."""
    gain = 10 ** ((LEVEL_DB - torch.as_tensor(level)) / 10) * _SCALE
    return (power * gain + 10 ** ((LEVEL_DB + _FLOOR_DB) / 10) * _SCALE * _WIDTH).log()


class FeedForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(CHANNELS)
        self.wider = nn.Linear(CHANNELS, _WIDER * CHANNELS)
        self.narrower = nn.Linear(_WIDER * CHANNELS, CHANNELS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        narrowed: torch.Tensor = self.narrower(nn.functional.silu(self.wider(self.norm(x))))
        return narrowed


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(CHANNELS)
        self.queries_keys_values = nn.Linear(CHANNELS, 3 * CHANNELS)
        self.mix = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.queries_keys_values(self.norm(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
        mixed: torch.Tensor = self.mix(attended)
        return mixed


class Convolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(CHANNELS)
        self.gated = nn.Linear(CHANNELS, 2 * CHANNELS)
        self.along = nn.Conv1d(CHANNELS, CHANNELS, KERNEL, padding=KERNEL // 2, groups=CHANNELS)
        self.mix = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.glu(self.gated(self.norm(x)), dim=-1)
        x = self.along(x.transpose(1, 2)).transpose(1, 2)
        mixed: torch.Tensor = self.mix(nn.functional.silu(x))
        return mixed


class ConformerBlock(nn.Module):
    """Half a feed-forward layer, attention over all frames, a convolution, the other half, a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.attention = FeedForward(), Attention()
        self.convolution, self.last = Convolution(), FeedForward()
        self.norm = nn.LayerNorm(CHANNELS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.first(x) / 2
        x = x + self.attention(x)
        x = x + self.convolution(x)
        normed: torch.Tensor = self.norm(x + self.last(x) / 2)
        return normed


class EarlierEncoder(nn.Module):
    """`acoustic_input` (batch, frames, 80) at 100 Hz to states (batch, (frames + 1) // 2, 144) at 50 Hz."""

    channels = CHANNELS
    filters = staticmethod(acoustic_filters)
    input = staticmethod(acoustic_input)

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Conv1d(BANDS, CHANNELS, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(ConformerBlock() for _ in range(blocks))

    def forward(self, bands: torch.Tensor) -> torch.Tensor:
        x = nn.functional.gelu(self.stem(bands.transpose(1, 2))).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return x
