"""The audio branch of ATnet (ATVGnet, Chen et al., CVPR 2019): MFCC around a video frame to a feature vector.

AudioDVP takes the vector before the recurrent layers, after a ReLU, so no number of it is negative. The file also holds
those layers and a branch for landmarks, which nothing here uses.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class AudioFeaturesConfig:
    """`channels` of the convolutions, `hidden` and `features` of the linear layers; sizes are the published ones.

    `cells` are the places that the two poolings leave of a window: 12 x 2 of 28 x 12.
    """

    channels: tuple[int, int, int, int, int] = (64, 128, 256, 256, 512)
    cells: int = 24
    hidden: int = 2048
    features: int = 256


def _conv(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU()
    )


class AudioFeatures(nn.Module):
    """Convolutions over time and coefficients, and two linear layers. The attributes' spelling is that of the file."""

    def __init__(self, config: AudioFeaturesConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or AudioFeaturesConfig()
        first, second, third, fourth, fifth = config.channels
        self.audio_eocder = nn.Sequential(
            _conv(1, first),
            _conv(first, second),
            nn.MaxPool2d(3, stride=(1, 2)),
            _conv(second, third),
            _conv(third, fourth),
            _conv(fourth, fifth),
            nn.MaxPool2d(3, stride=(2, 2)),
        )
        self.audio_eocder_fc = nn.Sequential(
            nn.Linear(fifth * config.cells, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, config.features),
            nn.ReLU(),
        )

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """MFCC (B, 28, 12), 10 ms a row without the energy, to features (B, 256), none of them negative."""
        return self.audio_eocder_fc(self.audio_eocder(windows[:, None]).flatten(1))
