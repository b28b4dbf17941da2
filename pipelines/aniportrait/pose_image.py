"""The landmark picture that conditions AniPortrait's networks: coloured contours on black, drawn by OpenCV.

The lines are those of the published tool: thickness 2, 8-connected, not antialiased.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np

from ...models.face.face_mesh import FACE_OVAL, LEFT_BROW, LEFT_EYE, LIPS_INNER, LIPS_OUTER, RIGHT_BROW, RIGHT_EYE
from ..errors import TalkingPortraitError
from ..packages import load_opencv

CANVAS = 512
"""Side of the square that contours are drawn on, whatever the picture's size."""

LINE_THICKNESS = 2

Colour = tuple[int, int, int]


def _chain(points: tuple[int, ...], closed: bool = False) -> tuple[tuple[int, int], ...]:
    return tuple(pairwise(points + points[:1] if closed else points))


def _brow(brow: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    return _chain(brow[:5]) + _chain(brow[5:])


def _lip_quarters(ring: tuple[int, ...]) -> list[tuple[tuple[int, int], ...]]:
    """Bottom right, bottom left, top right, top left of a lip ring that starts at the right corner over the top."""
    bottom = ring[10:] + ring[:1]
    return [_chain(bottom[5:]), _chain(bottom[:6]), _chain(ring[:6]), _chain(ring[5:11])]


@cache
def contour_groups() -> tuple[tuple[Colour, tuple[tuple[int, int], ...]], ...]:
    """Colours and edges (pairs of landmark indices) in drawing order; later groups cover earlier ones.

    The lips' outer ring comes in four colours and the inner ring in four more, split at the corners and the middle
    ("right" is the person's right). The face oval leaves the forehead out, from temple to temple.
    """
    chin = FACE_OVAL[FACE_OVAL.index(251) : FACE_OVAL.index(21) + 1]
    outer, inner = _lip_quarters(LIPS_OUTER), _lip_quarters(LIPS_INNER)
    return (
        ((10, 200, 10), _chain(chin)),
        ((180, 200, 10), _chain(LEFT_EYE, closed=True)),
        ((180, 220, 10), _brow(LEFT_BROW)),
        ((10, 200, 180), _chain(RIGHT_EYE, closed=True)),
        ((10, 220, 180), _brow(RIGHT_BROW)),
        ((10, 180, 20), outer[0]),
        ((20, 10, 180), outer[1]),
        ((100, 100, 30), inner[0]),
        ((100, 150, 50), inner[1]),
        ((20, 80, 100), outer[2]),
        ((80, 100, 20), outer[3]),
        ((120, 100, 200), inner[2]),
        ((150, 120, 100), inner[3]),
    )


def draw_pose_image(points: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Draws one face's contours as a picture (H, W, 3) uint8.

    `points` (P, 2 or more) pixels of which the first two columns count, P >= 468; `image_size` (height, width).
    The drawing is made on a 512 x 512 canvas and then resized to `image_size` bilinearly. Points outside the picture
    are left out with every edge that touches them. Channel 0 holds the first number of each colour, which is what the
    published networks expect there. Raises TalkingPortraitError for other shapes, and where OpenCV is missing.
    """
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[0] < 468 or points.shape[1] < 2:
        raise TalkingPortraitError(
            f"The landmarks to draw have the shape {points.shape}, but (468 or more, 2) is expected: one face's points."
        )
    height, width = image_size
    cv2 = load_opencv()
    # The published tool passes coordinates in single precision, which decides on which side of a pixel they fall.
    unit = (points[:, :2] / np.array([width, height])).astype(np.float32).astype(np.float64)
    visible = ((unit >= 0) & (unit <= 1)).all(axis=1)
    pixels = np.minimum(np.floor(np.where(visible[:, None], unit, 0) * CANVAS), CANVAS - 1).astype(np.int64)

    canvas = np.zeros((CANVAS, CANVAS, 3), dtype=np.uint8)
    for colour, edges in contour_groups():
        for a, b in edges:
            if visible[a] and visible[b]:
                cv2.line(canvas, pixels[a].tolist(), pixels[b].tolist(), colour, LINE_THICKNESS)
    return np.asarray(cv2.resize(canvas, (width, height)))
