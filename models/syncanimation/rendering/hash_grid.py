"""Multi-resolution grids of trainable features (Müller et al., SIGGRAPH 2022), as ER-NeRF's kernel computes them.

Vertices lie at half cells: a coordinate in 0..1 is multiplied by (resolution - 1) and 0.5 is added. Levels with more
vertices than entries share entries, by a hash ("hash") or by the linear index modulo the entries ("tiled").
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from typing import Literal

import torch
from torch import nn

PRIMES = (1, 2654435761, 805459861, 3674653429, 2097192037, 1434869437, 2165219737)
"""Multipliers of the coordinates in the hash; the first coordinate's is 1."""
ENTRY_MULTIPLE = 8
"""Each level's entries are rounded up to a multiple of this, which the hash and its modulus then use."""


@dataclass(frozen=True)
class Level:
    """One resolution of a grid: `size` vertices along each axis and `entries` rows of the table from `offset` on."""

    scale: float
    size: int
    offset: int
    entries: int
    hashed: bool
    dense: bool


@dataclass(frozen=True)
class GridConfig:
    """Sizes of a grid; those of a plane of the head as defaults."""

    inputs: int = 2
    levels: int = 12
    features: int = 1
    base: int = 64
    finest: int = 512
    log2_entries: int = 14
    kind: Literal["hash", "tiled"] = "hash"

    @property
    def outputs(self) -> int:
        return self.levels * self.features

    @property
    def entries(self) -> int:
        """Rows of the table."""
        last = grid_levels(self)[-1]
        return last.offset + last.entries


@cache
def grid_levels(config: GridConfig) -> tuple[Level, ...]:
    """The levels of a grid, coarse to fine.

    The table's sizes follow from the resolutions in double precision and the positions from those in single precision,
    as in the published program, which computes the former in Python and the latter in its kernel.
    """
    growth = math.log2(config.finest / config.base) / max(config.levels - 1, 1)
    single = torch.tensor(growth, dtype=torch.float32, device="cpu")  # whatever the default device is
    levels: list[Level] = []
    offset = 0
    for number in range(config.levels):
        vertices = (math.ceil(config.base * (2**growth) ** number) + 1) ** config.inputs
        entries = -(-min(2**config.log2_entries, vertices) // ENTRY_MULTIPLE) * ENTRY_MULTIPLE
        scale = float(torch.exp2(number * single) * config.base - 1)
        size = math.ceil(scale) + 2
        dense = size**config.inputs <= entries
        levels.append(Level(scale, size, offset, entries, config.kind == "hash" and not dense, dense))
        offset += entries
    return tuple(levels)


def grid_offsets(config: GridConfig) -> list[int]:
    """Where each level's rows begin, and the table's length."""
    return [level.offset for level in grid_levels(config)] + [config.entries]


def _wrapped(number: int) -> int:
    """A uint32 as the int32 of the same bits."""
    return number - 2**32 if number >= 2**31 else number


def vertex_hash(vertices: Sequence[torch.Tensor]) -> torch.Tensor:
    """The hash, as the int32 of the same bits and before its modulus, of vertices given as one int32 tensor an axis."""
    index = vertices[0]
    for vertex, prime in zip(vertices[1:], PRIMES[1:], strict=False):
        index = index ^ (vertex * _wrapped(prime))  # int32 overflows as uint32 does
    return index


def reduced(index: torch.Tensor, entries: int | torch.Tensor) -> torch.Tensor:
    """Indices, int32 of the bits of a uint32, modulo the entries of their level."""
    return torch.remainder(index.long() & 0xFFFFFFFF, entries).int()


def entry_index(level: Level, vertices: Sequence[torch.Tensor]) -> torch.Tensor:
    """Rows of the table, without the offset, of vertices given as one int32 tensor an axis."""
    if level.hashed:
        return reduced(vertex_hash(vertices), level.entries)
    # The kernel adds no further axis once the stride is beyond the entries.
    strides = [level.size**axis for axis in range(len(vertices)) if level.size**axis <= level.entries]
    linear = vertices[0]
    for vertex, stride in zip(vertices[1:], strides[1:], strict=False):
        linear = linear + vertex * stride
    return linear if level.dense else torch.remainder(linear, level.entries)


class HashGrid(nn.Module):
    """A grid's table, and its lookup at points of -1..1 along each axis."""

    offsets: torch.Tensor

    def __init__(self, config: GridConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or GridConfig()
        self.embeddings = nn.Parameter(torch.empty(config.entries, config.features).uniform_(-1e-4, 1e-4))
        self.register_buffer("offsets", torch.tensor(grid_offsets(config), dtype=torch.int32))

    def corners(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of the table (n, levels, 2**D) int32 around points (n, D), and their weights.

        Bit d of a corner's number is 1 where the corner is the far one along axis d.
        """
        unit = (points + 1) / 2
        every_index, every_weight = [], []
        for level in grid_levels(self.config):
            index, weight = zip(*vertices_around(level, unit), strict=True)
            every_index.append(torch.stack(index, -1) + level.offset)
            every_weight.append(torch.stack(weight, -1))
        return torch.stack(every_index, 1), torch.stack(every_weight, 1)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        """Points (n, D) to features (n, levels * features), differentiable in the points and the table.

        Where a coordinate is outside -1..1 all features are 0.
        """
        inside = ((points >= -1) & (points <= 1)).all(-1, keepdim=True)
        unit = (torch.where(inside, points, 0) + 1) / 2
        levels = grid_levels(self.config)
        features = []
        # Corner by corner: tensors of all corners and levels at once take three times as long on a CPU.
        for level, table in zip(levels, self.embeddings.split([level.entries for level in levels]), strict=True):
            terms = (table.index_select(0, index) * weight[:, None] for index, weight in vertices_around(level, unit))
            features.append(reduce(torch.add, terms))
        return torch.cat(features, 1) * inside


def vertices_around(level: Level, unit: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """For each of the 2**D corners around points (n, D) of 0..1: the row (n,) int32 of the level's part of the table,
    and the weight (n,)."""
    position = unit * level.scale + 0.5
    cell = position.detach().floor()
    low, fractions = cell.int().unbind(-1), (position - cell).unbind(-1)
    weights = [(1 - part, part) for part in fractions]
    for corner in range(2 ** len(low)):
        bits = [corner >> axis & 1 for axis in range(len(low))]
        index = entry_index(level, [vertex + bit for vertex, bit in zip(low, bits, strict=True)])
        yield index, reduce(torch.mul, [pair[bit] for pair, bit in zip(weights, bits, strict=True)])
