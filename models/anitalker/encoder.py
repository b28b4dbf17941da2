"""Stage 1's encoder: a face to its appearance, its motion code and the feature maps that the renderer warps.

Source: AniTalker (section 3.1 of the paper and the published weights). Unlike LIA, one weighted sum of all levels'
means ("hierarchical aggregation") takes the place of the last level's vector, for appearance and motion alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from .layers import ConvLayer, EqualConv, EqualLinear, ResBlock

POOLED_FIRST = 3
"""The first levels, whose means pass a layer of their own to reach the common width."""


@dataclass(frozen=True)
class EncoderConfig:
    """`channels` of each level, from the full size down to 4 x 4; `style` of the vectors; `motion` of the code."""

    channels: tuple[int, ...] = (64, 128, 256, 512, 512, 512, 512)
    style: int = 512
    motion: int = 20

    @property
    def size(self) -> int:
        """Side of the picture in pixels."""
        return 4 * 2 ** (len(self.channels) - 1)


@dataclass(frozen=True)
class Encoded:
    """B faces: `start` (B, style) appearance, `code` (B, motion), and `maps` of (B, C, R, R), R = 8 first."""

    start: torch.Tensor
    code: torch.Tensor
    maps: list[torch.Tensor]


class WeightedSum(nn.Module):
    """A softmax mix of vectors."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.empty(count))

    def forward(self, vectors: list[torch.Tensor]) -> torch.Tensor:
        return torch.einsum("n,nbc->bc", self.weights.softmax(0), torch.stack(vectors))


class AppearanceEncoder(nn.Module):
    """Faces to the features of all levels, and their mix."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        channels, style = config.channels, config.style
        blocks = [ResBlock(*pair) for pair in zip(channels, channels[1:], strict=False)]
        self.convs = nn.ModuleList([ConvLayer(3, channels[0], 1), *blocks, EqualConv(channels[-1], style, 4)])
        for i, width in enumerate(channels[:POOLED_FIRST]):
            self.add_module(f"fc{i + 1}", EqualLinear(width, style))
        self.ws = WeightedSum(len(self.convs))

    def levels(self, faces: torch.Tensor) -> list[torch.Tensor]:
        """Features of each level, the full size first."""
        features = []
        for convolution in self.convs:
            faces = convolution(faces)
            features.append(faces)
        return features

    def aggregate(self, levels: list[torch.Tensor]) -> torch.Tensor:
        """(B, style), the mix of the levels' means."""
        means = [level.mean((2, 3)) for level in levels]
        return self.ws(
            [getattr(self, f"fc{i + 1}")(mean) if i < POOLED_FIRST else mean for i, mean in enumerate(means)]
        )


def _perceptron(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))


class Decoupling(nn.Module):
    """Parts an appearance vector into who it is and how it moves. Only the motion part is needed to animate."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.identity_net = _perceptron(width)
        self.identity_net_density = _perceptron(width)
        self.identity_excluded_net = _perceptron(width)


class MotionEncoder(nn.Module):
    """A face to its appearance, its motion code and its feature maps."""

    def __init__(self, config: EncoderConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or EncoderConfig()
        width = config.style
        self.net_app = AppearanceEncoder(config)
        self.net_decouping = Decoupling(width)
        # Five layers with nothing between them, as published.
        self.fc = nn.Sequential(*[EqualLinear(width, width) for _ in range(4)], EqualLinear(width, config.motion))

    def forward(self, faces: torch.Tensor) -> Encoded:
        """Faces (B, 3, size, size) in -1..1 to all that stage 2 and the renderer need of them."""
        levels = self.net_app.levels(faces)
        start = self.net_app.aggregate(levels)
        return Encoded(start, self.code(start), levels[-3::-1])

    def appearance(self, faces: torch.Tensor) -> torch.Tensor:
        """The appearance vectors (B, style) alone."""
        return self.net_app.aggregate(self.net_app.levels(faces))

    def code(self, start: torch.Tensor) -> torch.Tensor:
        """Motion codes (B, motion) of appearance vectors; neither normalised nor limited."""
        return self.fc(self.net_decouping.identity_excluded_net(start))
