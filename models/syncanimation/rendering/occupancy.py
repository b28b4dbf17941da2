"""Where there is something to render: a grid of densities in space for the head, one on the image for the torso."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from .camera import Camera

GRID = 128
"""Cells along each axis."""
DECAY = 0.95
"""What a cell keeps of its density at each update."""
MOST_DENSITY, MOST_ALPHA = 10.0, 0.01
"""Cells are occupied above the mean, or above this where the mean is larger."""
TORSO_REACH = 5
"""Cells along each axis over which the torso's largest alpha is taken."""


class OccupancyGrid(nn.Module):
    """Densities (128, 128, 128) of the box -1..1, x first; -1 where no camera looks."""

    density: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("density", torch.zeros(GRID, GRID, GRID))

    def occupied(self) -> torch.Tensor:
        """Which cells hold something, (128, 128, 128)."""
        return self.density > self.density.clamp(min=0).mean().clamp(max=MOST_DENSITY)

    def lattice(self, part: float, generator: torch.Generator | None = None) -> torch.Tensor:
        """Numbers (m,) of the cells of a random lattice that is `part` (1, 1/8, 1/27, ...) of all, without the -1's."""
        stride = max(round(part ** (-1 / 3)), 1)
        x, y, z = torch.randint(stride, (3,), generator=generator).tolist()
        numbers = torch.arange(GRID**3, device=self.density.device).view(GRID, GRID, GRID)
        chosen = numbers[x::stride, y::stride, z::stride].flatten()
        return chosen[self.density.flatten()[chosen] >= 0]

    def update(self, cells: torch.Tensor, density: torch.Tensor) -> None:
        """Merges new densities (m,) of cells (m,) in: each spreads to its six neighbours, and old ones decay."""
        found = torch.full_like(self.density, -1)
        found.view(-1)[cells] = density.to(found.dtype)
        spread, last = found.clone(), GRID - 1
        for axis in range(3):
            for to, source in ((0, 1), (1, 0)):
                part = spread.narrow(axis, to, last)
                part.copy_(torch.maximum(part, found.narrow(axis, source, last)))
        valid = (self.density >= 0) & (spread >= 0)
        self.density.copy_(torch.where(valid, torch.maximum(self.density * DECAY, spread), self.density))

    def mark_unseen(self, camera: Camera, poses: torch.Tensor, box: Sequence[float]) -> None:
        """Sets cells to -1 that are outside of the box, or in front of none of the cameras with poses (N, 4, 4)."""
        places = cell_places(torch.arange(GRID**3, device=self.density.device))
        seen = torch.zeros(len(places), dtype=torch.bool, device=places.device)
        margin = 2 / GRID
        for pose in poses:
            x, y, z = ((places - pose[:3, 3]) @ pose[:3, :3]).unbind(1)
            across = x.abs() < camera.width / 2 / camera.focal_x * z + margin
            seen |= (z > 0) & across & (y.abs() < camera.height / 2 / camera.focal_y * z + margin)
        low, high = places.new_tensor(box).view(2, 3)
        seen &= ((places >= low) & (places <= high)).all(1)
        self.density[~seen.view_as(self.density)] = -1


def cell_places(cells: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
    """Centres (m, 3) of numbered cells, or with `noise` (m, 3) of 0..1 random places inside of them."""
    index = torch.stack([cells // GRID**2, cells // GRID % GRID, cells % GRID], 1)
    return (index + (0.5 if noise is None else noise)) * (2 / GRID) - 1


def from_morton(density: torch.Tensor) -> torch.Tensor:
    """A grid in Morton order, of 128**3 cells, to (128, 128, 128): bit k of x, y and z is bit 3k, 3k + 1 and 3k + 2."""
    return density.flatten()[_morton_order(density.device)].view(GRID, GRID, GRID)


def to_morton(density: torch.Tensor) -> torch.Tensor:
    """(128, 128, 128) to the Morton order (128**3,) of the published program's files."""
    result = torch.empty_like(density.flatten())
    result[_morton_order(density.device)] = density.flatten()
    return result


def _morton_order(device: torch.device) -> torch.Tensor:
    number = torch.arange(GRID, device=device)
    spread = sum((number >> bit & 1) << 3 * bit for bit in range(GRID.bit_length() - 1))
    spread = torch.as_tensor(spread)
    return (spread[:, None, None] | spread[None, :, None] << 1 | spread[None, None, :] << 2).flatten()


class TorsoOccupancy(nn.Module):
    """The torso's alpha on a grid (128, 128) of the image.

    The image's columns come first, as in published files: `pixel_coordinates` have rows first, and the sampling of
    images counts columns first.
    """

    density: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("density", torch.zeros(GRID, GRID))

    def occupied(self, coordinates: torch.Tensor) -> torch.Tensor:
        """Which of the places (n, 2) of `pixel_coordinates` show something, (n,)."""
        image = self.density[None, None]
        found = F.grid_sample(image, coordinates[None, :, None], align_corners=True).flatten()
        return found > self.density.mean().clamp(max=MOST_ALPHA)

    def places(self, generator: torch.Generator | None = None) -> torch.Tensor:
        """A random place (128 * 128, 2) in each cell, in the order of the grid."""
        centres = torch.linspace(-1, 1, GRID) * (1 - 1 / GRID)
        column, row = torch.meshgrid(centres, centres, indexing="ij")
        noise = (torch.rand(GRID**2, 2, generator=generator) * 2 - 1) / GRID
        return (torch.stack([row.flatten(), column.flatten()], 1) + noise).to(self.density.device)

    def update(self, alpha: torch.Tensor) -> None:
        """Merges alphas (128 * 128,) of `places` in; each spreads over two cells, and old ones decay."""
        image = alpha.view(1, 1, GRID, GRID).to(self.density.dtype)
        spread = F.max_pool2d(image, TORSO_REACH, 1, TORSO_REACH // 2)[0, 0]
        self.density.copy_(torch.maximum(self.density * DECAY, spread))
