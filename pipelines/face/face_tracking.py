"""Which of several faces is tracked through the frames, and what frames without it get.

What numbers without a source were tuned on is not recorded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ..errors import TalkingPortraitError, one_line
from ..types import FaceTrack
from .face import Face
from .face_search import same_face
from .metric_mesh import metric_mesh
from .smoothing import smooth_points

Choice = Literal["largest", "nearest", "index"]
Missing = Literal["hold", "interpolate", "error"]

SAME_PLACE = 1.0
"""How far a face may jump from frame to frame, over its size, and still be the same."""


PART = 256
"""Frames whose meshes are computed at once."""


class NoFaceError(TalkingPortraitError):
    """The chosen face is not detected in any frame."""


@dataclass
class FacePicker:
    """Picks the chosen face among each frame's faces; `last` is the one picked before.

    "largest", "nearest" to the middle of the picture, or number `index` from left to right; after the first pick the
    same face is followed, and after a cut the rule picks anew. `among` is how many faces there were at the first pick,
    and `picked_at` (x, y) where the chosen one was, in pixels.
    """

    image_size: tuple[int, int]
    choose: Choice = "largest"
    index: int = 0
    last: Face | None = None
    among: int = 0
    picked_at: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if self.choose not in ("largest", "nearest", "index"):
            raise TalkingPortraitError(
                f'The face "{one_line(self.choose)}" was requested, but largest, nearest or index is expected.'
            )

    def pick(self, faces: list[Face]) -> Face | None:
        """The chosen face, None if there is none. Raises TalkingPortraitError for a number beyond the first faces."""
        face = self.again(faces)
        if face is None and faces:
            face = self._chosen(faces)
            self.last = face or self.last
            if face is not None and not self.among:
                self.among, self.picked_at = len(faces), (float(face.centre[0]), float(face.centre[1]))
        return face

    def choice_among(self, takes: str) -> str:
        """What the largest of several faces does, as nobody has chosen one: "the largest speaks, that at 300, 200".

        Empty for one face, and where one was chosen. How many there are is not said, as small ones are not searched
        for beside a large one unless they are numbered.
        """
        if self.choose != "largest" or self.among < 2:
            return ""
        x, y = self.picked_at
        return f"the largest {takes}, that at {x:.0f}, {y:.0f}"

    def again(self, faces: list[Face]) -> Face | None:
        """The face that was picked last, among these."""
        if self.last is None:
            return None
        last = self.last
        same = same_face(last, faces)
        if same is None or len(faces) > 1:
            near = [face for face in faces if np.linalg.norm(face.centre - last.centre) < SAME_PLACE * last.size]
            near = [face for face in near if 0.5 < face.size / last.size < 2]
            near.sort(key=lambda face: float(np.linalg.norm(face.centre - last.centre)))
        else:
            near = [faces[same]]
        face = self._same(near)
        self.last = face or last
        return face

    def keep(self, face: Face) -> bool:
        """Takes the face that was picked last as it was tracked into another frame; False if that is another one."""
        self.last = face
        return True

    def _same(self, near: list[Face]) -> Face | None:
        """The face that was picked last among those in its place, the nearest first."""
        return near[0] if near else None

    def _chosen(self, faces: list[Face]) -> Face | None:
        if self.choose == "nearest":
            middle = np.array([self.image_size[1], self.image_size[0]]) / 2
            return min(faces, key=lambda face: float(np.linalg.norm(face.centre - middle)))
        if self.choose == "largest":
            return max(faces, key=lambda face: float(np.prod(face.box[2:] - face.box[:2])))
        ordered = sorted(faces, key=lambda face: float(face.centre[0]))
        if 0 <= self.index < len(ordered):
            return ordered[self.index]
        if self.last is not None:
            return None
        found = "1 face was" if len(ordered) == 1 else f"{len(ordered)} faces were"
        allowed = "0" if len(ordered) == 1 else f"0 to {len(ordered) - 1}"
        raise NoFaceError(
            f"Face number {self.index} was requested, but {found} found, numbered from 0 at the left; "
            f"choose {allowed}, or the largest face."
        )


def check_missing(missing: object) -> None:
    """Raises TalkingPortraitError for what is no `Missing`."""
    if missing not in get_args(Missing):
        raise TalkingPortraitError(
            f'"{one_line(missing)}" was requested in frames without a face, but hold, interpolate or error is expected.'
        )


def track_of(
    faces: list[Face | None], image_size: tuple[int, int], missing: Missing = "hold", smoothing: float = 0.0
) -> FaceTrack:
    """The track of one face per frame, None where it was not found.

    `missing` frames hold the points of the last frame that has them (the first ones those of the next), or points
    between their neighbours, or are an error. `smoothing` as in `smooth_points`; 0 leaves the points alone.
    Raises NoFaceError when no frame has a face.
    """
    check_missing(missing)
    known = [face for face in faces if face is not None]
    height, width = image_size
    if not known:
        what = "The picture shows no face" if len(faces) == 1 else f"None of the {len(faces)} frames shows a face"
        raise NoFaceError(
            f"{what} that can be found ({width} x {height} pixels); "
            "use a picture with a clearly visible face of at least 64 pixels."
        )
    found = np.array([face is not None for face in faces])
    if missing == "error" and not found.all():
        raise frame_without_face(int(np.argmin(found)))
    points = _fill(np.array([face.points for face in known]), found, missing)
    if smoothing > 0 and len(faces) > 1:
        points = smooth_points(points, smoothing)
    scores = [face.blendshapes for face in known if face.blendshapes is not None]
    blendshapes = None
    if len(scores) == len(known):
        blendshapes = _fill(np.array(scores, dtype=np.float64), found, missing).astype(np.float32)
    certain = [face.score for face in known if face.score is not None]
    score = None
    if len(certain) == len(known):
        score = np.zeros(len(faces), dtype=np.float32)
        score[found] = certain
    matrix = np.concatenate([metric_mesh(part, image_size)[1] for part in _parts(points)])
    return FaceTrack(
        points=points, found=found, image_size=image_size, matrix=matrix, blendshapes=blendshapes, score=score
    )


def frame_without_face(number: int) -> TalkingPortraitError:
    """The error for frames of which each must have a face."""
    return TalkingPortraitError(
        f"Frame {number} shows no face, and frames without one are set to be an error; "
        "choose hold or interpolate, or cut the frame out."
    )


def report_on(track: FaceTrack, missing: Missing) -> str:
    """How many frames have the face and what the others got."""
    good = int(track.found.sum())
    filled = track.frames - good
    text = f"{good} of {track.frames} {'frame shows' if track.frames == 1 else 'frames show'} the face"
    if filled:
        text += f", {filled} {'interpolated' if missing == 'interpolate' else 'held'}"
    return f"{text}; {track.points.shape[1]} points."


def _parts(points: np.ndarray) -> Iterator[np.ndarray]:
    """Points (F, P, 3) of some frames at a time, as a mesh takes several times their memory."""
    for start in range(0, len(points), PART):
        yield points[start : start + PART]


def _fill(values: np.ndarray, found: np.ndarray, missing: Missing) -> np.ndarray:
    """`values` of the found frames (N, ...) spread over all frames (F, ...)."""
    if found.all():
        return values.astype(np.float64, copy=False)
    frames = np.arange(len(found))
    known = frames[found]
    if missing == "interpolate":
        place = np.interp(frames, known, np.arange(len(known)))
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, len(known) - 1)
        part = (place - low).reshape(-1, *[1] * (values.ndim - 1))
        return values[low] * (1 - part) + values[high] * part
    # Frames before the first find have only that one to hold.
    source = np.maximum(np.searchsorted(known, frames, side="right") - 1, 0)
    return values[source].astype(np.float64)
