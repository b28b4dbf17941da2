"""Face search: the parts, sizes and turns of a picture that a landmark engine is run on.

Face detectors work on a small copy of their input (128 pixels) and find upright faces that take up a fair part of it.
So a face that is small in a large picture, cut by its edge, fills it, or lies on its side is found by running the
engine on other views: padded, in tiles, turned. Every detection is then confirmed in a view made for that face.

What numbers without a source were tuned on is not recorded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as functional

from ..files.images import from_uint8, to_uint8
from ..image.affine_sampling import apply_map, box_map, sample_picture, turned_map
from .face import Face, Landmarker

WHOLE_LIMIT = 1280
"""A picture with a longer side is first searched in a smaller copy."""
VIEW_SIZE = (512, 512)
"""Pixels of the view of one face; a face then takes up about 200."""
TILE, TILE_OVERLAP = 320, 128
"""Large pictures are searched in tiles of this many pixels, at full size and at half of it, a quarter ..."""
FACE_IN_VIEW = 2.6
"""Side of a face's own view over the size of the face."""
EASY_FACE = 0.2
"""Part of the picture's longer side from which on a face is found without help."""
TURNED = 25.0
"""A face turned by more degrees in the picture is detected in a view that sets it upright."""
UNSTEADY, STEADIER = 0.006, 0.6
"""Mean movement of a face's points, over its size, between slightly different views from which on it may be none, and
the part of that which a better detection has at most. Tried on portraits turned by all angles: up to 0.0042 for a face,
from 0.0084 for what an engine takes for one in a face that stands on its head."""
LOST = 0.3
"""The movement that counts where no face is detected in a view."""
FLAT = 4.0
"""Tiles whose values spread less than this (of 255) hold no face."""
OVERLAP = 0.3
"""Boxes that share more than this part (intersection over union) are of the same face."""


@dataclass(frozen=True)
class View:
    """A part of a picture at some size: `matrix` (2, 3) from its pixels to the picture's; `size` (height, width)."""

    matrix: np.ndarray
    size: tuple[int, int]

    def detect(self, picture: torch.Tensor, landmarker: Landmarker, min_confidence: float) -> list[Face]:
        """The faces detected in this view of `picture` (H, W, 3) in 0..1, in the picture's pixels."""
        # Black beyond the edge, as the engines themselves fill up what is not square.
        sampled = sample_picture(picture, self.matrix, self.size, border="black")
        found = landmarker.faces(to_uint8(sampled), min_confidence)
        return [replace(face, points=apply_map(self.matrix, face.points)) for face in found]


class ImagePyramid:
    """A picture (H, W, 3), bytes or in 0..1, and copies of half, a quarter ... of its size, made when first needed."""

    def __init__(self, picture: torch.Tensor) -> None:
        self._given = picture
        self._copies = [picture] if picture.is_floating_point() else []

    @property
    def picture(self) -> torch.Tensor:
        """In 0..1."""
        return self.halved(0)

    def halved(self, times: int) -> torch.Tensor:
        """The copy that is 2 ** times smaller, in 0..1."""
        if not self._copies:
            self._copies.append(from_uint8(self._given.numpy()))
        while len(self._copies) <= times:
            planes = self._copies[-1].permute(2, 0, 1)[None]
            self._copies.append(functional.avg_pool2d(planes, 2, ceil_mode=True)[0].permute(1, 2, 0))
        return self._copies[times]

    def as_bytes(self, times: int) -> np.ndarray:
        """The copy that is 2 ** times smaller."""
        if times or self._given.is_floating_point():
            return to_uint8(self.halved(times))
        return self._given.numpy()

    def times_to(self, side: int) -> int:
        """How often the picture must be halved so that its longer side is at most `side`."""
        return max(0, math.ceil(math.log2(max(self._given.shape[:2]) / side)))


def detect_in_whole(pyramid: ImagePyramid, landmarker: Landmarker, min_confidence: float) -> list[Face]:
    """The faces detected in the picture as it is; of a large picture in a smaller copy, then in their own views."""
    times = pyramid.times_to(WHOLE_LIMIT)
    faces = landmarker.faces(pyramid.as_bytes(times), min_confidence)
    found = []
    for face in faces:
        face = _enlarged(face, 1 << times)
        if times or abs(face.roll) > TURNED:
            face = _confirmed(face, pyramid.picture, landmarker, min_confidence) or face
        found.append(face)
    return found


def view_of(face: Face) -> View:
    """The view made for one face: upright, the face in its middle, neither small nor cut."""
    return _view_around(face, face.roll if abs(face.roll) > TURNED else 0.0)


def _view_around(face: Face, degrees: float, zoom: float = 1.0) -> View:
    x, y = face.centre
    return View(turned_map((float(x), float(y)), FACE_IN_VIEW * face.size / zoom, degrees, VIEW_SIZE), VIEW_SIZE)


def is_hard(face: Face, picture: torch.Tensor) -> bool:
    """Whether the face needs its own view to be found again."""
    return face.size < EASY_FACE * max(picture.shape[:2]) or abs(face.roll) > TURNED


def set_upright(face: Face, picture: torch.Tensor, landmarker: Landmarker, min_confidence: float) -> Face:
    """The face as it is, or as it is turned in truth.

    Engines detect upright faces alone, and may report one, its mouth in the hair, where a face stands on its head. The
    points of such a face differ between slightly different views; those of the face that is there do not.
    """
    unsteadiness = _unsteadiness(face, picture, landmarker, min_confidence)
    if unsteadiness < UNSTEADY:
        return face
    for degrees in (180.0, 90.0, -90.0):
        view = _view_around(face, face.roll + degrees)
        for other in view.detect(picture, landmarker, min_confidence):
            if np.linalg.norm(other.centre - face.centre) < face.size and abs(turn_between(face, other)) > 2 * TURNED:
                other = _confirmed(other, picture, landmarker, min_confidence) or other
                if _unsteadiness(other, picture, landmarker, min_confidence) < STEADIER * unsteadiness:
                    return other
    return face


