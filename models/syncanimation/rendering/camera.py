"""From the tracker's cameras to the renderer's rays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

SCALE = 4.0
"""What positions of cameras are multiplied by; the head then fits the renderer's box of -1..1."""


class Rays(NamedTuple):
    """Origins and unit directions (n, 3)."""

    origins: torch.Tensor
    directions: torch.Tensor


@dataclass(frozen=True)
class Camera:
    """A pinhole camera, in pixels: focal lengths, principal point and the image's size."""

    focal_x: float
    focal_y: float
    centre_x: float
    centre_y: float
    height: int
    width: int

    def scaled(self, height: int) -> Camera:
        """The same view in an image of another height."""
        factor = height / self.height
        return replace(
            self,
            focal_x=self.focal_x * factor,
            focal_y=self.focal_y * factor,
            centre_x=self.centre_x * factor,
            centre_y=self.centre_y * factor,
            height=height,
            width=round(self.width * factor),
        )

    def widened(self, factor: float) -> Camera:
        """A view of `factor` times the width and height in as many pixels; the middle of the lower edge stays."""
        return replace(
            self,
            focal_x=self.focal_x / factor,
            focal_y=self.focal_y / factor,
            centre_x=(self.centre_x - self.width / 2 * (1 - factor)) / factor,
            centre_y=(self.centre_y - self.height * (1 - factor)) / factor,
        )

    @property
    def pixels(self) -> int:
        return self.height * self.width


def renderer_pose(c2w: torch.Tensor, scale: float = SCALE, offset: tuple[float, ...] = (0, 0, 0)) -> torch.Tensor:
    """Camera-to-world matrices (..., 4, 4) of the tracker to the renderer's, whose axes are others."""
    rows = c2w[..., (1, 2, 0), :]
    signs = c2w.new_tensor([1.0, -1.0, -1.0])
    place = rows[..., 3:] * scale + c2w.new_tensor(offset)[:, None]
    return torch.cat([torch.cat([rows[..., :3] * signs, place], -1), c2w[..., 3:, :]], -2)


def rays(camera: Camera, pose: torch.Tensor, pixels: torch.Tensor | None = None) -> Rays:
    """The rays through the centres of pixels, numbered row by row; of all pixels by default. `pose` is (4, 4)."""
    row, column = _places(camera, pixels, pose.device)
    x = (column + 0.5 - camera.centre_x) / camera.focal_x
    y = (row + 0.5 - camera.centre_y) / camera.focal_y
    directions = torch.stack([x, y, torch.ones_like(x)], 1)
    directions = directions / directions.norm(dim=1, keepdim=True)
    return Rays(pose[:3, 3].expand(len(x), 3), turned(directions, pose[:3, :3]))


def turned(vectors: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Vectors (n, D) times a matrix (D, D), in their own precision where products of matrices would take half of it."""
    return (vectors[:, None] * matrix).sum(2)


def pixel_coordinates(
    camera: Camera, pixels: torch.Tensor | None = None, device: torch.device | str | None = None
) -> torch.Tensor:
    """Places of pixels in -1..1, the first and the last at the ends, as (n, 2): the row comes first (published)."""
    row, column = _places(camera, pixels, device)
    ends = max(camera.height - 1, 1), max(camera.width - 1, 1)
    return torch.stack([2 * row / ends[0] - 1, 2 * column / ends[1] - 1], 1)


def widened_coordinates(coordinates: torch.Tensor, factor: float) -> torch.Tensor:
    """The places (n, 2) of the original picture that a widened view shows at `pixel_coordinates`."""
    row, column = coordinates.unbind(1)
    return torch.stack([1 - (1 - row) * factor, column * factor], 1)


def _places(
    camera: Camera, pixels: torch.Tensor | None, device: torch.device | str | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and columns (n,) as floating-point numbers."""
    if pixels is None:
        pixels = torch.arange(camera.pixels, device=device)
    return (pixels // camera.width).float(), (pixels % camera.width).float()
