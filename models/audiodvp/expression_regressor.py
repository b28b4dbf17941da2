"""The network that fits the face model to a video: a picture of a face to its expression, light and pose.

A ResNet-50 in the layout of Caffe, as VGGFace2's published weights have it: a bottleneck's stride is in its first
convolution, and the first pooling has no padding but keeps partial windows. Identity and texture are parameters that
all frames share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from .lighting import BANDS

CHANNEL_MEANS = (0.5141, 0.4074, 0.3588)
"""Subtracted from pictures in 0..1; there is no division (published)."""
_EXPANSION = 4
_LIGHT, _POSE = 3 * BANDS, 3


@dataclass(frozen=True)
class ExpressionRegressorConfig:
    """`blocks` of each stage, `base_channels` of the first; the rest are coefficients of the face model."""

    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    base_channels: int = 64
    expressions: int = 64
    identities: int = 80
    textures: int = 80


class FrameCoefficients(NamedTuple):
    """`delta` (B, expressions, 1), `gamma` (B, 27, 1), `rotation` (B, 3, 1), `translation` (B, 3, 1)."""

    delta: torch.Tensor
    gamma: torch.Tensor
    rotation: torch.Tensor
    translation: torch.Tensor


class Bottleneck(nn.Module):
    """Convolutions of 1, 3 and 1 pixels, each with batch norm, and a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int, *, projects: bool) -> None:
        super().__init__()
        out_channels = channels * _EXPANSION
        self.conv1 = nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = nn.Sequential()
        if projects:
            self.downsample.append(nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False))
            self.downsample.append(nn.BatchNorm2d(out_channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.bn1(self.conv1(x)).relu()
        inner = self.bn2(self.conv2(inner)).relu()
        return (self.bn3(self.conv3(inner)) + self.downsample(x)).relu()


class ResNet(nn.Module):
    """See the module."""

    def __init__(self, blocks: tuple[int, ...], base_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, base_channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(base_channels)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=0, ceil_mode=True)
        in_channels = base_channels
        for stage, count in enumerate(blocks):
            channels, layers = base_channels * 2**stage, nn.Sequential()
            for block in range(count):
                stride = 2 if stage and not block else 1
                layers.append(Bottleneck(in_channels, channels, stride, projects=not block))
                in_channels = channels * _EXPANSION
            self.add_module(f"layer{stage + 1}", layers)
        self.stages = len(blocks)

    def stem(self, pictures: torch.Tensor) -> torch.Tensor:
        """The first convolution and the pooling: (B, 3, 224, 224) to (B, 64, 56, 56)."""
        return self.maxpool(self.bn1(self.conv1(pictures)).relu())

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """(B, 3, 224, 224) to features (B, 2048)."""
        x = self.stem(pictures)
        for stage in range(self.stages):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        return x.mean((2, 3))


class ExpressionRegressor(nn.Module):
    """The ResNet with a linear layer that is zero before training, and the video's identity and texture."""

    def __init__(self, config: ExpressionRegressorConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ExpressionRegressorConfig()
        self.pretrained_model = ResNet(config.blocks, config.base_channels)
        width = config.base_channels * 2 ** (len(config.blocks) - 1) * _EXPANSION
        self.fc = nn.Linear(width, config.expressions + _LIGHT + 2 * _POSE)
        for parameter in self.fc.parameters():
            nn.init.zeros_(parameter)
        self.alpha = nn.Parameter(torch.zeros(1, config.identities, 1))
        self.beta = nn.Parameter(torch.zeros(1, config.textures, 1))

    def forward(self, pictures: torch.Tensor) -> FrameCoefficients:
        """Pictures (B, 3, 224, 224), RGB in 0..1 minus `CHANNEL_MEANS`."""
        coefficients = self.fc(self.pretrained_model(pictures))[..., None]
        return FrameCoefficients(*coefficients.split([self.config.expressions, _LIGHT, _POSE, _POSE], 1))
