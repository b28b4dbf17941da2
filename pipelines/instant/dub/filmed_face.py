"""A face in a film that is to speak other words: where it is in each frame, and its shape with closed lips."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ....models.face.face_mesh import OUTER_EYE_CORNERS, VERTICES, mouth_opening
from ....models.face.mouth_shapes import close_lips
from ...face.head_pose import split_matrix
from ...face.metric_mesh import metric_mesh
from ...face.smoothing import smooth_points
from ...types import Camera

BLOCK, OVERLAP = 1000, 8
"""Frames that are smoothed together, and how many of the neighbouring ones are smoothed with them."""
REST_FRAMES = 400
"""Frames from which the shape at rest is taken, at most, spread over the film."""
CLOSED_PART = 0.3
"""Part of the frames, those with the least opening, that count as closed."""
FADE = 3
"""Frames over which the new mouth comes and goes where a face is lost."""
TURNED_FROM, TURNED_TO = 35.0, 50.0
"""Degrees to the side between which the new mouth fades away: the far lip corner is no longer in the picture."""


@dataclass(frozen=True)
class FilmedFace:
    """One face of F frames.

    `points` (F, 468, 3) float32 landmarks in pixels, held where the face is not found. `found` (F,) bool.
    `starts` numbers of the frames that begin a shot, with 0. `size` (height, width) of a frame. `amount` (F,) in 0..1
    is how far a frame may be changed. `rest` (468, 3) cm: the shape in the head frame with closed lips.
    """

    points: np.ndarray
    found: np.ndarray
    starts: tuple[int, ...]
    size: tuple[int, int]
    amount: np.ndarray
    rest: np.ndarray

    @property
    def frames(self) -> int:
        return len(self.points)

    @property
    def eye_distance_cm(self) -> float:
        """Between the outer eye corners at rest."""
        right, left = OUTER_EYE_CORNERS
        return float(np.linalg.norm(self.rest[right] - self.rest[left]))

    def shapes(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Vertices (n, 468, 3) in cm in the head frame, and head to camera (n, 4, 4), of frames."""
        return metric_mesh(self.points[numbers], self.size)


def filmed_face(
    points: np.ndarray, found: np.ndarray, starts: tuple[int, ...], size: tuple[int, int], *, smoothing: float = 1.0
) -> FilmedFace:
    """The face of landmarks (F, P, 3) that are valid where `found` (F,); the film's shots begin at `starts`."""
    points = _held(points[:, :VERTICES], found, starts)
    if smoothing > 0:
        points = _smoothed(points, starts, smoothing)
    spread = np.flatnonzero(found)
    chosen = spread[:: max(1, len(spread) // REST_FRAMES)]
    vertices, matrix = metric_mesh(points[chosen], size)
    rest = _rest(vertices, np.abs(split_matrix(matrix)[0][:, 1]))
    turned = np.concatenate([_turned(points[part], size) for part in _blocks(len(points))])
    wanted = found * (1 - np.clip((turned - TURNED_FROM) / (TURNED_TO - TURNED_FROM), 0, 1))
    return FilmedFace(points, found, starts, size, _faded(wanted, starts), rest)


def pixels_per_cm(matrix: np.ndarray, size: tuple[int, int], rest: np.ndarray) -> np.ndarray:
    """(n, 2, 3): pixels by which a movement in cm in the head frame moves the mouth, at the distance of the face.

    As in all of Instant, a movement towards the camera does not magnify.
    """
    camera = Camera()
    middle = rest[[0, 17]].mean(axis=0)
    depth = -(matrix[:, 2, :3] @ middle + matrix[:, 2, 3])
    scale = camera.focal * size[0] / 2 / np.maximum(depth, camera.near)
    return matrix[:, :2, :3] * scale[:, None, None] * np.array([1.0, -1.0])[:, None]


def _held(points: np.ndarray, found: np.ndarray, starts: tuple[int, ...]) -> np.ndarray:
    """Points with those of the nearest found frame of the same shot where there are none."""
    result = points.astype(np.float32, copy=True)
    for start, end in zip(starts, [*starts[1:], len(points)], strict=True):
        known = np.flatnonzero(found[start:end]) + start
        if len(known):
            numbers = np.arange(start, end)
            after = np.searchsorted(known, numbers).clip(max=len(known) - 1)
            before = (after - 1).clip(min=0)
            nearer = np.where(np.abs(known[before] - numbers) <= np.abs(known[after] - numbers), before, after)
            result[start:end] = result[known[nearer]]
        elif found.any():
            result[start:end] = result[int(np.flatnonzero(found)[0])]
    return result


def _smoothed(points: np.ndarray, starts: tuple[int, ...], strength: float) -> np.ndarray:
    result = np.empty_like(points)
    for start, end in zip(starts, [*starts[1:], len(points)], strict=True):
        for first in range(start, end, BLOCK):
            last = min(first + BLOCK, end)
            low, high = max(first - OVERLAP, start), min(last + OVERLAP, end)
            result[first:last] = smooth_points(points[low:high].astype(np.float64), strength)[first - low : last - low]
    return result


def _rest(vertices: np.ndarray, turned: np.ndarray) -> np.ndarray:
    """The usual shape (468, 3) of the frames with the least opening among those seen from the front, lips closed."""
    frontal = turned <= np.quantile(turned, 0.6) + 1e-9
    opening = np.where(frontal, mouth_opening(vertices), np.inf)
    closed = np.argsort(opening, kind="stable")[: max(1, round(CLOSED_PART * int(frontal.sum())))]
    rest = np.median(vertices[closed], axis=0)
    # Lips that are shut are often pursed as well; the usual width is that of all frames.
    rest[:, 0] = np.median(vertices[frontal][..., 0], axis=0)
    return close_lips(rest)


def _turned(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Degrees (n,) that heads are turned to the side."""
    return np.abs(split_matrix(metric_mesh(points, size)[1])[0][:, 1])


def _faded(wanted: np.ndarray, starts: tuple[int, ...]) -> np.ndarray:
    """Amounts (F,) float32 that never exceed `wanted` and change by 1 / (FADE + 1) a frame at most, within a shot."""
    result = wanted.astype(np.float32)
    first_of_shot = set(starts)
    step = 1 / (FADE + 1)
    for number in range(1, len(result)):
        if number not in first_of_shot:
            result[number] = min(result[number], result[number - 1] + step)
    for number in range(len(result) - 2, -1, -1):
        if number + 1 not in first_of_shot:
            result[number] = min(result[number], result[number + 1] + step)
    return result


def _blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, BLOCK):
        yield slice(start, min(start + BLOCK, count))
