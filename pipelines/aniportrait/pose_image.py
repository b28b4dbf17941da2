"""The landmark picture that AniPortrait's networks follow: coloured contours on black, pixel for pixel.

The published tool draws with OpenCV lines of thickness 2. OpenCV makes such a line of a rectangle in 16-bit fixed
point, outlined and filled, with a small plus on either end; the same integers are computed here.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache
from itertools import pairwise

import numpy as np

from ...models.face.face_mesh import FACE_OVAL, LEFT_BROW, LEFT_EYE, LIPS_INNER, LIPS_OUTER, RIGHT_BROW, RIGHT_EYE
from ..errors import TalkingPortraitError

CANVAS = 512
"""Side of the square that contours are drawn on, whatever the picture's size."""

_SHIFT = 16
_ONE = 1 << _SHIFT
_HALF = _ONE >> 1

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
    """The picture (H, W, 3) uint8 for one face.

    `points` (P, 2 or more) pixels of which the first two columns count, P >= 468; `image_size` (height, width).
    The drawing is made on a 512 x 512 canvas and then stretched to `image_size`. Points outside the picture are left
    out with every edge that touches them. Channel 0 holds the first number of each colour, which is what the
    published networks expect there.
    """
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[0] < 468 or points.shape[1] < 2:
        raise TalkingPortraitError(
            f"The landmarks to draw have the shape {points.shape}, but (468 or more, 2) is expected: one face's points."
        )
    height, width = image_size
    # The published tool hands coordinates over in single precision, which decides on which side of a pixel they fall.
    unit = (points[:, :2] / np.array([width, height])).astype(np.float32).astype(np.float64)
    visible = ((unit >= 0) & (unit <= 1)).all(axis=1)
    pixels = np.minimum(np.floor(np.where(visible[:, None], unit, 0) * CANVAS), CANVAS - 1).astype(np.int64)

    canvas = np.zeros((CANVAS, CANVAS, 3), dtype=np.uint8)
    for colour, edges in contour_groups():
        for a, b in edges:
            if visible[a] and visible[b]:
                (x0, y0), (x1, y1) = pixels[a].tolist(), pixels[b].tolist()
                canvas[thick_line(x0, y0, x1, y1, CANVAS, CANVAS)] = colour
    return _stretch(canvas, height, width)


