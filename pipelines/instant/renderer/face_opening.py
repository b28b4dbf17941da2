"""The frame of a mouth or an eye: its corners, and the two edges that meet when it shuts.

Numbers that name no source were chosen by eye on portraits; the trials are not recorded.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ....models.face.face_mesh import face_mesh
from ...progress import check_interrupted

ENTRIES = 257
"""Entries of the edge tables; an odd number puts one on the middle."""
SPAN = 1.6
"""Half the length of the tables, in half widths: beyond the corners both edges run along the corners' line."""


class Aperture:
    """Positions along and across an opening in the picture, in pixels.

    `along` runs from the first corner to the second through the middle at 0, `across` points from the upper edge to the
    lower one. `half` is half the distance of the corners. The edges are heights `across` over `along`.
    """

    def __init__(self, points: np.ndarray, corners: Sequence[int], upper: Sequence[int], lower: Sequence[int]) -> None:
        """`points` (P, 2); `upper` and `lower` in the order from the first corner to the second."""
        first, second = points[list(corners)]
        self.middle = (first + second) / 2
        self.half = max(float(np.linalg.norm(second - first)) / 2, 1e-3)
        self.axis = (second - first) / (2 * self.half)
        self.down = np.array([-self.axis[1], self.axis[0]]) * _side(corners, upper, lower)
        self.table_along = np.linspace(-SPAN, SPAN, ENTRIES) * self.half
        self.upper = self._edge(points[list(upper)])
        self.lower = np.maximum(self._edge(points[list(lower)]), self.upper)

    def local(self, positions: np.ndarray) -> np.ndarray:
        """(along, across) of positions (..., 2)."""
        return (positions - self.middle) @ np.stack([self.axis, self.down], axis=1)

    def places(self, along: np.ndarray, across: np.ndarray) -> np.ndarray:
        """Positions (..., 2) in the picture of local ones, which are broadcast."""
        return self.middle + along[..., None] * self.axis + across[..., None] * self.down

    def edges_at(self, along: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Heights of the upper and the lower edge at `along`."""
        return np.interp(along, self.table_along, self.upper), np.interp(along, self.table_along, self.lower)

    def middle_gap(self) -> tuple[float, float]:
        """Heights of the upper and the lower edge in the middle."""
        return float(self.upper[ENTRIES // 2]), float(self.lower[ENTRIES // 2])

    def corners_of(self, along: tuple[float, float], across: tuple[float, float]) -> np.ndarray:
        """The four picture positions (4, 2) of a box in local pixels."""
        return self.places(np.repeat(along, 2), np.tile(across, 2))

    def _edge(self, points: np.ndarray) -> np.ndarray:
        from scipy.interpolate import PchipInterpolator

        local = self.local(points)
        along = np.concatenate([[-self.half], local[:, 0], [self.half]])
        # An edge that doubles back near a corner (strong turns) is drawn as the function it mostly is.
        along = np.maximum.accumulate(along) + 1e-3 * self.half * np.arange(len(along))
        heights = np.concatenate([[0.0], local[:, 1], [0.0]])
        curve = PchipInterpolator(along, heights, extrapolate=False)
        inside = np.clip(self.table_along, along[0], along[-1])
        return curve(inside)


def _side(corners: Sequence[int], upper: Sequence[int], lower: Sequence[int]) -> float:
    """1 where the lower edge lies clockwise of the line between the corners, -1 on the other side.

    Computed on the canonical face: landmarks of a closed mouth may cross, and no face in a picture is a mirrored one.
    """
    face = face_mesh().vertices[:, :2] * [1, -1]
    axis = face[corners[1]] - face[corners[0]]
    open_way = (face[list(lower)] - face[list(upper)]).sum(axis=0)
    return float(np.sign(axis[0] * open_way[1] - axis[1] * open_way[0]))


def colours_along(picture: np.ndarray, opening: Aperture, line: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Colours (columns between the corners, offsets, 3) of a picture around a `line` over `opening.table_along`."""
    inner = np.abs(opening.table_along) < opening.half
    return colours_at(picture, opening.places(opening.table_along[inner][:, None], line[inner][:, None] + offsets))


def colours_at(picture: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Bilinear colours (..., 3) of a picture (H, W, 3) at positions (..., 2)."""
    from scipy.ndimage import map_coordinates

    where = [places[..., 1] - 0.5, places[..., 0] - 0.5]
    return np.stack([map_coordinates(picture[..., k], where, order=1, mode="nearest") for k in range(3)], axis=-1)


def inside_ring(pixels: np.ndarray, ring: np.ndarray) -> np.ndarray:
    """Which pixels (h, w, 2) lie within the closed ring (R, 2)."""
    x, y = pixels[..., 0], pixels[..., 1]
    crossings = np.zeros(x.shape, dtype=int)
    for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        check_interrupted()
        if y0 != y1:
            crossings += ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return crossings % 2 == 1


def eye_opening(points: np.ndarray, ring: Sequence[int]) -> Aperture:
    """That of an eye with a `ring` of 16 landmarks from one corner over the upper lid to the other and back below."""
    return Aperture(points, (ring[0], ring[8]), ring[1:8], ring[15:8:-1])


def cheapest_path(cost: np.ndarray, bend: float) -> np.ndarray:
    """The place in each column of (columns, places) of the path across with the least cost.

    A path also costs `bend` for each squared change by one place from one column to the next.
    """
    places = np.arange(cost.shape[1])
    bending = bend * (places[:, None] - places) ** 2
    total, came = cost[0], []
    for column in cost[1:]:
        paths = total[None] + bending
        came.append(paths.argmin(axis=1))
        total = paths.min(axis=1) + column
    path = [int(total.argmin())]
    for step in reversed(came):
        path.append(int(step[path[-1]]))
    return np.array(path[::-1])


class EdgeTables:
    """An aperture's edges, and other curves along it, ready for whole images of positions."""

    def __init__(self, aperture: Aperture, curves: Sequence[np.ndarray], device: torch.device) -> None:
        """`curves` each (ENTRIES,), over `aperture.table_along`."""
        self.table = torch.from_numpy(np.stack(curves).astype(np.float32)).to(device)
        self.x, self.y = (float(value) for value in aperture.middle)
        self.axis_x, self.axis_y = (float(value) for value in aperture.axis)
        self.down_x, self.down_y = (float(value) for value in aperture.down)
        self.basis = torch.tensor(np.stack([aperture.axis, aperture.down], 1), dtype=torch.float32, device=device)
        self.start = float(aperture.table_along[0])
        self.step = float(aperture.table_along[1] - aperture.table_along[0])

    def local(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(along, across), each (...), of positions (..., 2)."""
        x, y = positions[..., 0] - self.x, positions[..., 1] - self.y
        return x * self.axis_x + y * self.axis_y, x * self.down_x + y * self.down_y

    def vector(self, across: torch.Tensor) -> torch.Tensor:
        """Displacements (..., 2) in the picture by `across` (...) pixels towards the lower edge."""
        return across[..., None] * self.basis[:, 1]

    def at(self, along: torch.Tensor) -> torch.Tensor:
        """The curves (C, ...) at `along` (...), linear between entries and constant past the ends."""
        place = ((along - self.start) / self.step).clamp(0, ENTRIES - 1.001)
        index = place.floor()
        part = place - index
        index = index.long()
        return torch.lerp(self.table[:, index], self.table[:, index + 1], part)
