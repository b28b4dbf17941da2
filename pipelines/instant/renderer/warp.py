"""Smooth displacement fields: from scattered points to grids, from forward to backward, from grids to pixels.

A picture is warped backwards: each output pixel takes its colour from a source position. Motion is given forwards, at
the vertices of a face. `between_sites` interpolates from vertices to a grid, once for a portrait; `invert` turns a
forward field into a backward one by a fixed-point step and Newton's method.

Numbers that name no source were chosen by eye on portraits; the trials are not recorded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ....models.curves import smoothstep
from ...image.windows import box_mean, largest_of_run
from ...progress import check_interrupted

LEAST_AREA, EASED_AREA, EASED_INVERSE = 0.22, 0.42, 0.3
"""Least area ratio that a field and its inverse get, and the ratios below which the one and the other is smoothed."""

SMOOTHING = (1, 2, 4, 8)
"""Nodes over which a field is smoothed where it would fold, one round after the other."""

TOLERANCE, MAX_ROUNDS = 0.05, 8
"""Pixels to which a field is inverted, and how many rounds that may take: mostly it takes two."""

MAX_STEP = 0.06
"""Longest correction in one round of the inversion, in widths of the grid."""


FINE_VALUES = 12_000_000
"""Values of a layer above which none are added between them: memory grows with them."""


@dataclass(frozen=True)
class Grid:
    """A regular grid of nodes over a rectangle of the picture, nodes on its borders.

    `left`, `top`, `right`, `bottom` in pixels (pixel centres at +0.5); `rows` x `columns` nodes.
    """

    left: float
    top: float
    right: float
    bottom: float
    rows: int
    columns: int

    @classmethod
    def over(cls, left: float, top: float, right: float, bottom: float, step: float) -> Grid:
        """A grid with nodes at most `step` pixels apart."""
        columns = max(2, int(np.ceil((right - left) / step)) + 1)
        rows = max(2, int(np.ceil((bottom - top) / step)) + 1)
        return cls(left, top, right, bottom, rows, columns)

    def nodes(self) -> np.ndarray:
        """Node positions (rows * columns, 2) in pixels, row by row."""
        x = np.linspace(self.left, self.right, self.columns)
        y = np.linspace(self.top, self.bottom, self.rows)
        return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)

    def normalised(self, positions: torch.Tensor) -> torch.Tensor:
        """Pixels (..., 2) to the -1..1 coordinates of `grid_sample` with align_corners=True on a field of this grid."""
        return (positions - positions.new_tensor([self.left, self.top])) * self.scale(positions) - 1

    def scale(self, like: torch.Tensor) -> torch.Tensor:
        """Factors (2,) from pixels to those coordinates, on the device of `like`."""
        return like.new_tensor([2 / (self.right - self.left), 2 / (self.bottom - self.top)])


def between_sites(
    sites: np.ndarray, values: np.ndarray, queries: np.ndarray, softness: float, ridge: float
) -> np.ndarray:
    """Values (Q, C) at `queries` (Q, 2), smoothly between the `values` (N, C) at `sites` (N, 2).

    Multiquadric radial basis functions sqrt((r / softness)^2 + 1) with a constant; values are reproduced at the sites
    up to `ridge`. Positions and `softness` in pixels.
    """
    count = len(sites)
    system = np.ones((count + 1, count + 1))
    # In units of the softness the basis is near 1 where points touch, so the ridge has the same meaning at any size.
    system[:count, :count] = ridge * np.eye(count) - _multiquadric(sites, sites, softness)
    system[count, count] = 0
    coefficients = np.linalg.solve(system, np.concatenate([values, np.zeros((1, values.shape[1]))])).astype(np.float32)
    return coefficients[count] - _multiquadric(queries, sites, softness).astype(np.float32) @ coefficients[:count]


def _multiquadric(a: np.ndarray, b: np.ndarray, softness: float) -> np.ndarray:
    from scipy.spatial.distance import cdist

    values = cdist(a / softness, b / softness, "sqeuclidean")
    values += 1
    return np.sqrt(values, out=values)


def sample_field(field: torch.Tensor, grid: Grid, positions: torch.Tensor) -> torch.Tensor:
    """Bilinear values (B, h, w, C) of `field` (B, C, rows, columns) on `grid` at `positions` (B, h, w, 2) in pixels.

    Outside the grid the nearest border value is taken.
    """
    where = grid.normalised(positions)
    if field.shape[0] == 1 and where.shape[0] > 1:
        field = field.expand(where.shape[0], -1, -1, -1)
    return bilinear(field, where).permute(0, 2, 3, 1)


def bilinear(field: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Values (B, C, rows, columns) of a field (B, C, ...) at `where` (B, rows, columns, 2).

    Places are -1..1 from the first to the last node; outside, the nearest border value is taken.
    """
    check_interrupted()
    return F.grid_sample(field, where, mode="bilinear", padding_mode="border", align_corners=True)