def turn_between(one: Face, other: Face) -> float:
    """Degrees from -180 to 180 by which the second face is turned against the first."""
    return (other.roll - one.roll + 180) % 360 - 180


def _unsteadiness(face: Face, picture: torch.Tensor, landmarker: Landmarker, min_confidence: float) -> float:
    """How much the points of a face move between views, over its size."""
    moves = []
    for degrees, zoom in ((25.0, 1.0), (-25.0, 1.0), (0.0, 0.8), (0.0, 1.25)):
        again = _view_around(face, face.roll + degrees, zoom).detect(picture, landmarker, min_confidence)
        index = same_face(face, again)
        move = LOST if index is None else float(np.abs(again[index].points - face.points)[:, :2].mean()) / face.size
        moves.append(min(move, LOST))
    return sum(moves) / len(moves)


def search(pyramid: ImagePyramid, landmarker: Landmarker, min_confidence: float) -> list[Face]:
    """Searches padded, turned and tiled views in that order; stops at the first kind with a face; [] if none has."""
    times = pyramid.times_to(WHOLE_LIMIT)
    small = pyramid.halved(times)
    for views in (_padded(*small.shape[:2]), _turned(*small.shape[:2])):
        detected = (
            _enlarged(face, 1 << times) for view in views for face in view.detect(small, landmarker, min_confidence)
        )
        faces = _confirmed_all(detected, [], pyramid.picture, landmarker, min_confidence)
        if faces:
            return faces
    return search_small(pyramid, landmarker, min_confidence, [])


def search_small(
    pyramid: ImagePyramid, landmarker: Landmarker, min_confidence: float, known: list[Face], *, thorough: bool = False
) -> list[Face]:
    """`known` faces and those in tiles of the picture, from coarse to fine.

    It stops at the first level that adds a face, unless it is to be `thorough`.
    """
    faces = list(known)
    for times in range(pyramid.times_to(2 * TILE), -1, -1):
        tiles = _detected_in_tiles(pyramid.as_bytes(times), landmarker, min_confidence)
        detected = (_enlarged(face, 1 << times) for face in tiles)
        faces = _confirmed_all(detected, faces, pyramid.picture, landmarker, min_confidence)
        if len(faces) > len(known) and not thorough:
            break
    return faces


def same_face(face: Face, others: list[Face]) -> int | None:
    """Index in `others` of the same face, None if it is not among them."""
    for index, other in enumerate(others):
        left, top = np.maximum(face.box[:2], other.box[:2])
        right, bottom = np.minimum(face.box[2:], other.box[2:])
        common = max(0.0, right - left) * max(0.0, bottom - top)
        areas = sum(float(np.prod(item.box[2:] - item.box[:2])) for item in (face, other))
        if common > OVERLAP * (areas - common):
            return index
    return None


def _confirmed(face: Face, picture: torch.Tensor, landmarker: Landmarker, min_confidence: float) -> Face | None:
    """The same face detected in a view made for it; None if it is not detected there."""
    again = view_of(face).detect(picture, landmarker, min_confidence)
    index = same_face(face, again)
    return None if index is None else again[index]


def _confirmed_all(
    candidates: Iterable[Face], faces: list[Face], picture: torch.Tensor, landmarker: Landmarker, min_confidence: float
) -> list[Face]:
    """`faces` and those of `candidates` that are new and confirmed in a view of their own."""
    faces = list(faces)
    for candidate in candidates:
        if same_face(candidate, faces) is None:
            face = _confirmed(candidate, picture, landmarker, min_confidence)
            if face is not None and same_face(face, faces) is None:
                faces.append(face)
    return faces


def _padded(height: int, width: int) -> Iterator[View]:
    """The picture with a wide border, for faces that fill it or are cut by its edge."""
    for border in (0.35, 1.0):
        side = max(height, width) * (1 + 2 * border)
        yield View(box_map((width - side) / 2, (height - side) / 2, side, side, VIEW_SIZE), VIEW_SIZE)


def _turned(height: int, width: int) -> Iterator[View]:
    """The whole picture turned, for faces that lie on their side or stand on their head."""
    side = max(height, width) * 1.2
    for degrees in (90.0, -90.0, 180.0, 45.0, -45.0):
        yield View(turned_map((width / 2, height / 2), side, degrees, VIEW_SIZE), VIEW_SIZE)


def _detected_in_tiles(picture: np.ndarray, landmarker: Landmarker, min_confidence: float) -> Iterator[Face]:
    for top in _starts(picture.shape[0]):
        for left in _starts(picture.shape[1]):
            tile = picture[top : top + TILE, left : left + TILE]
            if tile[::8, ::8].std() < FLAT:
                continue
            for face in landmarker.faces(tile, min_confidence):
                yield replace(face, points=face.points + [left, top, 0])


def _enlarged(face: Face, times: int) -> Face:
    return replace(face, points=face.points * times)


def _starts(length: int) -> list[int]:
    """Where overlapping tiles begin along one side."""
    if length <= TILE:
        return [0]
    count = math.ceil((length - TILE) / (TILE - TILE_OVERLAP)) + 1
    return [round(start) for start in np.linspace(0, length - TILE, count)]
