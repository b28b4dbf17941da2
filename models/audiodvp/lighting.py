"""Illumination by spherical harmonics: nine real basis functions of the normal, with a coefficient for each colour."""

from __future__ import annotations

import math

import torch

AMBIENT = 0.7
"""Added to the first coefficient of each colour (published)."""
BANDS = 9
_A0, _A1, _A2 = math.pi, 2 * math.pi / math.sqrt(3), 2 * math.pi / math.sqrt(8)
_C0, _C1, _C2 = 1 / math.sqrt(4 * math.pi), math.sqrt(3) / math.sqrt(4 * math.pi), 3 * math.sqrt(5 / (12 * math.pi))


def harmonics(normals: torch.Tensor) -> torch.Tensor:
    """Unit normals (B, V, 3) to the basis functions (B, V, 9), each times its factor for a Lambertian surface."""
    x, y, z = normals.unbind(-1)
    return torch.stack(
        [
            torch.full_like(x, _A0 * _C0),
            -_A1 * _C1 * y,
            _A1 * _C1 * z,
            -_A1 * _C1 * x,
            _A2 * _C2 * x * y,
            -_A2 * _C2 * y * z,
            _A2 * _C2 * (3 * z * z - 1) / (2 * math.sqrt(3)),
            -_A2 * _C2 * x * z,
            _A2 * _C2 * (x * x - y * y) / 2,
        ],
        -1,
    )


def illuminate(albedo: torch.Tensor, normals: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
    """Colours (B, V, 3), not limited to 0..1, of vertices with an albedo (B, V, 3) and unit normals (B, V, 3).

    `gamma` (B, 27, 1) is band-major: the three colours of the first band, then those of the second. Other systems of
    the Deep3DFaceRecon family store the nine bands of each colour one after another.
    """
    light = gamma.reshape(-1, BANDS, 3)
    light = torch.cat([light[:, :1] + AMBIENT, light[:, 1:]], 1)
    return albedo * (harmonics(normals) @ light)
