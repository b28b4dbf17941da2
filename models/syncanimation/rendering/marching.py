"""Samples along rays where the head's grid is occupied, and what pixels become of them.

The published program's step is constant: of the two bounds of its length that its kernel knows, both are 2 sqrt(3) /
128. So a ray's samples are those of its equidistant points that lie in occupied cells, at most 16.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from .camera import Rays
from .occupancy import GRID

STEP = 2 * math.sqrt(3) / GRID
MOST_SAMPLES = 16
BOX = (-1.0, -0.5, -1.0, 1.0, 0.5, 1.0)
"""The box that is rendered: lowest x, y, z, then highest."""
NEAREST = 0.05
OPAQUE = 1e-4
"""Light left at which a ray ends: the sample that leaves less is the last one that counts."""
MISSED = torch.finfo(torch.float32).max
"""Near and far of rays that pass the box by."""
_CPU_RAYS, _RAYS = 8192, 2**17
"""Rays that are marched at once, on a CPU and elsewhere."""


class Samples(NamedTuple):
    """m samples of R rays, ordered by ray and distance.

    `ray` (m,) and `slot` (m,) say which sample of which ray one is, `points` (m, 3) and `after` (m,) where: the
    distance is the one after the sample's step (published). `counts` (R,) are how many samples each ray has.
    """

    ray: torch.Tensor
    slot: torch.Tensor
    points: torch.Tensor
    after: torch.Tensor
    counts: torch.Tensor

    def select(self, chosen: torch.Tensor) -> Samples:
        """Those of a mask (m,) alone."""
        ray = self.ray[chosen]
        count = torch.zeros_like(self.counts).index_add(0, ray, torch.ones_like(ray, dtype=self.counts.dtype))
        return Samples(ray, self.slot[chosen], self.points[chosen], self.after[chosen], count)


def ray_box(
    rays: Rays, box: Sequence[float] | torch.Tensor = BOX, nearest: float = NEAREST
) -> tuple[torch.Tensor, torch.Tensor]:
    """Distances (R,) at which rays enter and leave a box; `MISSED` for those that pass it by."""
    corners = torch.as_tensor(box, dtype=rays.origins.dtype, device=rays.origins.device).view(2, 1, 3)
    low, high = (corners - rays.origins) / rays.directions
    near, far = torch.fmin(low, high).amax(1), torch.fmax(low, high).amin(1)
    missed = near > far
    near = near.clamp(min=nearest)
    return near.masked_fill(missed, MISSED), far.masked_fill(missed, MISSED)


def occupied_box(occupied: torch.Tensor, box: Sequence[float] = BOX) -> torch.Tensor:
    """The part (6,) of `box` outside of which no cell is occupied."""
    whole = torch.tensor(box, device=occupied.device)
    along = torch.stack([occupied.movedim(axis, 0).flatten(1).any(1) for axis in range(3)]).int()
    edges = torch.cat([along.argmax(1), GRID - along.flip(1).argmax(1)]) * (2 / GRID) - 1
    edges = torch.where(along.any(), edges, 0)
    return torch.cat([torch.maximum(edges[:3], whole[:3]), torch.minimum(edges[3:], whole[3:])])


@torch.no_grad()
def march(
    rays: Rays,
    occupied: torch.Tensor,
    noise: torch.Tensor | None = None,
    *,
    box: Sequence[float] = BOX,
    most: int = MOST_SAMPLES,
) -> Samples:
    """The first `most` samples of each ray in occupied cells (128, 128, 128).

    The first point of a ray is where it enters the box, moved on by `noise` (R,) of 0..1 steps in training. Samples
    have no gradient.
    """
    tight = occupied_box(occupied, box)
    many = _CPU_RAYS if occupied.device.type == "cpu" else _RAYS
    parts = [
        _march(
            Rays(rays.origins[start : start + many], rays.directions[start : start + many]),
            occupied,
            None if noise is None else noise[start : start + many],
            box,
            tight,
            most,
        )
        for start in range(0, max(len(rays.origins), 1), many)
    ]
    if len(parts) == 1:
        return parts[0]
    numbers = [part.ray + number * many for number, part in enumerate(parts)]
    return Samples(torch.cat(numbers), *(torch.cat(values) for values in list(zip(*parts, strict=True))[1:]))


def _march(
    rays: Rays,
    occupied: torch.Tensor,
    noise: torch.Tensor | None,
    box: Sequence[float],
    tight: torch.Tensor,
    most: int,
) -> Samples:
    near, far = ray_box(rays, box)
    start = near if noise is None else near + STEP * noise
    enter, leave = ray_box(rays, tight, 0.0)
    # Of the points at start + k STEP, those inside of the tight box, with one to spare on either side.
    reached = enter < MISSED
    first = torch.where(reached, ((enter - start) / STEP).floor() - 1, 0).clamp(min=0)
    last = torch.where(reached, ((torch.minimum(leave, far) - start) / STEP).ceil() + 1, -1)
    length = int((last - first).max().clamp(min=0)) + 1 if len(near) else 0
    steps = (first[:, None] + torch.arange(length, device=first.device)).long()
    valid = steps <= last[:, None]
    distance = _distances(start, int(last.max().clamp(min=0)) + 1 if len(near) else 0)
    distance = distance.gather(1, steps.clamp(max=max(distance.shape[1] - 1, 0)))
    valid &= distance < far[:, None]
    cells = torch.zeros_like(steps, dtype=torch.int32)
    for axis in range(3):
        place = rays.origins[:, axis, None] + distance * rays.directions[:, axis, None]
        cells = cells * GRID + ((place + 1) * (GRID / 2)).clamp(0, GRID - 1).int()
    filled = occupied.flatten().index_select(0, cells.flatten()).view_as(cells) & valid
    order = filled.cumsum(1, dtype=torch.int32)
    ray, column = (filled & (order <= most)).nonzero().unbind(1)
    at = distance[ray, column]
    points = (rays.origins[ray] + at[:, None] * rays.directions[ray]).clamp(-1, 1)
    count = order[:, -1].clamp(max=most) if length else torch.zeros_like(first, dtype=torch.int32)
    return Samples(ray, order[ray, column].long() - 1, points, at + STEP, count)


def _distances(start: torch.Tensor, count: int) -> torch.Tensor:
    """The first `count` points (R, count) of rays: step added to step in float32, as the published kernel does.

    A product would be off by 4e-6 at the end, and one ray in 2000 would have another sample where cells meet.
    """
    rows = start.expand(max(count, 1), -1).clone()
    for number in range(1, count):
        torch.add(rows[number - 1], STEP, out=rows[number])
    return rows.T


class Pixels(NamedTuple):
    """What R rays show: image (R, 3) on black, opacity (R,) and depth (R,).

    `weights` (m,) is what each sample adds to its pixel, `reached` (m,) which samples come before their ray's end.
    """

    image: torch.Tensor
    opacity: torch.Tensor
    depth: torch.Tensor
    weights: torch.Tensor
    reached: torch.Tensor


def composite(samples: Samples, density: torch.Tensor, colour: torch.Tensor, most: int = MOST_SAMPLES) -> Pixels:
    """Pixels from density (m,) and colour (m, 3) of the samples, front to back."""
    weights, reached = sample_weights(samples, density, most)
    image = torch.zeros(len(samples.counts), 3, dtype=torch.float32, device=colour.device)
    image = image.index_add(0, samples.ray, weights[:, None] * colour)
    return Pixels(image, add_up(samples, weights), add_up(samples, weights * samples.after), weights, reached)


def sample_weights(
    samples: Samples, density: torch.Tensor, most: int = MOST_SAMPLES
) -> tuple[torch.Tensor, torch.Tensor]:
    """What `Pixels` has as weights and reached."""
    index = samples.ray * most + samples.slot
    thickness = torch.zeros(len(samples.counts) * most, device=density.device)
    thickness = thickness.index_copy(0, index, density.float() * STEP).view(-1, most)
    before = torch.exp(-F.pad(thickness, (1, 0))[:, :-1].cumsum(1))
    weights = before * -torch.expm1(-thickness)
    reached = (before >= OPAQUE).flatten()[index]
    return weights.flatten()[index] * reached, reached


def add_up(samples: Samples, values: torch.Tensor) -> torch.Tensor:
    """Sums (R,) over each ray of values (m,) of the samples."""
    total = torch.zeros(len(samples.counts), dtype=torch.float32, device=values.device)
    return total.index_add(0, samples.ray, values)
