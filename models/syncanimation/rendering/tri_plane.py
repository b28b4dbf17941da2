"""Features of points from three planar grids, with a backward pass that is written out.

On a CPU the entries of each level's vertices are laid out as an image, in which the four vertices around a point lie at
fixed distances: one index serves all four, without a hash. Elsewhere entries are fetched for all levels at once, which
`torch.compile` can make one kernel of. Both give what `HashGrid` gives for each plane.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import torch

from .hash_grid import GridConfig, Level, entry_index, grid_levels, reduced, vertex_hash

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
        if points.device.type == "cpu" and not compiled:
            return interpolate(points, lay_out(tables, config), config)
        return _fetching(fetch, compiled)(points, tables, level_table(config, points.device))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[None, torch.Tensor, None, None]:
        points, tables = ctx.saved_tensors
        if points.device.type == "cpu" and not ctx.compiled:
            return None, interpolate_backward(points, tables, gradients[0], ctx.config), None, None
        levels = level_table(ctx.config, points.device)
        return None, _fetching(fetch_backward, ctx.compiled)(points, tables, gradients[0], levels), None, None


@cache
def _fetching(function: Callable[..., torch.Tensor], compiled: bool) -> Callable[..., torch.Tensor]:
    """The function itself, or what `torch.compile` makes of it: a kernel or two."""
    return torch.compile(function, dynamic=True) if compiled else function


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


@cache
def can_compile(device: torch.device, config: GridConfig) -> bool:
    """Whether compiled fetching works on this device, by trying: it needs Triton, and a compiler that this finds.

    Takes some seconds the first time, which the first call would take else.
    """
    if device.type != "cuda":
        return False
    try:
        with torch.inference_mode(False), torch.enable_grad():
            tables = torch.zeros(len(PLANES), config.entries, device=device, requires_grad=True)
            plane_features(torch.zeros(64, 3, device=device), tables, config, compiled=True).sum().backward()
    except Exception:  # what torch.compile raises where a part of it is missing has no one class
        return False
    return True


# --- images ---


@cache
def _vertex_entries(config: GridConfig) -> torch.Tensor:
    """The table's row of each vertex of each level, level after level, row by row: the second coordinate."""
    entries = []
    for level in grid_levels(config):
        number = torch.arange(level.size, dtype=torch.int32, device="cpu")
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


class LevelTable(NamedTuple):
    """What `hash_grid.Level` has, for all levels at once, as columns (levels, 1).

    `mask` are the bits of an index that number a level's entries, all bits where each vertex has its own; None for a
    grid of which a level has no such bits, as its entries are no power of two.
    """

    scale: torch.Tensor
    size: torch.Tensor
    offset: torch.Tensor
    entries: torch.Tensor
    mask: torch.Tensor | None
    hashed: torch.Tensor


@cache
def level_table(config: GridConfig, device: torch.device) -> LevelTable:
    levels = grid_levels(config)
    has_masks = all(level.dense or not level.entries & (level.entries - 1) for level in levels)

    def column(values: list[Any], dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype, device=device)[:, None]

    return LevelTable(
        column([level.scale for level in levels], torch.float32),
        column([level.size for level in levels], torch.int32),
        column([level.offset for level in levels], torch.int32),
        column([level.entries for level in levels], torch.int64),
        column([-1 if level.dense else level.entries - 1 for level in levels], torch.int32) if has_masks else None,
        column([level.hashed for level in levels], torch.bool),
    )


def _corners(unit: torch.Tensor, levels: LevelTable, entries: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The row, in the three tables one after the other, and the weight (3, levels, n) of each of the four vertices
    around points, in each plane. Whole numbers are int32, as memory is what this takes its time from."""
    position = unit[:, None] * levels.scale + 0.5
    cell = position.floor()
    fraction, cell = position - cell, cell.int()
    across, down = [x for x, _ in PLANES], [y for _, y in PLANES]
    column, row, x, y = cell[across], cell[down], fraction[across], fraction[down]
    plane = torch.arange(len(PLANES), dtype=torch.int32, device=unit.device)[:, None, None] * entries
    for below in (0, 1):
        for right in (0, 1):
            vertex = column + right, row + below
            index = torch.where(levels.hashed, vertex_hash(vertex), vertex[0] + vertex[1] * levels.size)
            index = reduced(index, levels.entries) if levels.mask is None else index & levels.mask
            yield index + (levels.offset + plane), (x if right else 1 - x) * (y if below else 1 - y)


def fetch(points: torch.Tensor, tables: torch.Tensor, levels: LevelTable) -> torch.Tensor:
    """Features (3 * levels, n) of points (n, 3), entry by entry."""
    unit, inside = _unit(points)
    features = torch.zeros(len(PLANES), len(levels.scale), len(points), dtype=tables.dtype, device=points.device)
    for index, weight in _corners(unit, levels, tables.shape[1]):
        features = features + tables.flatten().index_select(0, index.flatten()).view_as(weight) * weight
    return (features * inside[:, None]).flatten(0, 1)


def fetch_backward(
    points: torch.Tensor, tables: torch.Tensor, gradients: torch.Tensor, levels: LevelTable
) -> torch.Tensor:
    """Gradients of the tables from those of the features (3 * levels, n)."""
    unit, inside = _unit(points)
    upstream = gradients.reshape(len(PLANES), len(levels.scale), -1).to(tables.dtype) * inside[:, None]
    found = torch.zeros_like(tables).flatten()
    for index, weight in _corners(unit, levels, tables.shape[1]):
        found = found.index_add(0, index.flatten(), (upstream * weight).flatten())
    return found.view_as(tables)
