"""AudioDVP's camera and head pose: from model space to clip space to pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Camera:
    """A perspective camera on the z axis at `eye_z` that faces the origin; the defaults are AudioDVP's.

    `fov_y` in degrees; `near` and `far` are distances. The upward direction is (0, `up_y`, 0): with AudioDVP's -1 the
    image is rolled by 180 degrees, and as its rows run downwards, it shows the face model mirrored.
    """

    eye_z: float = 8.0
    fov_y: float = 25.0
    near: float = 0.01
    far: float = 100.0
    up_y: float = -1.0

    def matrix(self) -> torch.Tensor:
        """(4, 4) float32: world coordinates (x, y, z, 1) as a column to clip coordinates.

        The product of the matrices of gluPerspective, with the aspect 1, and gluLookAt.
        """
        focal = math.copysign(1 / math.tan(math.radians(self.fov_y) / 2), self.up_y)
        depth = self.far - self.near
        scale, shift = -(self.far + self.near) / depth, -2 * self.far * self.near / depth
        return torch.tensor(
            [[focal, 0, 0, 0], [0, focal, 0, 0], [0, 0, scale, shift - scale * self.eye_z], [0, 0, -1, self.eye_z]]
        )

    def project(self, world: torch.Tensor) -> torch.Tensor:
        """World coordinates (B, V, 3) to clip coordinates (B, V, 4)."""
        return F.pad(world, (0, 1), value=1.0) @ self.matrix().to(world).T


def rotation_matrix(angles: torch.Tensor) -> torch.Tensor:
    """Angles (B, 3, 1) about x, y and z in radians to (B, 3, 3): Rz @ Ry @ Rx."""
    sine, cosine = angles.flatten(1).sin().unbind(1), angles.flatten(1).cos().unbind(1)
    (s0, s1, s2), (c0, c1, c2) = sine, cosine
    rows = (
        (c2 * c1, c2 * s1 * s0 - c0 * s2, s2 * s0 + c2 * c0 * s1),
        (c1 * s2, c2 * c0 + s2 * s1 * s0, c0 * s2 * s1 - c2 * s0),
        (-s1, c1 * s0, c1 * c0),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], 1)


def to_world(geometry: torch.Tensor, rotation: torch.Tensor, translation: torch.Tensor) -> torch.Tensor:
    """Vertices (B, V, 3) in model space to world space: R (G - t).

    The translation (B, 3, 1) is subtracted, and that before the rotation (B, 3, 3), as published.
    """
    return (geometry - translation.transpose(1, 2)) @ rotation.transpose(1, 2)


def to_pixels(clip: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Clip coordinates (B, V, 4) to x and y (B, V, 2) in pixels from the top left of an image of (height, width)."""
    height, width = size
    return (clip[..., :2] / clip[..., 3:] + 1) * clip.new_tensor([width / 2, height / 2])
