"""The face's identity and the voice as tokens that the UNets attend to (Hallo: `imageproj` and `audioproj`)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

WINDOW = 5
"""Frames whose features are used for each one: two before it, itself and two after it."""


class ImageProjection(nn.Module):
    """A face embedding as a few tokens.

    Unconditional samples get the tokens of an embedding of zeros, which are not zeros.
    """

    def __init__(self, embedding: int = 512, width: int = 768, tokens: int = 4) -> None:
        super().__init__()
        self.tokens = tokens
        self.proj = nn.Linear(embedding, tokens * width)
        self.norm = nn.LayerNorm(width)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """(samples, embedding), as the face recogniser gives it, to (samples, tokens, width)."""
        return self.norm(self.proj(embedding).unflatten(-1, (self.tokens, -1)))


class AudioProjection(nn.Module):
    """The features of all layers of a speech encoder around a frame, as tokens.

    Unconditional samples get tokens of zeros.

    `inputs` is the product of the window's frames, the speech encoder's layers and its channels.
    """

    def __init__(self, inputs: int = WINDOW * 12 * 768, inner: int = 512, width: int = 768, tokens: int = 32) -> None:
        super().__init__()
        self.tokens = tokens
        self.proj1 = nn.Linear(inputs, inner)
        self.proj2 = nn.Linear(inner, inner)
        self.proj3 = nn.Linear(inner, tokens * width)
        self.norm = nn.LayerNorm(width)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """(samples, frames, WINDOW, layers, channels) to (samples, frames, tokens, width)."""
        hidden = F.relu(self.proj2(F.relu(self.proj1(windows.flatten(2)))))
        return self.norm(self.proj3(hidden).unflatten(-1, (self.tokens, -1)))