def thick_line(x0: int, y0: int, x1: int, y1: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels that OpenCV sets for a line of thickness 2 (8-connected, not antialiased)."""
    margin = 2
    if (
        min(x0, x1) >= margin
        and max(x0, x1) < width - margin
        and min(y0, y1) >= margin
        and max(y0, y1) < height - margin
    ):
        rows, columns = _line_far_from_borders(x1 - x0, y1 - y0)
        return rows + y0, columns + x0
    pixels = np.array(sorted(_line_pixels(x0, y0, x1, y1, width, height)), dtype=np.int64).reshape(-1, 2)
    return pixels[:, 0], pixels[:, 1]


@lru_cache(maxsize=65536)
def _line_far_from_borders(dx: int, dy: int) -> tuple[np.ndarray, np.ndarray]:
    """The pixels relative to the first end: away from the borders a line's form depends on its span alone."""
    room = abs(dx) + abs(dy) + 4
    x0, y0 = room, room
    pixels = np.array(sorted(_line_pixels(x0, y0, x0 + dx, y0 + dy, 3 * room, 3 * room)), dtype=np.int64)
    return pixels[:, 0] - y0, pixels[:, 1] - x0


def _line_pixels(x0: int, y0: int, x1: int, y1: int, width: int, height: int) -> set[tuple[int, int]]:
    found: set[tuple[int, int]] = set()
    if (x0, y0) != (x1, y1):
        corners = _rectangle(x0, y0, x1, y1)
        for a, b in pairwise([corners[3], *corners]):
            found |= _edge_pixels(a, b, width, height)
        found |= _inside_pixels(corners)
    for x, y in ((x0, y0), (x1, y1)):
        found |= {(y, x), (y, x - 1), (y, x + 1), (y - 1, x), (y + 1, x)}
    return {(y, x) for y, x in found if 0 <= x < width and 0 <= y < height}


def _rectangle(x0: int, y0: int, x1: int, y1: int) -> list[tuple[int, int]]:
    """Corners in fixed point, one pixel to either side of the line."""
    length = math.hypot(x0 - x1, y1 - y0)
    aside_x = round((y1 - y0) * (_ONE / length))
    aside_y = round((x0 - x1) * (_ONE / length))
    x0, y0, x1, y1 = (v << _SHIFT for v in (x0, y0, x1, y1))
    return [
        (x0 + aside_x, y0 + aside_y),
        (x0 - aside_x, y0 - aside_y),
        (x1 - aside_x, y1 - aside_y),
        (x1 + aside_x, y1 + aside_y),
    ]


def _truncated_division(a: int, b: int) -> int:
    """Integer division towards zero, as C does it."""
    return abs(a) // abs(b) * (1 if (a >= 0) == (b > 0) else -1)


def _edge_pixels(start: tuple[int, int], end: tuple[int, int], width: int, height: int) -> set[tuple[int, int]]:
    """One pixel a step along the longer axis, from the end that comes first on it."""
    clipped = _clip(start, end, (width << _SHIFT) - 1, (height << _SHIFT) - 1)
    if clipped is None:
        return set()
    (xa, ya), (xb, yb) = clipped
    dx, dy = xb - xa, yb - ya
    pixels = set()
    if abs(dx) > abs(dy):
        if dx < 0:
            xa, ya, xb, yb, dx, dy = xb, yb, xa, ya, -dx, -dy
        step = _truncated_division(dy * _ONE, dx | 1)
        column, fixed = (xa + _HALF) >> _SHIFT, ya + _HALF
        for i in range(((xb - xa) >> _SHIFT) + 1):
            pixels.add(((fixed + i * step) >> _SHIFT, column + i))
    else:
        if dy < 0:
            xa, ya, xb, yb, dx, dy = xb, yb, xa, ya, -dx, -dy
        step = _truncated_division(dx * _ONE, dy | 1)
        row, fixed = (ya + _HALF) >> _SHIFT, xa + _HALF
        for i in range(((yb - ya) >> _SHIFT) + 1):
            pixels.add((row + i, (fixed + i * step) >> _SHIFT))
    pixels.add(((yb + _HALF) >> _SHIFT, (xb + _HALF) >> _SHIFT))
    return pixels


def _clip(
    start: tuple[int, int], end: tuple[int, int], right: int, bottom: int
) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """The part of an edge within 0..right, 0..bottom, or None; first cut to rows, then to columns."""
    (xa, ya), (xb, yb) = start, end
    if max(ya, yb) < 0 or min(ya, yb) > bottom or max(xa, xb) < 0 or min(xa, xb) > right:
        return None
    if not 0 <= ya <= bottom:
        limit = 0 if ya < 0 else bottom
        xa, ya = xa + int(float(limit - ya) * (xb - xa) / (yb - ya)), limit
    if not 0 <= yb <= bottom:
        limit = 0 if yb < 0 else bottom
        xb, yb = xb + int(float(limit - yb) * (xb - xa) / (yb - ya)), limit
    if max(xa, xb) < 0 or min(xa, xb) > right:
        return None
    if not 0 <= xa <= right:
        limit = 0 if xa < 0 else right
        ya, xa = ya + int(float(limit - xa) * (yb - ya) / (xb - xa)), limit
    if not 0 <= xb <= right:
        limit = 0 if xb < 0 else right
        yb, xb = yb + int(float(limit - xb) * (yb - ya) / (xb - xa)), limit
    return (xa, ya), (xb, yb)


def _inside_pixels(corners: list[tuple[int, int]]) -> set[tuple[int, int]]:
    """Row by row between the two sides of the rectangle, walking down from its highest corner."""
    rows = [(y + _HALF) >> _SHIFT for _, y in corners]
    top = min(range(4), key=lambda i: corners[i][1])
    sides = [_side(corners, rows, top, direction) for direction in (1, 3)]
    pixels = set()
    for row, a, b in zip(range(min(rows), max(rows) + 1), *sides, strict=False):
        first, last = (min(a, b) + _HALF) >> _SHIFT, (max(a, b) + _HALF) >> _SHIFT
        pixels |= {(row, column) for column in range(first, last + 1)}
    return pixels


def _side(corners: list[tuple[int, int]], rows: list[int], top: int, direction: int) -> list[int]:
    """Fixed-point columns of one side, a row each, from the top corner round to the bottom one."""
    columns: list[int] = []
    row, here = rows[top], top
    for _ in range(4):
        there = (here + direction) % 4
        if rows[there] > row:
            count = rows[there] - row
            start, end = corners[here][0], corners[there][0]
            step = _truncated_division((end - start) * 2 + count, 2 * count)
            columns += [start + i * step for i in range(count)]
            row = rows[there]
        here = there
    # The last row goes one step further along the last edge.
    columns.append(columns[-1] + step if columns else -_ONE)
    return columns


def _stretch(canvas: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear without antialiasing between pixel centres, as OpenCV resizes."""
    if (height, width) == canvas.shape[:2]:
        return canvas
    import torch
    from torch.nn.functional import interpolate

    planes = torch.from_numpy(canvas).permute(2, 0, 1)[None].float()
    resized = interpolate(planes, (height, width), mode="bilinear", align_corners=False)
    return resized[0].permute(1, 2, 0).round().to(torch.uint8).numpy()
