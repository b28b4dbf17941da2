"""What stands in front of a filmed mouth stays there: the new mouth is drawn behind it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ....models.curves import smoothstep
from ...image.frame_workers import FrameWorkers
from ...packages import load_opencv
from .filmed_face import FilmedFace
from .occlusion import EITHER_SIDE, Oddness, covered, left_as_filmed, lower_face
from .skin.face_texture import TEXELS_PER_EYE_DISTANCE, texture_grid, texture_of

SOFT, WIDE, BESIDE = 1.0, 8.0, 1e-3
"""Texels by which what is laid over a frame is blurred, and how far and how much it reaches where there is no face."""
FACE_FROM, FACE_TO = 0.4, 0.9
"""Texels at a place between which it is the face's."""
KEPT_FROM, KEPT_TO = 0.1, 0.4
"""Covers between which a pixel goes over from the new picture to the filmed one."""
UNDER_FROM, UNDER_TO = 0.15, 0.5
"""Covers between which the face is drawn over what is not to be moved with it."""


@dataclass(frozen=True)
class Overlay:
    """For pixels of a box: `cover` (h, w) in 0..1, the face `beneath` (h, w, 3) in 0..255, and where it is the face's.

    Beside the `face` (h, w), in 0..1, the cover goes on as it is on the face's edge.
    """

    cover: np.ndarray
    beneath: np.ndarray
    face: np.ndarray

    def hide(self, here: np.ndarray) -> None:
        """Draws the face over what is in front of it in pixels (h, w, 3), bytes or floats in 0..1."""
        part = (self.face * smoothstep(UNDER_FROM, UNDER_TO, self.cover))[..., None]
        unit = 1 if here.dtype == np.uint8 else 1 / 255
        _mix(here, self.beneath * np.float32(unit), part)

    def put_back(self, here: np.ndarray, filmed: np.ndarray, new: np.ndarray) -> np.ndarray:
        """Puts what is in front back into pixels (h, w, 3) that were `filmed` and are `new` (h, w).

        Returns how much of each pixel is new now (h, w) float32.
        """
        kept = np.where(new > 0, smoothstep(KEPT_FROM, KEPT_TO, self.cover), 1).astype(np.float32)
        _mix(here, filmed, kept[..., None])
        return new * (1 - kept)


@dataclass(frozen=True)
class Foreground:
    """What hides a part of a frame's face: `cover` (H, W) bool of its texels.

    `beneath` (H, W, 3) in 0..255 is how the face looks there, and `filmed` in 0..1 how far the frame is to be left as
    filmed, as most of the mouth is hidden.
    """

    cover: np.ndarray
    beneath: np.ndarray
    filmed: float

    def over(self, points: np.ndarray, eyes: float, box: tuple[slice, slice]) -> Overlay:
        """The same in a box of the frame; `points` (468, 2) and the distance of the `eyes` are in its pixels."""
        grid = texture_grid()
        known = lower_face()[grid.on_face]
        values = np.concatenate([self.cover[..., None], self.beneath], axis=-1)[grid.on_face][known]
        return _laid(grid.places(points)[known], values, eyes / TEXELS_PER_EYE_DISTANCE, box)


class _Watched:
    """The frames `numbers` of a film, at whose faces one looks one by one, and what is in front of each."""

    def __init__(self, face: FilmedFace, numbers: np.ndarray) -> None:
        self.face, self.numbers = face, numbers
        self.shots = np.searchsorted(face.starts, numbers, side="right")
        self.looks: dict[int, Oddness] = {}

    def look(self, frame: np.ndarray, place: int) -> None:
        number = self.numbers[place]
        if self.face.appearance is not None and self.face.amount[number] > 0:
            self.looks[place] = self.face.appearance.oddness(texture_of(frame, self.face.points[number]))

    def in_front(self, place: int) -> Foreground | None:
        """What is in front in a frame, when those after it were looked at too; forgets those that are not needed."""
        around = range(max(0, place - EITHER_SIDE), min(len(self.numbers), place + EITHER_SIDE + 1))
        near = {other: self.looks.get(other) for other in around if self.shots[other] == self.shots[place]}
        seen = {other: found for other, found in near.items() if found is not None}
        self.looks.pop(place - EITHER_SIDE, None)
        if self.face.appearance is None or place not in seen:
            return None
        frames = list(seen.values())
        cover = covered(frames, list(seen).index(place))
        if not cover.any():
            return None
        return Foreground(cover, self.face.appearance.lit(seen[place].light), left_as_filmed(frames))


def with_foreground(
    face: FilmedFace, numbers: np.ndarray, batches: Iterator[np.ndarray], workers: FrameWorkers
) -> Iterator[tuple[np.ndarray, list[Foreground | None]]]:
    """Batches (n, H, W, 3) of the film's frames `numbers`, and what is in front of the face in each, None for nothing.

    A batch comes out when the next frames have come in.
    """
    watched = _Watched(face, numbers)
    waiting: deque[np.ndarray] = deque()
    came = gone = 0
    for frames in batches:
        workers.map(watched.look, frames, range(came, came + len(frames)))
        waiting.append(frames)
        came += len(frames)
        while waiting and (gone + len(waiting[0]) + EITHER_SIDE <= came or came == len(numbers)):
            ready = waiting.popleft()
            yield ready, [watched.in_front(place) for place in range(gone, gone + len(ready))]
            gone += len(ready)


def _mix(here: np.ndarray, other: np.ndarray, part: np.ndarray) -> None:
    mixed = here + part * (other - here.astype(np.float32))
    here[:] = np.rint(mixed) if here.dtype == np.uint8 else mixed


def _laid(places: np.ndarray, values: np.ndarray, step: float, box: tuple[slice, slice]) -> Overlay:
    """Values (n, 4), cover and colours, at places (n, 2) about `step` pixels apart over a box."""
    cv2 = load_opencv()
    rows, columns = box
    height, width = rows.stop - rows.start, columns.stop - columns.start
    high, wide = (max(2, round(side / max(step, 1.0))) for side in (height, width))
    x = np.floor((places[:, 0] - columns.start) * (wide / width)).astype(int)
    y = np.floor((places[:, 1] - rows.start) * (high / height)).astype(int)
    within = (x >= 0) & (x < wide) & (y >= 0) & (y < high)
    cell = (y * wide + x)[within]
    weighted = np.concatenate([values, np.ones((len(values), 1), values.dtype)], axis=1)[within]
    sums = np.stack([np.bincount(cell, column, minlength=high * wide) for column in weighted.T], axis=-1)
    sums = sums.reshape(high, wide, -1).astype(np.float32)
    near = cv2.GaussianBlur(sums, (0, 0), SOFT)
    sums = near + BESIDE * cv2.GaussianBlur(sums, (0, 0), WIDE)
    face = smoothstep(FACE_FROM, FACE_TO, near[..., -1:])
    picture = np.concatenate([sums[..., :-1] / np.maximum(sums[..., -1:], 1e-9), face], axis=-1)
    picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
    return Overlay(picture[..., 0], picture[..., 1:4], picture[..., 4])
