"""A small face model: half an ellipsoid with random bases."""

from __future__ import annotations

import math

import torch
from talking_portrait.models.audiodvp.face_model import (
    Coefficients,
    FaceModel,
    adjacent_triangles,
    lower_triangles,
)

IDENTITIES, EXPRESSIONS, TEXTURES = 4, 5, 3


def face_model(rows: int = 9, columns: int = 8) -> FaceModel:
    """Of rows * columns vertices, about 2 units high, its front towards +z, up being +y."""
    generator = torch.Generator().manual_seed(0)
    across, up = torch.meshgrid(torch.linspace(-1.4, 1.4, columns), torch.linspace(-1.3, 1.3, rows), indexing="xy")
    points = torch.stack([0.8 * across.sin() * up.cos(), 1.1 * up.sin(), 0.7 * across.cos() * up.cos()], -1)
    index = torch.arange(rows * columns).view(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    triangles = torch.cat([torch.stack([a, b, c], -1), torch.stack([b, d, c], -1)]).view(-1, 3).int()
    mean, count = points.reshape(-1, 1), rows * columns

    def basis(size: int) -> torch.Tensor:
        return 0.02 * torch.randn(3 * count, size, generator=generator)

    return FaceModel(
        geo_mean=mean,
        id_base=basis(IDENTITIES),
        exp_base=basis(EXPRESSIONS),
        tex_mean=torch.full((3 * count, 1), 0.5),
        tex_base=basis(TEXTURES),
        triangles=triangles,
        lower_triangles=lower_triangles(mean, triangles),
        point_buf=adjacent_triangles(triangles, count),
        landmark_index=torch.arange(68) % count,
    )


def coefficients(batch: int, seed: int = 1) -> Coefficients:
    generator = torch.Generator().manual_seed(seed)

    def drawn(rows: int, size: int, scale: float) -> torch.Tensor:
        return math.sqrt(scale) * torch.randn(rows, size, 1, generator=generator)

    return Coefficients(
        alpha=drawn(1, IDENTITIES, 1.0),
        delta=drawn(batch, EXPRESSIONS, 1.0),
        beta=drawn(1, TEXTURES, 1.0),
        gamma=drawn(batch, 27, 0.01),
        rotation=drawn(batch, 3, 0.02),
        translation=drawn(batch, 3, 0.02),
    )


def neutral(batch: int = 1) -> Coefficients:
    drawn = coefficients(batch)
    return Coefficients(**{name: torch.zeros_like(value) for name, value in vars(drawn).items()})
