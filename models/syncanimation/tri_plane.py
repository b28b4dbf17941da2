"""Features of points from three planar grids, with a backward pass that is written out.

On a CPU the entries of each level's vertices are laid out as an image, which the interpolation of images then samples:
seven times as fast as fetching four entries for each point and level, and the gradients flow back the same way.
Elsewhere the entries are fetched, level by level, so that no table of indices is ever in memory; what
`torch.compile` makes of `fetch` is one kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F

from .hash_grid import GridConfig, Level, entry_index, grid_levels

PLANES = ((0, 1), (1, 2), (0, 2))
"""Coordinates of the three planes: xy, yz, xz."""
FEWEST_POINTS = 2048
"""Below so many points laying out the images takes longer than fetching."""


def plane_features(points: torch.Tensor, tables: torch.Tensor, config: GridConfig) -> torch.Tensor:
    """Points (n, 3) of -1..1 to features (n, 3 * levels) from tables (3, entries), one feature a level.

    Differentiable in the tables alone. A plane's features are 0 where one of its two coordinates is outside -1..1.
    """
    return _PlaneFeatures.apply(points, tables, config).T


class _PlaneFeatures(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: torch.Tensor, tables: torch.Tensor, config: GridConfig) -> torch.Tensor:
        ctx.save_for_backward(points, tables)
        ctx.config = config
        look_up = interpolate if _uses_images(points) else fetch
        return look_up(_unit(points), tables, config)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[None, torch.Tensor, None]:
        points, tables = ctx.saved_tensors
        add_up = interpolate_backward if _uses_images(points) else fetch_backward
        return None, add_up(_unit(points), tables, gradients[0], ctx.config), None


def _uses_images(points: torch.Tensor) -> bool:
    return points.device.type == "cpu" and len(points) >= FEWEST_POINTS


def _unit(points: torch.Tensor) -> torch.Tensor:
    """Points (n, 3) to the planes' coordinates (3, n, 2) in 0..1."""
    columns = ((points + 1) / 2).unbind(1)
    return torch.stack([torch.stack([columns[first], columns[second]], 1) for first, second in PLANES])


def _inside(unit: torch.Tensor) -> torch.Tensor:
    return ((unit >= 0) & (unit <= 1)).all(2)


# --- images ---


@cache
def _vertex_entries(config: GridConfig) -> torch.Tensor:
    """The table's row of each vertex of each level, level after level; within one, the second coordinate counts rows.

    Levels are laid out without their last row and column where no point reaches those.
    """
    entries = []
    for level in grid_levels(config):
        number = torch.arange(level.size, dtype=torch.int32)
        y, x = torch.meshgrid(number, number, indexing="ij")
        entries.append(entry_index(level, (x, y)).flatten() + level.offset)
    return torch.cat(entries).long()


def _sampled_places(unit: torch.Tensor, level: Level) -> torch.Tensor:
    """Coordinates for `grid_sample` (3, 1, n, 2), whose -1 and 1 are the first and the last vertex."""
    last = level.size - 1
    return torch.add(torch.full_like(unit[:1, :1, :1], 1 / last - 1), unit, alpha=2 * level.scale / last)[:, None]


def interpolate(unit: torch.Tensor, tables: torch.Tensor, config: GridConfig) -> torch.Tensor:
    """Features (3 * levels, n) of places (3, n, 2) by way of images."""
    vertices = tables.index_select(1, _vertex_entries(config))
    features = unit.new_empty(len(tables), config.levels, unit.shape[1])
    start = 0
    for number, level in enumerate(grid_levels(config)):
        image = vertices[:, start : start + level.size**2].view(-1, 1, level.size, level.size)
        sampled = F.grid_sample(image, _sampled_places(unit, level), align_corners=True)
        features[:, number] = sampled[:, 0, 0]
        start += level.size**2
    inside = _inside(unit)
    if not inside.all():
        features *= inside[:, None]
    return features.flatten(0, 1)


def interpolate_backward(
    unit: torch.Tensor, tables: torch.Tensor, gradients: torch.Tensor, config: GridConfig
) -> torch.Tensor:
    """Gradients of the tables from those of the features (3 * levels, n)."""
    entries = _vertex_entries(config)
    gradients = gradients.view(len(tables), config.levels, -1)
    inside = _inside(unit)
    if not inside.all():
        gradients = gradients * inside[:, None]
    vertices = []
    for number, level in enumerate(grid_levels(config)):
        image = tables.new_empty(1).expand(len(tables), 1, level.size, level.size)
        upstream = gradients[:, number].contiguous()[:, None, None]
        found, _ = torch.ops.aten.grid_sampler_2d_backward(
            upstream, image, _sampled_places(unit, level), 0, 0, True, [True, False]
        )
        vertices.append(found.flatten(1))
    every = torch.cat(vertices, 1)
    return torch.stack([torch.bincount(entries, plane, len(row)) for plane, row in zip(every, tables, strict=True)]).to(
        tables.dtype
    )


# --- entries ---


def _corners(
    unit: torch.Tensor, level: Level
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The table's row and the weight (3, n) of each of the four vertices around places (3, n, 2)."""
    position = unit * level.scale + 0.5
    cell = position.floor()
    x, y = (position - cell).unbind(2)
    column, row = cell.int().unbind(2)
    return [
        (entry_index(level, (column + right, row + below)) + level.offset, (x if right else 1 - x) * (y if below else 1 - y))
        for below in (0, 1)
        for right in (0, 1)
    ]


def fetch(unit: torch.Tensor, tables: torch.Tensor, config: GridConfig) -> torch.Tensor:
    """Features (3 * levels, n) of places (3, n, 2) entry by entry."""
    inside = _inside(unit)
    unit = torch.where(inside[..., None], unit, 0)
    features = [
        sum(tables.gather(1, index.long()) * weight for index, weight in _corners(unit, level))
        for level in grid_levels(config)
    ]
    return (torch.stack(features, 1) * inside[:, None]).flatten(0, 1)


def fetch_backward(
    unit: torch.Tensor, tables: torch.Tensor, gradients: torch.Tensor, config: GridConfig
) -> torch.Tensor:
    """Gradients of the tables from those of the features (3 * levels, n)."""
    inside = _inside(unit)
    unit = torch.where(inside[..., None], unit, 0)
    upstream = gradients.view(len(tables), config.levels, -1) * inside[:, None]
    found = torch.zeros_like(tables, dtype=torch.float32)
    for number, level in enumerate(grid_levels(config)):
        for index, weight in _corners(unit, level):
            found.scatter_add_(1, index.long(), upstream[:, number].float() * weight)
    return found.to(tables.dtype)


LookUp = Callable[[torch.Tensor, torch.Tensor, GridConfig], torch.Tensor]
