"""Where to look for a face: the parts, sizes and turns of a picture that a landmark engine is shown.

Face detectors see a small copy of what they are given (128 pixels) and know upright faces that take up a fair part of
it. So a face that is small in a large picture, cut by its edge, fills it, or lies on its side is found by showing the
engine other views: padded, in tiles, turned. Every find is then confirmed in a view made for that face.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from ..models.face_mesh import OUTER_EYE_CORNERS
from .picture_sampling import apply_map, box_map, sample_picture, turned_map

WHOLE_LIMIT = 1280
"""A picture with a longer side is looked at in a smaller copy first."""
VIEW_SIZE = (512, 512)
"""Pixels of the view of one face; a face then takes up about 200."""
TILE_SIZE = (320, 320)
FACE_IN_VIEW = 2.6
"""Side of a face's own view over the size of the face."""
SMALLEST_FACE = 40
"""Faces smaller than this many pixels are not searched for."""
EASY_FACE = 0.2
"""Part of the picture's longer side from which on a face is found without help."""
OVERLAP = 0.3
"""Boxes that share more than this part (intersection over union) show the same face."""


@dataclass(frozen=True)
class Face:
    """One face in one picture: `points` (P, 3) in pixels, `blendshapes` (52,) in 0..1 or None, `score` or None."""

    points: np.ndarray
    blendshapes: np.ndarray | None
    score: float | None

    @property
    def box(self) -> np.ndarray:
        """(left, top, right, bottom) round the points."""
        flat = self.points[:, :2]
        return np.concatenate([flat.min(axis=0), flat.max(axis=0)])

    @property
    def centre(self) -> np.ndarray:
        return (self.box[:2] + self.box[2:]) / 2

    @property
    def size(self) -> float:
        """The longer side of the box."""
        return float((self.box[2:] - self.box[:2]).max())

    @property
    def roll(self) -> float:
        """How far the line of the eyes is turned, in degrees clockwise as seen."""
        right, left = OUTER_EYE_CORNERS
        across = self.points[left, :2] - self.points[right, :2]
        return math.degrees(math.atan2(across[1], across[0]))


class Landmarker(Protocol):
    """An engine that finds faces and their points; `points` is how many (468 or 478)."""

    name: str
    points: int

    def faces(self, picture: np.ndarray, min_confidence: float) -> list[Face]:
        """Every face in `picture` (H, W, 3) uint8 RGB, points in its pixels."""


@dataclass(frozen=True)
class View:
    """A part of a picture at some size: `matrix` (2, 3) from its pixels to the picture's; `size` (height, width)."""

    matrix: np.ndarray
    size: tuple[int, int]

    def look(self, picture: torch.Tensor, landmarker: Landmarker, min_confidence: float) -> list[Face]:
        """The faces seen through this view of `picture` (H, W, 3) in 0..1, in the picture's pixels."""
        shown = sample_picture(picture, self.matrix, self.size)
        found = landmarker.faces(as_bytes(shown), min_confidence)
        return [replace(face, points=apply_map(self.matrix, face.points)) for face in found]


def as_bytes(picture: torch.Tensor) -> np.ndarray:
    """(H, W, 3) in 0..1 as uint8."""
    return (picture.float() * 255).round_().clamp_(0, 255).to(torch.uint8).cpu().numpy()


def look_at_whole(picture: torch.Tensor, landmarker: Landmarker, min_confidence: float) -> list[Face]:
    """The faces that the engine sees in the picture as it is; a large picture is shown in a smaller copy."""
    height, width = picture.shape[:2]
    scale = max(height, width) / WHOLE_LIMIT
    if scale <= 1:
        return landmarker.faces(as_bytes(picture), min_confidence)
    size = (max(1, round(height / scale)), max(1, round(width / scale)))
    faces = View(box_map(0, 0, width, height, size), size).look(picture, landmarker, min_confidence)
    # The copy may have cost detail that the engine could use.
    return [_confirmed(face, picture, landmarker, min_confidence) or face for face in faces]


