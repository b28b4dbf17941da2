"""A network that corrects coarse landmarks of one part of a face, in a picture of that part.

A few convolutions read the picture; two hidden layers join what they find with the coarse points. The shipped weights
(docs/face-points.md says what they were trained on) name their landmarks in the tensor `landmarks`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..weight_files import save_tensors

STRIDES = (2, 2, 1, 2, 1, 2, 1)
"""Of the convolutions; their widths are these times `PartPointsConfig.width`:"""
WIDTHS = (1, 2, 2, 4, 4, 6, 6)
SHRINKING = 16
"""Of the picture, by all convolutions together."""
STEP = 0.2
"""Of the last layer's output, so that corrections, a few hundredths, are learned as fast as the rest."""
LEAST_CONTRAST = 0.03


@dataclass(frozen=True)
class PartPointsConfig:
    """`size` is the picture's side in pixels, a multiple of 16; `hidden` the width of the hidden layers."""

    points: int
    size: int = 64
    width: int = 16
    hidden: int = 160


class PartPointsNetwork(nn.Module):
    """Pictures (n, 3, size, size) in 0..1 and coarse points (n, points, 3) to corrected points of the same shape.

    Points are in half sides of the picture from its middle, depth in the same unit.
    """

    landmarks: Tensor
    """Number (points,) of each point in the face mesh."""

    def __init__(self, config: PartPointsConfig, landmarks: Sequence[int] | None = None) -> None:
        super().__init__()
        self.config = config
        numbers = range(config.points) if landmarks is None else landmarks
        self.register_buffer("landmarks", torch.tensor(list(numbers), dtype=torch.int32))
        widths = [3, *(config.width * times for times in WIDTHS)]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, outputs, 3, stride, 1)
            for (inputs, outputs), stride in zip(pairwise(widths), STRIDES, strict=True)
        )
        found = widths[-1] * (config.size // SHRINKING) ** 2
        self.join = nn.Linear(found + 3 * config.points, config.hidden)
        self.mix = nn.Linear(config.hidden, config.hidden)
        self.correction = nn.Linear(config.hidden, 3 * config.points)

    def forward(
        self, pictures: Tensor, coarse: Tensor, norms: Sequence[nn.Module] = (), dropout: float = 0.0
    ) -> Tensor:
        """`norms`, one for each convolution, and `dropout` are for training."""
        found = even_contrast(pictures)
        for convolve, norm in zip_longest(self.convolutions, norms):
            found = convolve(found)
            found = torch.relu(found if norm is None else norm(found))
        joined = torch.cat([found.flatten(1), coarse.flatten(1)], dim=1)
        hidden = torch.relu(self.join(nn.functional.dropout(joined, dropout, training=dropout > 0)))
        hidden = torch.relu(self.mix(hidden))
        return coarse + STEP * self.correction(hidden).view(coarse.shape)


def even_contrast(pictures: Tensor) -> Tensor:
    """Pictures (n, 3, h, w) less their mean, over their standard deviation: brightness and contrast are left out."""
    deviation, mean = torch.std_mean(pictures, dim=(1, 2, 3), keepdim=True)
    return (pictures - mean) / (deviation + LEAST_CONTRAST)


def save_part_points(network: PartPointsNetwork, path: Path, description: dict[str, str]) -> None:
    """Writes half-precision weights; `description` joins the metadata."""
    weights = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in network.state_dict().items()
    }
    save_tensors(weights, path, metadata={**description, "config": json.dumps(asdict(network.config))})


def load_part_points(path: Path) -> PartPointsNetwork:
    """A trained network in evaluation mode, float32, strictly loaded."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        config: dict[str, Any] = json.loads((file.metadata() or {})["config"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    network = PartPointsNetwork(PartPointsConfig(**config))
    network.load_state_dict({n: v.float() if v.is_floating_point() else v for n, v in weights.items()}, strict=True)
    return network.eval()
