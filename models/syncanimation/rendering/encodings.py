"""Fixed encodings of positions and directions."""

from __future__ import annotations

import torch

SPHERICAL_HARMONICS = 16
"""Values of `spherical_harmonics`: degrees 0 to 3."""


def frequency_size(inputs: int, degree: int) -> int:
    """How many values `frequency_encoding` gives for each row."""
    return inputs * (1 + 2 * degree)


def frequency_encoding(values: torch.Tensor, degree: int) -> torch.Tensor:
    """Values (n, D) to [x, sin x, cos x, sin 2x, cos 2x, sin 4x, ...] (n, D * (1 + 2 * degree)), without pi."""
    octaves = values[:, None, None] * (2.0 ** torch.arange(degree, device=values.device))[:, None, None]
    waves = torch.cat([octaves.sin(), octaves.cos()], 2)
    return torch.cat([values, waves.flatten(1)], 1)


def spherical_harmonics(directions: torch.Tensor) -> torch.Tensor:
    """Real spherical harmonics (n, 16) of unit vectors (n, 3), with the signs and the order of torch-ngp's kernel."""
    x, y, z = directions.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    return torch.stack(
        [
            torch.full_like(x, 0.28209479177387814),
            -0.48860251190291987 * y,
            0.48860251190291987 * z,
            -0.48860251190291987 * x,
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.94617469575755997 * zz - 0.31539156525251999,
            -1.0925484305920792 * x * z,
            0.54627421529603959 * (xx - yy),
            0.59004358992664352 * y * (yy - 3 * xx),
            2.8906114426405538 * x * y * z,
            0.45704579946446572 * y * (1 - 5 * zz),
            0.3731763325901154 * z * (5 * zz - 3),
            0.45704579946446572 * x * (1 - 5 * zz),
            1.4453057213202769 * z * (xx - yy),
            0.59004358992664352 * x * (3 * yy - xx),
        ],
        -1,
    )