def without_folds(field: torch.Tensor, grid: Grid, eased: float = EASED_AREA) -> torch.Tensor:
    """A displacement (B, 2, rows, columns) like `field` whose area ratio is at least `LEAST_AREA` everywhere.

    Where the field compresses areas to less than `eased`, it is smoothed; what that does not mend is mended by a
    smaller movement of the whole frame. Fields that compress less are returned as they are.
    """
    area = _least_area(field, grid)
    folding = area.flatten(1).amin(dim=1) < eased
    if not folding.any():
        return field
    part, area = field[folding], area[folding]
    for radius in SMOOTHING:
        # Beyond this, neither weights nor what they mix come from a cell that is compressed.
        around = extent(area < eased, 3 * radius + 2)
        if around is None:
            break
        rows, columns = around
        cells = (..., rows, columns)
        nodes = (..., slice(rows.start, rows.stop + 1), slice(columns.start, columns.stop + 1))
        weight = _at_nodes(smoothstep(eased, LEAST_AREA, area[cells])[:, None], radius)
        part[nodes] = torch.lerp(part[nodes], box_mean(part[nodes], radius), weight)
        area[cells] = _least_area(part[nodes], grid)
    if area.min() < LEAST_AREA:
        part = part * _unfolding_scale(*_cell_slopes(part, grid))
    result = field.clone()
    result[folding] = part
    return result


def extent(marked: torch.Tensor, margin: int = 0) -> tuple[slice, slice] | None:
    """Rows and columns of the smallest box around what is `marked` (B, h, w), wider by `margin`; None without any."""
    sides = []
    for axis in (2, 1):
        places = marked.any(dim=axis).any(dim=0).nonzero()
        if not len(places):
            return None
        sides.append(slice(max(0, int(places[0]) - margin), int(places[-1]) + margin + 1))
    return sides[0], sides[1]


def _least_area(field: torch.Tensor, grid: Grid) -> torch.Tensor:
    """The least area ratio (B, rows - 1, columns - 1) in each cell of the grid, or of a part of it."""
    across = (grid.right - grid.left) / (grid.columns - 1)
    down = (grid.bottom - grid.top) / (grid.rows - 1)
    by_x = (field[..., 1:] - field[..., :-1]) / across
    by_y = (field[..., 1:, :] - field[..., :-1, :]) / down
    along, aside = by_x[:, 0] + 1, by_x[:, 1]
    upright, askew = by_y[:, 1] + 1, by_y[:, 0]
    least: torch.Tensor | None = None
    for row in (slice(None, -1), slice(1, None)):
        for column in (slice(None, -1), slice(1, None)):
            area = along[:, row] * upright[..., column] - aside[:, row] * askew[..., column]
            least = area if least is None else torch.minimum(least, area)
    assert least is not None
    return least