def view_of(face: Face) -> View:
    """The view made for one face: upright, the face in its middle, neither small nor cut."""
    roll = face.roll if abs(face.roll) > 20 else 0.0
    side = FACE_IN_VIEW * face.size
    x, y = face.centre
    return View(turned_map((float(x), float(y)), side, roll, VIEW_SIZE), VIEW_SIZE)


def is_hard(face: Face, picture: torch.Tensor) -> bool:
    """Whether the face needs its own view to be found again."""
    return face.size < EASY_FACE * max(picture.shape[:2]) or abs(face.roll) > 30


def search(picture: torch.Tensor, landmarker: Landmarker, min_confidence: float) -> list[Face]:
    """Looks harder, level by level, and stops at the first level that shows a face; [] if none does."""
    for level in _levels(picture.shape[0], picture.shape[1]):
        faces: list[Face] = []
        for view in level:
            for seen in view.look(picture, landmarker, min_confidence):
                if same_face(seen, faces) is None:
                    face = _confirmed(seen, picture, landmarker, min_confidence)
                    if face is not None and same_face(face, faces) is None:
                        faces.append(face)
        if faces:
            return faces
    return []


def search_small(picture: torch.Tensor, landmarker: Landmarker, min_confidence: float, known: list[Face]) -> list[Face]:
    """Faces that are too small to be seen in the whole picture, beside those already known."""
    faces = list(known)
    for view in _tiles(picture.shape[0], picture.shape[1], min(picture.shape[:2]) / 2.5):
        for seen in view.look(picture, landmarker, min_confidence):
            if same_face(seen, faces) is None:
                face = _confirmed(seen, picture, landmarker, min_confidence)
                if face is not None and same_face(face, faces) is None:
                    faces.append(face)
    return faces


def same_face(face: Face, others: list[Face]) -> int | None:
    """Which of `others` shows the same face, if any."""
    for index, other in enumerate(others):
        left, top = np.maximum(face.box[:2], other.box[:2])
        right, bottom = np.minimum(face.box[2:], other.box[2:])
        common = max(0.0, right - left) * max(0.0, bottom - top)
        areas = sum(float(np.prod(item.box[2:] - item.box[:2])) for item in (face, other))
        if common > OVERLAP * (areas - common):
            return index
    return None


def _confirmed(face: Face, picture: torch.Tensor, landmarker: Landmarker, min_confidence: float) -> Face | None:
    """The same face seen in a view made for it; None for what was no face after all."""
    again = view_of(face).look(picture, landmarker, min_confidence)
    index = same_face(face, again)
    return None if index is None else again[index]


def _levels(height: int, width: int) -> Iterator[Iterator[View]]:
    yield _padded(height, width)
    yield _turned(height, width, (90.0, -90.0, 180.0, 45.0, -45.0))
    side = min(height, width) / 1.6
    while side > SMALLEST_FACE * 2:
        yield _tiles(height, width, side)
        if side <= SMALLEST_FACE * 6:
            break
        side /= 2


def _padded(height: int, width: int) -> Iterator[View]:
    """The picture with a wide border, for faces that fill it or are cut by its edge."""
    for border in (0.35, 1.0):
        side = max(height, width) * (1 + 2 * border)
        yield View(box_map((width - side) / 2, (height - side) / 2, side, side, VIEW_SIZE), VIEW_SIZE)


def _turned(height: int, width: int, angles: tuple[float, ...]) -> Iterator[View]:
    side = max(height, width) * 1.2
    for degrees in angles:
        yield View(turned_map((width / 2, height / 2), side, degrees, VIEW_SIZE), VIEW_SIZE)


def _tiles(height: int, width: int, side: float) -> Iterator[View]:
    """Squares of `side` that overlap by half, row by row."""
    for top in _starts(height, side):
        for left in _starts(width, side):
            yield View(box_map(left, top, side, side, TILE_SIZE), TILE_SIZE)


def _starts(length: int, side: float) -> np.ndarray:
    if length <= side:
        return np.array([(length - side) / 2])
    return np.linspace(0, length - side, math.ceil((length - side) / (side / 2)) + 1)
