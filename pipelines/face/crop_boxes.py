"""Where to cut: boxes round a face that fit the picture and move smoothly.

Numbers that name no source were chosen by eye on portraits; the trials are not recorded.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..errors import TalkingPortraitError
from ..image.affine_sampling import box_map, turned_map
from ..types import FaceTrack
from .face import Face
from .smoothing import average_over_time

Preset = Literal["head and shoulders", "head", "face", "AniPortrait app", "AniTalker"]

PRESETS: dict[str, tuple[float, float]] = {
    "head and shoulders": (2.5, 0.12),
    "head": (1.75, -0.08),
    "face": (1.25, 0.0),
    "AniTalker": (1.9, -0.105),
}
"""Side of the box over the size of the face, and how far its middle lies below the face's, over the same size.

AniTalker's was measured on the example of its own preprocessing, which cuts 1.6 times a detector's box.
"""

FOLLOW_FRAMES = 12.0
"""A box that follows the face is smoothed over about this many frames."""
APP_LARGE_FACE, APP_EXPAND = 0.15, 1.5
"""AniPortrait's app keeps the middle square of a picture with a larger face, and cuts this multiple round others."""
FACE_ROOM = 1.1
"""No box is made smaller than this multiple of the face to keep it inside the picture."""
MAX_SIZE = 8192


def app_box(box: tuple[float, float, float, float], image_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """AniPortrait's app: from a face's (left, top, right, bottom) in parts of the picture to the box to cut in pixels.

    A face of 15 % of the picture or more gets the middle square, others a square of 1.5 times their longer side.
    """
    height, width = image_size
    left, top, right, bottom = box
    if (right - left) * (bottom - top) >= APP_LARGE_FACE:
        side = min(height, width)
        x, y = (width - side) // 2, (height - side) // 2
        return x, y, x + side, y + side
    half = APP_EXPAND * max((right - left) * width, (bottom - top) * height) / 2
    middle_x, middle_y = (left + right) / 2 * width, (top + bottom) / 2 * height
    return int(middle_x - half), int(middle_y - half), int(middle_x + half), int(middle_y + half)


def portrait_boxes(
    track: FaceTrack,
    size: int | tuple[int, int] | None,
    preset: tuple[float, float],
    scale: float,
    upright: bool,
    follow: bool,
    inside: bool,
) -> tuple[np.ndarray, tuple[int, int]]:
    """Maps (1 or F, 2, 3) from crop to picture, and the crop's size."""
    faces = [Face(points=points, blendshapes=None, score=None) for points in track.points]
    centre = np.array([face.centre for face in faces])
    face_size = np.array([face.size for face in faces])
    roll = np.unwrap([face.roll for face in faces], period=360) if upright else np.zeros(len(faces))
    part, below = preset
    if follow and len(faces) > 1:
        centre, roll, needed = (average_over_time(each, FOLLOW_FRAMES) for each in (centre, roll, face_size))
        side = needed * part * scale
    else:
        boxes = np.array([face.box for face in faces])
        low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
        # Room for the face in every frame, even where it moves a lot.
        needed = np.array([float((high - low).max())])
        side = np.maximum(np.median(face_size) * part * scale, needed)
        centre, roll = (low + high)[None] / 2, np.median(roll, keepdims=True)
    turn = np.radians(roll)
    down = np.stack([-np.sin(turn), np.cos(turn)], axis=1)
    middle = centre + down * (side / part / scale * below)[:, None]
    out = _out_size(size, float(np.median(side)))
    if inside:
        middle, side = _moved_inside(middle, side, turn, out, track.image_size, centre, needed)
    matrices = [
        turned_map((x, y), length, degrees, out) for (x, y), length, degrees in zip(middle, side, roll, strict=True)
    ]
    return np.stack(matrices), out


def _moved_inside(
    middle: np.ndarray,
    side: np.ndarray,
    turn: np.ndarray,
    out: tuple[int, int],
    image_size: tuple[int, int],
    face_centre: np.ndarray,
    face_size: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Middles (N, 2) and shorter sides (N,) of boxes that leave the picture as little as the face in them allows."""
    limit = np.array([image_size[1], image_size[0]], dtype=np.float64)
    across = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    down = np.stack([-np.sin(turn), np.cos(turn)], axis=1)
    shape = np.array([out[1], out[0]]) / min(out)
    # What an upright box round the turned one of side 1 measures.
    extent = np.abs(across) * shape[0] + np.abs(down) * shape[1]
    side = np.maximum(np.minimum(side, (limit / extent).min(axis=1)), np.minimum(side, face_size * FACE_ROOM))
    half = extent * side[:, None] / 2
    wanted = np.clip(middle, np.minimum(half, limit / 2), np.maximum(limit - half, limit / 2)) - face_centre
    room = (shape * side[:, None] - face_size[:, None]) / 2
    room = np.maximum(room, 0)
    sideways = np.clip((wanted * across).sum(axis=1), -room[:, 0], room[:, 0])
    downwards = np.clip((wanted * down).sum(axis=1), -room[:, 1], room[:, 1])
    return face_centre + sideways[:, None] * across + downwards[:, None] * down, side


def app_boxes(track: FaceTrack, size: int | tuple[int, int] | None) -> tuple[np.ndarray, tuple[int, int]]:
    height, width = track.image_size
    box = Face(points=track.points[0], blendshapes=None, score=None).box / [width, height, width, height]
    left, top, right, bottom = app_box(tuple(box), track.image_size)
    out = _out_size(size, right - left)
    return box_map(left, top, right - left, bottom - top, out)[None], out


def _out_size(size: int | tuple[int, int] | None, side: float) -> tuple[int, int]:
    if size is None:
        size = max(1, round(side))
    height, width = (size, size) if isinstance(size, int) else size
    if not (1 <= height <= MAX_SIZE and 1 <= width <= MAX_SIZE):
        raise TalkingPortraitError(
            f"The crop's size is {width} x {height} pixels, but 1 to {MAX_SIZE} on either side is expected."
        )
    return int(height), int(width)