def _cell_slopes(field: torch.Tensor, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
    """Derivatives (B, 4, 2, rows - 1, columns - 1) by x and by y at the four corners of each cell of the grid.

    A bilinear field's area ratio is linear within a cell, so that it is least at one of them.
    """
    across = (grid.right - grid.left) / (grid.columns - 1)
    down = (grid.bottom - grid.top) / (grid.rows - 1)
    by_x = (field[..., 1:] - field[..., :-1]) / across
    by_y = (field[..., 1:, :] - field[..., :-1, :]) / down
    top, bottom, left, right = by_x[..., :-1, :], by_x[..., 1:, :], by_y[..., :-1], by_y[..., 1:]
    return torch.stack([top, top, bottom, bottom], dim=1), torch.stack([left, right, left, right], dim=1)


def _at_nodes(weight: torch.Tensor, radius: int) -> torch.Tensor:
    """Weights of cells (B, 1, rows - 1, columns - 1) at the nodes (B, 1, rows, columns), all round by `radius`."""
    size = 2 * radius + 2
    grown = largest_of_run(F.pad(weight, (radius + 1,) * 4), size, -2)
    return box_mean(largest_of_run(grown, size, -1), radius)


def _unfolding_scale(by_x: torch.Tensor, by_y: torch.Tensor) -> torch.Tensor:
    """The largest factor (B, 1, 1, 1) up to 1 with which fields of these slopes keep `LEAST_AREA` everywhere."""
    # The area ratio of a field scaled by s is 1 + s trace + s^2 determinant, which falls to the least at a root.
    trace = by_x[:, :, 0] + by_y[:, :, 1]
    determinant = by_x[:, :, 0] * by_y[:, :, 1] - by_x[:, :, 1] * by_y[:, :, 0]
    spare = 1 - LEAST_AREA
    divisor = (trace**2 - 4 * determinant * spare).clamp(min=0).sqrt() - trace
    real = (trace**2 >= 4 * determinant * spare) & (divisor > 0)
    root = torch.where(real, 2 * spare / divisor.clamp(min=1e-6), 1.0)
    return root.flatten(1).amin(dim=1).clamp(max=1.0).view(-1, 1, 1, 1)


def invert(forward: torch.Tensor, grid: Grid, nodes: torch.Tensor) -> torch.Tensor:
    """The backward displacement (B, 2, rows, columns) of a `forward` one without folds, on the same grid.

    Solves b(x) = -f(x + b(x)), where f moves u to u + f(u), by a fixed-point step and Newton's method: a mouth that
    opens wide stretches the cheek by more than plain fixed-point iteration can follow. `nodes` (rows, columns, 2) are
    the node positions.
    """
    scale = grid.scale(forward)[:, None, None]
    places = grid.normalised(nodes).permute(2, 0, 1)
    longest = MAX_STEP * (grid.right - grid.left)
    backward = -_at(forward, places - forward * scale)
    fields = torch.cat([forward, *_slopes(forward, grid)], dim=1)
    for number in range(MAX_ROUNDS):
        f_x, f_y, xx, yx, xy, yy = _at(fields, places + backward * scale).unbind(1)
        rest_x, rest_y = backward[:, 0] + f_x, backward[:, 1] + f_y
        if max(rest_x.abs().max(), rest_y.abs().max()) < TOLERANCE:
            break
        xx, yy = xx + 1, yy + 1
        area = 1 / (xx * yy - xy * yx).clamp(min=LEAST_AREA)
        step = torch.stack([(yy * rest_x - xy * rest_y) * area, (xx * rest_y - yx * rest_x) * area], dim=1)
        # Where the slopes change fast, long steps would oscillate.
        limit = longest * 0.5 ** max(0, number - 1)
        backward = backward - step.clamp(-limit, limit)
    return without_folds(backward, grid, EASED_INVERSE)


def _at(field: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Values (B, C, rows, columns) of a field at places (B, 2, rows, columns) in its grid's -1..1 coordinates."""
    return bilinear(field, places.permute(0, 2, 3, 1))


def _slopes(field: torch.Tensor, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
    """Derivatives (B, 2, rows, columns) of a field by x and by y, per pixel."""
    across = (grid.right - grid.left) / (grid.columns - 1)
    down = (grid.bottom - grid.top) / (grid.rows - 1)
    by_x = F.pad(field[..., 2:] - field[..., :-2], (1, 1, 0, 0), mode="replicate") / (2 * across)
    by_y = F.pad(field[..., 2:, :] - field[..., :-2, :], (0, 0, 1, 1), mode="replicate") / (2 * down)
    return by_x, by_y


@dataclass(frozen=True)
class Layer:
    """A picture or part of one: `values` (1, C, h, w), its upper left corner at (`left`, `top`) pixels.

    Along both axes it has `per_pixel` values to a pixel.
    """

    values: torch.Tensor
    left: float
    top: float
    per_pixel: int = 1

    @classmethod
    def mirrored_around(cls, values: torch.Tensor, left: int, top: int, margin: int) -> Layer:
        """A layer extended by its mirror image for `margin` pixels, so that hair and clothes continue.

        It goes on by the share that the last channel, its matte, has at the border: what ends inside is not repeated.
        """
        across, down = min(margin, values.shape[-1] - 1), min(margin, values.shape[-2] - 1)
        around = (across, across, down, down)
        height, width = values.shape[-2:]
        share = F.pad(values[:, -1:], around, mode="replicate")
        share[..., down : down + height, across : across + width] = 1
        return cls(F.pad(values, around, mode="reflect") * share, left - across, top - down)

    def finer(self) -> Layer:
        """The layer with interpolated values between its own, if it is not larger than `FINE_VALUES`.

        Linear interpolation between these costs less than half of a bicubic one, and differs by little.
        """
        height, width = self.values.shape[-2:]
        if self.per_pixel > 1 or self.values.shape[1] * height * width > FINE_VALUES:
            return self
        size = (2 * height - 1, 2 * width - 1)
        values = F.interpolate(self.values, size=size, mode="bicubic", align_corners=True)
        # The first value stays where it was, in the middle of a pixel.
        return Layer(values, self.left + 0.25, self.top + 0.25, per_pixel=2)

    def scale(self, like: torch.Tensor) -> torch.Tensor:
        """Factors (2,) from pixels to the -1..1 coordinates of `grid_sample` with align_corners=False."""
        height, width = self.values.shape[-2:]
        return like.new_tensor([2 * self.per_pixel / width, 2 * self.per_pixel / height])

    def normalised(self, positions: torch.Tensor) -> torch.Tensor:
        """Pixels (..., 2) of the whole picture to those coordinates."""
        return (positions - positions.new_tensor([self.left, self.top])) * self.scale(positions) - 1

    def sample(self, positions: torch.Tensor) -> torch.Tensor:
        """Values (B, C, h, w) at `positions` (B, h, w, 2) in pixels of the whole picture."""
        return self.at(self.normalised(positions))

    def colours_at(self, places: np.ndarray) -> np.ndarray:
        """Colours (..., 3), as an array, at places (..., 2) in pixels of the whole picture."""
        flat = torch.from_numpy(places.reshape(1, 1, -1, 2)).to(self.values)
        return self.sample(flat)[0, :3, 0].T.cpu().numpy().reshape(*places.shape[:-1], 3)

    def at(self, where: torch.Tensor) -> torch.Tensor:
        """Values (B, C, h, w) at `where` (B, h, w, 2) in -1..1: bicubic, or linear where values lie close."""
        check_interrupted()
        values = self.values.expand(len(where), -1, -1, -1)
        mode = "bicubic" if self.per_pixel == 1 else "bilinear"
        return F.grid_sample(values, where, mode=mode, padding_mode="border", align_corners=False)


def as_opaque_as(head: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """Colours (B, 3, h, w) that are `drawn` on a head, as opaque as that is there: (B, 3 or 4, h, w), premultiplied.

    `head` (B, 4 or 5, h, w) are samples of its layer: colours, alpha where there is one, and the matte.
    """
    alpha = head[:, 3:-1]
    return torch.cat([drawn * alpha, alpha], dim=1) if alpha.shape[1] else drawn
