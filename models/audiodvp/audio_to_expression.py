"""Speech features of seven frames to the coefficients of the expression in the middle one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

_KERNEL = 3


@dataclass(frozen=True)
class AudioToExpressionConfig:
    """`channels` of the convolutions, whose first are the frames of a window; sizes are the published ones."""

    channels: tuple[int, int, int, int] = (7, 5, 3, 1)
    features: int = 256
    expressions: int = 64

    @property
    def inputs(self) -> int:
        """Numbers that the convolutions leave."""
        return self.channels[-1] * (self.features - 3 * (_KERNEL - 1))


class AudioToExpression(nn.Module):
    """Three convolutions along the features, the frames being channels, and a linear layer.

    No activation stands between them, as published, so the whole network is one affine map.
    """

    def __init__(self, config: AudioToExpressionConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or AudioToExpressionConfig()
        frames, first, second, third = config.channels
        self.conv1 = nn.Conv1d(frames, first, _KERNEL)
        self.conv2 = nn.Conv1d(first, second, _KERNEL)
        self.conv3 = nn.Conv1d(second, third, _KERNEL)
        self.fc = nn.Linear(config.inputs, config.expressions)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """(B, frames, features) to the coefficients (B, expressions, 1)."""
        return self.fc(self.conv3(self.conv2(self.conv1(windows))).flatten(1))[..., None]


def feature_windows(features: torch.Tensor, frames: int = 7) -> torch.Tensor:
    """Features (T, C) to windows (T, frames, C) around each frame, for an odd number; zeros beyond both ends."""
    padded = F.pad(features, (0, 0, frames // 2, frames // 2))
    first = torch.arange(len(features), device=features.device)[:, None]
    return padded[first + torch.arange(frames, device=features.device)]
