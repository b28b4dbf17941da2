"""Whether the camera of a video moves, or stands elsewhere in some shots, by what is around the person.

Corners beside the person are followed (Lucas-Kanade) from the first frame of a shot on; a similarity that most of them
share is the camera's motion. Where they are lost, the motion goes on from the last frame in which they were seen.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...packages import load_opencv

WIDTH = 320
"""Frames are compared at this width."""
STEPS_A_SECOND = 4
CORNERS, LEAST_CORNERS = 120, 12
AGREE = 0.6
"""Part of the corners that must share the motion; else something else moves and nothing is said."""
MOVES = 0.01
"""Displacement, in widths of the frame, from which on the camera moves; noise of a still one is below 0.002."""
VIEW_SIZE, VIEW_DIFFERENCE, ZOOM = 48, 16.0, 1.25
"""Side of the pictures in which shots are compared; the median difference of their surroundings, of 255, and the ratio
of the face's size, from which on they show different views."""
SIDEWAYS, ABOVE, SHOULDERS, BELOW = 0.95, 1.1, 2.2, 0.3
"""The person's place around the middle of the face, in sizes of the face: sideways, above, of the shoulders, from where
below the middle these begin."""
_FLOW = {"winSize": (15, 15), "maxLevel": 3}


@dataclass
class CameraMotion:
    """`displacements` are the largest of the frame's corners in each frame compared, in widths of the frame."""

    displacements: list[float] = field(default_factory=list)
    compared: int = 0
    _reference: np.ndarray | None = None
    _corners: Any = None
    _last: Any = None
    _before: np.ndarray = field(default_factory=lambda: np.eye(3))
    _map: np.ndarray = field(default_factory=lambda: np.eye(3))

    @property
    def amount(self) -> float | None:
        """The motion in widths of the frame, None where the surroundings show nothing that can be followed."""
        return float(np.percentile(self.displacements, 95)) if self.displacements else None

    def begin_shot(self) -> None:
        """The next frame is the first of a shot."""
        self._reference, self._before, self._map = None, np.eye(3), np.eye(3)

    def add(self, frame: np.ndarray, face: np.ndarray) -> None:
        """Compares a frame (H, W, 3) uint8 with the shot's first one; `face` is (left, top, right, bottom) in it."""
        cv2 = load_opencv()
        scale = WIDTH / frame.shape[1]
        size = (WIDTH, max(16, round(frame.shape[0] * scale)))
        grey = cv2.cvtColor(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
        self.compared += 1
        if self._reference is None:
            self._begin(grey, face * scale)
            return
        found = self._motion(grey)
        if found is None:
            self._before = self._map
            self._begin(grey, face * scale)
            return
        self._map = self._before @ found
        corners = np.array([[0, 0, 1], [size[0], 0, 1], [0, size[1], 1], [size[0], size[1], 1]], float)
        moved = corners @ self._map[:2].T - corners[:, :2]
        self.displacements.append(float(np.linalg.norm(moved, axis=1).max()) / WIDTH)

    def _begin(self, grey: np.ndarray, face: np.ndarray) -> None:
        cv2 = load_opencv()
        self._reference = grey
        self._corners = self._last = cv2.goodFeaturesToTrack(
            grey, CORNERS, 0.02, 6, mask=around_person(grey.shape, face).astype(np.uint8)
        )

    def _motion(self, grey: np.ndarray) -> np.ndarray | None:
        """The map (3, 3) from the reference to this frame, None where it can't be said."""
        cv2 = load_opencv()
        if self._corners is None or len(self._corners) < LEAST_CORNERS:
            return None
        places, seen, _ = cv2.calcOpticalFlowPyrLK(
            self._reference, grey, self._corners, self._last.copy(), flags=cv2.OPTFLOW_USE_INITIAL_FLOW, **_FLOW
        )
        kept = seen[:, 0] == 1
        if kept.sum() < max(LEAST_CORNERS, AGREE * len(kept)):
            return None
        found, agreeing = cv2.estimateAffinePartial2D(self._corners[kept], places[kept], ransacReprojThreshold=1.0)
        if found is None or agreeing.mean() < AGREE:
            return None
        self._last = places
        return np.vstack([found, [0, 0, 1]])


@dataclass
class Views:
    """Whether the shots of a video show the person from the same place, by the surroundings and the face's size."""

    seen: dict[int, list[np.ndarray]] = field(default_factory=dict)
    sizes: dict[int, list[float]] = field(default_factory=dict)

    def add(self, shot: int, frame: np.ndarray, face: np.ndarray) -> None:
        """A frame (H, W, 3) uint8 of a shot; `face` is (left, top, right, bottom) in it."""
        cv2 = load_opencv()
        small = cv2.resize(frame, (VIEW_SIZE, VIEW_SIZE), interpolation=cv2.INTER_AREA).astype(np.float32)
        scale = VIEW_SIZE / np.array([frame.shape[1], frame.shape[0]] * 2)
        small[~around_person(small.shape, face * scale)] = np.nan
        self.seen.setdefault(shot, []).append(small.astype(np.float16))
        self.sizes.setdefault(shot, []).append(float((face[2:] - face[:2]).max()))

    def others(self, lengths: dict[int, int]) -> list[int]:
        """The shots that show another view than the longest; `lengths` are those of all."""
        if not self.seen:
            return []
        longest = max(self.seen, key=lambda shot: lengths[shot])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of pixels that are never beside the person
            views = {shot: np.nanmedian(np.stack(frames), axis=0) for shot, frames in self.seen.items()}
        sizes = {shot: float(np.median(values)) for shot, values in self.sizes.items()}
        found = []
        for shot, view in views.items():
            apart = np.abs(view - views[longest]).max(axis=-1)
            compared = apart[~np.isnan(apart)]
            differs = len(compared) > 0 and float(np.median(compared)) > VIEW_DIFFERENCE
            if differs or not 1 / ZOOM < sizes[shot] / sizes[longest] < ZOOM:
                found.append(shot)
        return found


def around_person(shape: tuple[int, ...], face: np.ndarray) -> np.ndarray:
    """Which pixels (h, w) are beside the person, for sure, where the face is (left, top, right, bottom)."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    middle, size = (face[:2] + face[2:]) / 2, float((face[2:] - face[:2]).max())
    across, down = np.abs(columns - middle[0]) / size, (rows - middle[1]) / size
    return (across > np.where(down > BELOW, SHOULDERS, SIDEWAYS)) | (down < -ABOVE)
