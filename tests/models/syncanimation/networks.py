"""Networks of a person who is an ellipsoid, with random weights, for tests."""

from __future__ import annotations

import torch
from talking_portrait.models.syncanimation.networks import Networks, NetworksConfig
from talking_portrait.models.syncanimation.rendering.camera import Camera
from talking_portrait.models.syncanimation.rendering.fields import HeadConfig, TorsoConfig
from talking_portrait.models.syncanimation.rendering.occupancy import GRID, cell_places

CAMERA = Camera(30.0, 31.0, 12.5, 9.0, 20, 24)
POSE = torch.tensor([[0.0, 0.0, -1.0, 2.6], [1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
"""From 2.6 along x towards the box's middle, z up."""


def networks(seed: int = 0, **head: int) -> Networks:
    """Small in channels and codes; features and grids large enough that everything shows in the picture."""
    torch.manual_seed(seed)
    config = NetworksConfig(
        head=HeadConfig(**{"channels": 6, "codes": 3, **head}), torso=TorsoConfig(codes=3), speech=12
    )
    made = Networks(config).eval()
    renderer = made.renderer
    fields = renderer.head, renderer.torso
    with torch.no_grad():
        for name, tensor in (pair for field in fields for pair in field.named_parameters()):
            if name.endswith("embeddings"):
                tensor.normal_(0, 0.5)
        x, y, z = cell_places(torch.arange(GRID**3)).unbind(1)
        inside = (x / 0.7) ** 2 + (y / 0.4) ** 2 + (z / 0.6) ** 2 < 1
        renderer.occupancy.density.copy_(inside.view(GRID, GRID, GRID) * 20.0)
        renderer.torso_occupancy.density[:, GRID // 2 :] = 1.0  # columns first: the lower half of the rows
    return made


def conditions(expressions: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    """Audio code and expression."""
    generator = torch.Generator().manual_seed(5)
    return torch.randn(1, 32, generator=generator), torch.rand(1, expressions, generator=generator)
