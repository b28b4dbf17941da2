"""Features of points from three planar grids, with a backward pass that is written out.

On a CPU the entries of each level's vertices are laid out as an image, in which the four vertices around a point lie at
fixed distances: one index serves all four, without a hash. Elsewhere entries are fetched, level by level, so that no
table of indices is ever in memory. Both give what `HashGrid` gives for each plane.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch

from .hash_grid import GridConfig, Level, entry_index, grid_levels

PLANES = ((0, 1), (1, 2), (0, 2))
"""Coordinates of the three planes: xy, yz, xz."""


def plane_features(
    points: torch.Tensor,
    tables: torch.Tensor,
    config: GridConfig,
    layout: torch.Tensor | None = None,
    *,
    compiled: bool = False,
) -> torch.Tensor:
    """Points (n, 3) of -1..1 to features (n, 3 * levels) from tables (3, entries), one feature a level.

    Differentiable in the tables alone. A plane's features are 0 where one of its two coordinates is outside -1..1.
    `layout` is what `lay_out` gives, for calls with the same tables and without gradients. `compiled` fetches entries
    with what `torch.compile` makes of it, on any device.
    """
    if layout is not None and not compiled:
        return interpolate(points, layout, config).T
    return _PlaneFeatures.apply(points, tables, config, compiled).T


class _PlaneFeatures(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, points: torch.Tensor, tables: torch.Tensor, config: GridConfig, compiled: bool
    ) -> torch.Tensor:
        ctx.save_for_backward(points, tables)
        ctx.config, ctx.compiled = config, compiled
        if compiled:
            return _compiled(fetch, config)(points, tables)
        if points.device.type == "cpu":
            return interpolate(points, lay_out(tables, config), config)
        return fetch(points, tables, grid_levels(config))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[None, torch.Tensor, None, None]:
        points, tables = ctx.saved_tensors
        if ctx.compiled:
            found = _compiled(fetch_backward, ctx.config)(points, tables, gradients[0])
        elif points.device.type == "cpu":
            found = interpolate_backward(points, tables, gradients[0], ctx.config)
        else:
            found = fetch_backward(points, tables, gradients[0], levels=grid_levels(ctx.config))
        return None, found, None, None


@cache
def _compiled(function: Callable[..., torch.Tensor], config: GridConfig) -> Callable[..., torch.Tensor]:
    """A function for the levels of a grid, as `torch.compile` translates it: to one kernel a level, or fewer."""
    return torch.compile(partial(function, levels=grid_levels(config)), dynamic=True)


def _unit(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates (3, n) in 0..1, those outside at 0, and which points are inside of each plane (3, n)."""
    unit = ((points + 1) / 2).T.contiguous()
    valid = (unit >= 0) & (unit <= 1)
    return torch.where(valid, unit, 0), torch.stack([valid[first] & valid[second] for first, second in PLANES])


def _cells(unit: torch.Tensor, level: Level) -> tuple[torch.Tensor, torch.Tensor]:
    """The vertex (3, n) before each coordinate, and the fraction of a cell beyond it."""
    position = unit * level.scale + 0.5
    cell = position.floor()
    return cell, position - cell


# --- images ---


@cache
def _vertex_entries(config: GridConfig) -> torch.Tensor:
    """The table's row of each vertex of each level, level after level, row by row: the second coordinate."""
    entries = []
    for level in grid_levels(config):
        number = torch.arange(level.size, dtype=torch.int32)
        y, x = torch.meshgrid(number, number, indexing="ij")
        entries.append(entry_index(level, (x, y)).flatten() + level.offset)
    return torch.cat(entries).long()


def lay_out(tables: torch.Tensor, config: GridConfig) -> torch.Tensor:
    """Tables (3, entries) to the values (3, vertices) of all levels' vertices, on the CPU."""
    return tables.index_select(1, _vertex_entries(config))


def _images(vertices: torch.Tensor, config: GridConfig) -> list[torch.Tensor]:
    """Each level's part (3, size * size) of the laid-out vertices."""
    return list(vertices.split([level.size**2 for level in grid_levels(config)], 1))


