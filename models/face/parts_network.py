"""A small U-Net that says which part of a person each pixel shows. It is trained on the frames of one video."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.ReLU(),
    )


class PartsNetwork(nn.Module):
    """Pictures (n, channels, h, w), h and w multiples of 4, to logits (n, classes, h, w)."""

    def __init__(self, channels: int, classes: int, width: int = 8) -> None:
        super().__init__()
        self.fine = _block(channels, width)
        self.middle = _block(width, 2 * width)
        self.coarse = _block(2 * width, 2 * width)
        self.up_middle = _block(4 * width, width)
        self.up_fine = _block(2 * width, width)
        self.last = nn.Conv2d(width, classes, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        fine = self.fine(pictures)
        middle = self.middle(F.max_pool2d(fine, 2))
        coarse = self.coarse(F.max_pool2d(middle, 2))
        middle = self.up_middle(torch.cat([middle, _twice(coarse)], dim=1))
        return self.last(self.up_fine(torch.cat([fine, _twice(middle)], dim=1)))


def _twice(values: Tensor) -> Tensor:
    return F.interpolate(values, scale_factor=2, mode="bilinear", align_corners=False)
