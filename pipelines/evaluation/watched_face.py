"""The face of a video as evaluation needs it: its points in each frame, and what shows between its lips."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

import numpy as np
import torch

from ...models.face.face_mesh import (
    CHEEKS,
    CHIN,
    LIPS_INNER,
    NOSE_BRIDGE,
    NOSE_TIP,
    OUTER_MOUTH_CORNERS,
    eye_distance,
    mouth_opening,
)
from ..face.face import Face, Landmarker
from ..face.face_tracking import track_of
from ..face.head_pose import split_matrix
from ..face.identity import FaceRecogniser, largest_face
from ..face.landmarks import follow
from ..files.images import from_uint8
from ..files.video import VideoFile
from ..image.luma import LUMA
from ..types import FaceTrack, Progress

OPEN = 0.10
"""Eye distances from which on the inside of the mouth is looked at."""
DARK, BRIGHT = 0.25, 0.62
"""Of the cheeks' brightness: darker pixels between the lips are the mouth's depth, brighter ones are teeth."""
LEAST_PIXELS = 20
JITTER_FRAMES = 5


@dataclass
class WatchedFace:
    """One face over a video: `track` of all frames (not smoothed; frames without the face are interpolated), `fps`.

    `dark` and `teeth` are shares of the pixels between open lips, one number for each frame with an open mouth.
    `identities` (n, 512) are embeddings, one a second, empty without a recogniser.
    """

    track: FaceTrack
    fps: Fraction
    dark: list[float] = field(default_factory=list)
    teeth: list[float] = field(default_factory=list)
    identities: list[np.ndarray] = field(default_factory=list)

    @property
    def frames(self) -> int:
        return self.track.frames

    @property
    def found(self) -> int:
        return int(self.track.found.sum())

    @property
    def seconds(self) -> float:
        return float(self.frames / self.fps)

    @cached_property
    def flat(self) -> np.ndarray:
        """Points (F, P, 2) in pixels: depth is a guess of the landmarker's."""
        return self.track.points[..., :2]

    @cached_property
    def eyes(self) -> np.ndarray:
        """The distance of the outer eye corners (F,) in pixels, the unit of all lengths."""
        return eye_distance(self.flat)

    @cached_property
    def opening(self) -> np.ndarray:
        return mouth_opening(self.flat)

    @cached_property
    def width(self) -> np.ndarray:
        return self._distance(*OUTER_MOUTH_CORNERS) / self.eyes

    @cached_property
    def chin(self) -> np.ndarray:
        return self._distance(CHIN, NOSE_TIP) / self.eyes

    @cached_property
    def angles(self) -> np.ndarray:
        """Pitch, yaw and roll (F, 3) in degrees."""
        return split_matrix(self.track.matrix)[0]

    @property
    def jitter(self) -> float | None:
        """Median distance of the nose bridge from its mean over five frames, in eye distances; None for few frames."""
        if self.frames < 3 * JITTER_FRAMES:
            return None
        place, reach = self.flat[:, NOSE_BRIDGE], JITTER_FRAMES // 2
        steady = np.lib.stride_tricks.sliding_window_view(place, JITTER_FRAMES, axis=0).mean(axis=-1)
        off = np.linalg.norm(place[reach:-reach] - steady, axis=1)
        return float(np.median(off / self.eyes[reach:-reach]))

    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom round the face in all frames, in pixels."""
        low, high = self.flat.min(axis=(0, 1)), self.flat.max(axis=(0, 1))
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    def _distance(self, a: int, b: int) -> np.ndarray:
        return np.linalg.norm(self.flat[:, a] - self.flat[:, b], axis=1)


def watch_face(
    video: VideoFile,
    landmarker: Landmarker,
    *,
    recogniser: FaceRecogniser | None = None,
    progress: Progress,
) -> WatchedFace:
    """Follows the largest face of a video.

    Raises TalkingPortraitError for a video that is damaged or shows no face.
    """
    faces: list[Face | None] = []
    dark: list[float] = []
    teeth: list[float] = []
    identities: list[np.ndarray] = []
    every, stated = max(1, round(video.fps)), video.stated_frames
    current = np.zeros((1, 1, 3), np.uint8)

    def pictures() -> Iterator[torch.Tensor]:
        nonlocal current
        for current in video.frames():
            yield torch.from_numpy(current)

    for number, face in enumerate(follow(pictures(), video.size, landmarker)):
        faces.append(face and Face(face.points.astype(np.float32), None, face.score))
        if face is not None:
            shares = _inside_mouth(current, face.points[:, :2])
            if shares is not None:
                dark.append(shares[0])
                teeth.append(shares[1])
        if recogniser is not None and number % every == 0:
            found = recogniser.faces(from_uint8(current))
            identities += [largest_face(found).embedding] if found else []
        progress(min(number + 1, stated), max(stated, 1))
    return WatchedFace(track_of(faces, video.size, "interpolate"), video.fps, dark, teeth, identities)


def _inside_mouth(frame: np.ndarray, points: np.ndarray) -> tuple[float, float] | None:
    """Shares of dark and of bright pixels between the lips of a frame (H, W, 3); None where they are hardly open."""
    if mouth_opening(points) <= OPEN:
        return None
    from PIL import Image, ImageDraw

    height, width = frame.shape[:2]
    lips = points[list(LIPS_INNER)]
    left, top = np.maximum(np.floor(lips.min(axis=0)).astype(int), 0)
    right, bottom = np.minimum(np.ceil(lips.max(axis=0)).astype(int) + 1, (width, height))
    if right <= left or bottom <= top:
        return None
    mask = Image.new("1", (int(right - left), int(bottom - top)))
    ImageDraw.Draw(mask).polygon([(x - left, y - top) for x, y in lips.tolist()], fill=1)
    x, y = np.clip(points[list(CHEEKS)].astype(int), 0, (width - 1, height - 1)).T
    skin = max(float(np.median(_grey(frame[y, x]))), 1.0)
    inside = _grey(frame[top:bottom, left:right][np.asarray(mask)]) / skin
    if len(inside) < LEAST_PIXELS:
        return None
    return float((inside < DARK).mean()), float((inside > BRIGHT).mean())


def _grey(pixels: np.ndarray) -> np.ndarray:
    return pixels @ LUMA