def interpolate(points: torch.Tensor, layout: torch.Tensor, config: GridConfig) -> torch.Tensor:
    """Features (3 * levels, n) of points (n, 3) from laid-out vertices."""
    unit, inside = _unit(points)
    features = unit.new_empty(len(PLANES), config.levels, len(points))
    for number, (level, image) in enumerate(zip(grid_levels(config), _images(layout, config), strict=True)):
        cell, fraction = _cells(unit, level)
        cell = cell.int()
        for plane, (x, y) in enumerate(PLANES):
            index = cell[y] * level.size + cell[x]
            near, right, below, far = (
                image[plane, step:].index_select(0, index) for step in (0, 1, level.size, level.size + 1)
            )
            above, under = torch.lerp(near, right, fraction[x]), torch.lerp(below, far, fraction[x])
            torch.lerp(above, under, fraction[y], out=features[plane, number])
    if not inside.all():
        features *= inside[:, None]
    return features.flatten(0, 1)


def interpolate_backward(
    points: torch.Tensor, tables: torch.Tensor, gradients: torch.Tensor, config: GridConfig
) -> torch.Tensor:
    """Gradients of the tables from those of the features (3 * levels, n)."""
    unit, inside = _unit(points)
    gradients = gradients.reshape(len(PLANES), config.levels, -1)
    if not inside.all():
        gradients = gradients * inside[:, None]
    entries = _vertex_entries(config)
    vertices = gradients.new_zeros(len(PLANES), len(entries))
    for number, (level, image) in enumerate(zip(grid_levels(config), _images(vertices, config), strict=True)):
        cell, fraction = _cells(unit, level)
        cell = cell.long()
        for plane, (x, y) in enumerate(PLANES):
            index = cell[y] * level.size + cell[x]
            whole = gradients[plane, number]
            towards_right, towards_below = whole * fraction[x], whole * fraction[y]
            far = towards_right * fraction[y]
            right, below = towards_right - far, towards_below - far
            shares = (whole - towards_right - below, right, below, far)
            for step, share in zip((0, 1, level.size, level.size + 1), shares, strict=True):
                image[plane, step:].scatter_add_(0, index, share)
    return torch.zeros_like(tables).index_add_(1, entries, vertices)


# --- entries ---


def _corners(unit: torch.Tensor, level: Level) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The table's row and the weight (3, n) of each of the four vertices around points, in each plane."""
    cell, fraction = _cells(unit, level)
    cell = cell.int()
    across, down = [x for x, _ in PLANES], [y for _, y in PLANES]
    column, row, x, y = cell[across], cell[down], fraction[across], fraction[down]
    return [
        (
            (entry_index(level, (column + right, row + below)) + level.offset).long(),
            (x if right else 1 - x) * (y if below else 1 - y),
        )
        for below in (0, 1)
        for right in (0, 1)
    ]


def fetch(points: torch.Tensor, tables: torch.Tensor, levels: tuple[Level, ...]) -> torch.Tensor:
    """Features (3 * levels, n) of points (n, 3), entry by entry."""
    unit, inside = _unit(points)
    features = []
    for level in levels:
        weighted = [tables.gather(1, index) * weight for index, weight in _corners(unit, level)]
        features.append(torch.stack(weighted).sum(0))
    return (torch.stack(features, 1) * inside[:, None]).flatten(0, 1)


def fetch_backward(
    points: torch.Tensor, tables: torch.Tensor, gradients: torch.Tensor, levels: tuple[Level, ...]
) -> torch.Tensor:
    """Gradients of the tables from those of the features (3 * levels, n)."""
    unit, inside = _unit(points)
    upstream = gradients.reshape(len(PLANES), len(levels), -1).to(tables.dtype) * inside[:, None]
    found = torch.zeros_like(tables)
    for number, level in enumerate(levels):
        for index, weight in _corners(unit, level):
            found = found.scatter_add(1, index, upstream[:, number] * weight)
    return found
