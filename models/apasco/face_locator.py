"""The face locator: where in the picture the face is, as a feature that is added to the UNet's first convolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn


class FaceLocator(nn.Module):
    """Convolutions over each frame's mask, three of which halve its size.

    `widths` of the stages; `channels` of the UNet's first level.
    """

    def __init__(self, channels: int = 320, widths: tuple[int, ...] = (16, 32, 64, 128)) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for width, wider in zip(widths, widths[1:], strict=False):
            self.blocks.append(nn.Conv2d(width, width, 3, padding=1))
            self.blocks.append(nn.Conv2d(width, wider, 3, padding=1, stride=2))
        self.conv_out = nn.Conv2d(widths[-1], channels, 3, padding=1)
        for parameter in self.conv_out.parameters():  # adds nothing until trained
            nn.init.zeros_(parameter)

    def forward(self, region: torch.Tensor) -> torch.Tensor:
        """Face region (samples, 3, frames, H, W) in 0..1 to (samples, C, frames, H / 8, W / 8)."""
        hidden = F.silu(self.conv_in(rearrange(region, "s c f h w -> (s f) c h w")))
        for block in self.blocks:
            hidden = F.silu(block(hidden))
        return rearrange(self.conv_out(hidden), "(s f) c h w -> s c f h w", s=len(region))
