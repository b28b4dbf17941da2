"""Face landmarks of pictures and videos: one face is detected, tracked, and filled in where it is missing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from ..errors import TalkingPortraitError, one_line
from ..files.input_paths import existing_file, is_file
from ..finite import all_finite, check_plain
from ..image.affine_sampling import over_white
from ..model_files.store import Command, default_folders, find, list_files, models_command, way_to_get
from ..packages import pip_install
from ..types import FaceTrack, Progress, no_progress
from .face import Face, Landmarker, TrackingLandmarker
from .face_search import (
    TURNED,
    ImagePyramid,
    View,
    detect_in_whole,
    is_hard,
    same_face,
    search,
    search_small,
    set_upright,
    turn_between,
    view_of,
)
from .face_tracking import (
    Choice,
    FacePicker,
    Missing,
    NoFaceError,
    check_missing,
    frame_without_face,
    report_on,
    track_of,
)

if TYPE_CHECKING:
    from .landmarker_mediapipe import MediaPipeLandmarker
    from .landmarker_opencv import TFLiteLandmarker

Engine = Literal["auto", "mediapipe", "opencv"]

USUAL_CONFIDENCE = 0.5
LEAST_CONFIDENCE = 0.05
"""Below it nearly every place of a picture is a face to the detectors, and each is looked at, for minutes."""
SEARCH_AGAIN = 25
"""In a video without a face, the slow search is repeated after this many frames."""
DETECT_AGAIN = 25
"""A face that is alone is tracked from frame to frame, where the engine can, and detected again after this many."""
STEADY_MOVE, STEADY_SCALE, STEADY_TURN = 0.15, 1.15, 10.0
"""How far a tracked face may move within a frame, over its size, grow or shrink, and turn in degrees; beyond it, as
after a cut, it is detected again."""


def open_landmarker(
    path: str | Path | None = None, engine: Engine = "auto", *, command: Command = models_command
) -> MediaPipeLandmarker | TFLiteLandmarker:
    """A landmark engine.

    "mediapipe" (478 points, learnt expression scores) runs the `.task` file `path`, or the one in the folder `path`;
    None takes face_landmarker.task of the default model folder. "opencv" (468 points, expression scores from
    distances) runs the networks that ship with the pack. "auto" takes mediapipe where its file and its package are
    there, and else opencv, whose `hint` then names how to get the other. `command` says how this host's users call
    `models`, for the messages.
    Raises TalkingPortraitError for a path that is not there or holds something else, and when the package that runs
    the engine is missing.
    """
    from .landmarker_mediapipe import MediaPipeLandmarker
    from .landmarker_opencv import TFLiteLandmarker

    if engine not in ("auto", "mediapipe", "opencv"):
        raise TalkingPortraitError(
            f'The landmark engine is "{one_line(engine)}", but auto, mediapipe or opencv is expected.'
        )
    if engine == "opencv":
        return TFLiteLandmarker()
    way = way_to_get("face_landmarker", command)
    task = _task_file(path, way)
    if task is None:
        if engine == "mediapipe":
            place = default_folders("detection")[0] if path is None else path
            raise TalkingPortraitError(
                f"The mediapipe landmark engine needs face_landmarker.task, but {place} has none; {way}"
            )
        return TFLiteLandmarker(hint=f"MediaPipe's face landmarker is more exact (478 points); {way}")
    try:
        return MediaPipeLandmarker(task)
    except ImportError as error:
        problem = f"the mediapipe package, which can't be loaded ({error}); run: {pip_install('mediapipe')}"
        if engine == "mediapipe":
            raise TalkingPortraitError(f"The mediapipe landmark engine needs {problem}") from None
        return TFLiteLandmarker(hint=f"{task.name} is more exact (478 points), but needs {problem}")
    except TalkingPortraitError as error:
        raise TalkingPortraitError(f"{error}; {way}") from error


def detect(
    images: torch.Tensor,
    landmarker: Landmarker,
    *,
    choose: Choice = "largest",
    index: int = 0,
    missing: Missing = "hold",
    min_confidence: float = USUAL_CONFIDENCE,
    smoothing: float = 1.0,
    progress: Progress = no_progress,
    note: Callable[[FacePicker], object] = lambda picker: None,
) -> tuple[FaceTrack, str]:
    """Tracks one face through pictures; returns the track and a report in words.

    `images` (F, H, W, C) in 0..1, C 1, 3 or 4 (transparent parts lie over white). `choose` is which of several faces:
    the largest, the nearest to the middle, or number `index` from left to right; in later frames the same face is
    followed. `missing` is what a frame without the face gets: the points of the last frame that has it, points between
    its neighbours, or an error. `smoothing` 0..2 removes jitter of points in a video without delay and without changing
    quick movement; single pictures and cuts stay as they are. `note` is called with how the face was chosen.
    Raises TalkingPortraitError when no frame has a face, and for pictures of another shape.
    """
    check_missing(missing)
    frames = _as_rgb(images)
    if not LEAST_CONFIDENCE <= min_confidence <= 1:
        raise TalkingPortraitError(
            f"The least confidence is {min_confidence}, but a number from {LEAST_CONFIDENCE:g} to 1 is expected."
        )
    total = len(frames)
    size = (int(frames.shape[1]), int(frames.shape[2]))
    reporting = _ProgressLandmarker(landmarker, progress, total)
    picker = FacePicker(size, choose, index)
    follower = _Follower(reporting, picker, min_confidence, total > 1, _tracker(landmarker))
    faces: list[Face | None] = []
    for number in range(total):
        faces.append(follower.next(_rgb(frames[number])))
        reporting.done = number + 1
        progress(number + 1, total)
        if faces[-1] is None and missing == "error":
            raise frame_without_face(number)
    if min_confidence > USUAL_CONFIDENCE and not any(faces):
        raise NoFaceError(
            f"No face is found with a confidence of at least {min_confidence:g}; lower it ({USUAL_CONFIDENCE:g} suits "
            "most pictures), or use a picture with a clearly visible face of at least 64 pixels."
        )
    track = track_of(faces, size, missing, smoothing)
    note(picker)
    choice = picker.choice_among("is taken")
    choice = f" ({choice}; another by its index)" if choice else ""
    return track, f"{report_on(track, missing)} Faces seen: {follower.most_seen}{choice}. Engine: {landmarker.name}."


def detect_all(
    images: torch.Tensor,
    landmarker: Landmarker,
    *,
    most: int,
    min_confidence: float = USUAL_CONFIDENCE,
    smoothing: float = 1.0,
    progress: Progress = no_progress,
) -> list[FaceTrack]:
    """Follows every face of the first picture that shows any, at most `most`, from left to right; no face, no track.

    Each track is what `detect` gives for its index, but the faces of a picture are detected once for all of them.
    """
    frames = _as_rgb(images)
    total, size = len(frames), (int(frames.shape[1]), int(frames.shape[2]))
    reporting = _ProgressLandmarker(landmarker, progress, total)
    remembering = _RememberingLandmarker(reporting)

    def follower(index: int) -> _Follower:
        return _Follower(remembering, FacePicker(size, "index", index), min_confidence, total > 1, _tracker(landmarker))

    followers = [follower(0)]
    faces: list[list[Face | None]] = [[]]
    for number in range(total):
        picture = _rgb(frames[number])
        searched = followers[0].picker.last is None
        for one, seen in zip(followers, faces, strict=True):
            seen.append(one.next(picture))
        if searched and followers[0].picker.last is not None:
            while len(followers) < most:
                another = follower(len(followers))
                try:
                    first = another.next(picture)
                except NoFaceError:
                    break
                followers.append(another)
                faces.append([*[None] * number, first])
        remembering.results.clear()
        reporting.done = number + 1
        progress(number + 1, total)
    if followers[0].picker.last is None:
        return []
    return [track_of(seen, size, "hold", smoothing) for seen in faces]


def follow(
    frames: Iterable[torch.Tensor],
    image_size: tuple[int, int],
    landmarker: Landmarker,
    *,
    picker: FacePicker | None = None,
    min_confidence: float = USUAL_CONFIDENCE,
) -> Iterator[Face | None]:
    """The face of `picker`, by default the largest of the first frames, in each frame (H, W, 3), else None.

    Frames are bytes or in 0..1.

    For videos too long to hold: a frame is read when its face is requested, and then dropped.
    """
    follower = _Follower(landmarker, picker or FacePicker(image_size), min_confidence, True, _tracker(landmarker))
    for frame in frames:
        yield follower.next(frame if frame.dtype == torch.uint8 else _rgb(frame))


@dataclass
class _ProgressLandmarker:
    """A landmarker that reports progress, which may cancel, at each run: a search in a large picture has thousands."""

    landmarker: Landmarker
    progress: Progress
    total: int
    done: int = 0

    @property
    def name(self) -> str:
        return self.landmarker.name

    def faces(self, picture: np.ndarray, min_confidence: float) -> list[Face]:
        self.progress(self.done, self.total)
        return self.landmarker.faces(picture, min_confidence)


@dataclass
class _RememberingLandmarker:
    """A landmarker that runs once for each of the pictures that it is given until `results` are cleared."""

    landmarker: Landmarker
    results: dict[tuple[bytes, tuple[int, ...], float], list[Face]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.landmarker.name

    def faces(self, picture: np.ndarray, min_confidence: float) -> list[Face]:
        key = (hashlib.blake2b(picture.tobytes()).digest(), picture.shape, min_confidence)
        if key not in self.results:
            self.results[key] = self.landmarker.faces(picture, min_confidence)
        return self.results[key]


@dataclass
class _Follower:
    """Searches the chosen face where it was, then everywhere."""

    landmarker: Landmarker
    picker: FacePicker
    min_confidence: float
    video: bool
    tracker: TrackingLandmarker | None
    most_seen: int = 0
    _tracked: int = field(default=DETECT_AGAIN, repr=False)
    """Frames since the face was detected alone."""
    _since_search: int = field(default=SEARCH_AGAIN, repr=False)
    _view: View | None = field(default=None, repr=False)

    def next(self, picture: torch.Tensor) -> Face | None:
        """The face in the next frame (H, W, 3), bytes or in 0..1, or None."""
        pyramid = ImagePyramid(picture)
        last = self.picker.last
        if last is not None:
            face = self._in_view(last, pyramid) if is_hard(last, picture) else self._track(last, pyramid)
            if face is not None:
                return face
        faces = self._all(pyramid)
        self.most_seen = max(self.most_seen, len(faces))
        face = self.picker.pick(faces)
        if face is not None and (
            last is None or same_face(last, [face]) is None or abs(turn_between(last, face)) > 2 * TURNED
        ):
            face = self.picker.last = set_upright(face, pyramid.picture, self.landmarker, self.min_confidence)
        self._tracked = 0 if len(faces) == 1 and face is not None else DETECT_AGAIN
        return face

    def _in_view(self, last: Face, pyramid: ImagePyramid) -> Face | None:
        """The face in a view made for it, which stays while the face stays in it: one that trembles makes the points
        tremble."""
        if self._view is None or not _well_inside(last, self._view):
            self._view = view_of(last)
        return self.picker.again(self._detect(self._view, pyramid))

    def _track(self, last: Face, pyramid: ImagePyramid) -> Face | None:
        """The face as tracked from the frame before; None where it has to be detected."""
        if self.tracker is None or self._tracked >= DETECT_AGAIN:
            return None
        face = self.tracker.track(pyramid.as_bytes(0), last, self.min_confidence)
        if face is None or not _steady(last, face) or not self.picker.keep(face):
            return None
        self._tracked += 1
        return face

    def _all(self, pyramid: ImagePyramid) -> list[Face]:
        faces = detect_in_whole(pyramid, self.landmarker, self.min_confidence)
        if self.picker.choose != "largest" and self.picker.last is None:
            faces = search_small(pyramid, self.landmarker, self.min_confidence, faces, thorough=True)
        if not faces:
            self._since_search += 1
            if not self.video or self._since_search >= SEARCH_AGAIN:
                self._since_search = 0
                faces = search(pyramid, self.landmarker, self.min_confidence)
            elif self.picker.last is not None:
                faces = self._detect(view_of(self.picker.last), pyramid)
        if faces:
            self._since_search = SEARCH_AGAIN
        return faces

    def _detect(self, view: View, pyramid: ImagePyramid) -> list[Face]:
        return view.detect(pyramid.picture, self.landmarker, self.min_confidence)


def _tracker(landmarker: Landmarker) -> TrackingLandmarker | None:
    return landmarker if isinstance(landmarker, TrackingLandmarker) else None


def _steady(last: Face, face: Face) -> bool:
    moved = float(np.linalg.norm(face.centre - last.centre)) / last.size
    scale = face.size / last.size
    turned = abs(turn_between(last, face))
    return moved < STEADY_MOVE and 1 / STEADY_SCALE < scale < STEADY_SCALE and turned < STEADY_TURN


def _well_inside(face: Face, view: View) -> bool:
    fresh = view_of(face)
    middle = np.array([view.size[1], view.size[0], 1]) / [2, 2, 1]
    drift = float(np.linalg.norm(fresh.matrix @ middle - view.matrix @ middle)) / face.size
    zoom = np.linalg.norm(fresh.matrix[:, 0]) / np.linalg.norm(view.matrix[:, 0])
    turned = float(np.dot(fresh.matrix[:, 0], view.matrix[:, 0]))
    turned /= float(np.linalg.norm(fresh.matrix[:, 0]) * np.linalg.norm(view.matrix[:, 0]))
    return drift < 0.25 and 0.8 < zoom < 1.25 and turned > 0.9


def _as_rgb(images: torch.Tensor) -> torch.Tensor:
    """Checks a batch of pictures; leaves it on its device."""
    check_plain(images, "The batch of pictures")
    if (
        not isinstance(images, torch.Tensor)
        or images.ndim != 4
        or images.shape[-1] not in (1, 3, 4)
        or 0 in images.shape
    ):
        shape = tuple(images.shape) if isinstance(images, torch.Tensor) else type(images).__name__
        raise TalkingPortraitError(
            f"The pictures come as {shape}, but (frames, height, width, 1, 3 or 4 channels) with values from 0 to 1 "
            "is expected; connect the output of a node that loads pictures."
        )
    return images


def _rgb(frame: torch.Tensor) -> torch.Tensor:
    """(H, W, C) as (H, W, 3) float32 on the CPU; what is transparent lies over white; NaN becomes black."""
    frame = frame.detach().to("cpu", torch.float32)
    if not all_finite(frame):  # a copy of a large picture is made only where it is needed
        frame = torch.nan_to_num(frame)
    if frame.shape[-1] == 1:
        return frame.expand(-1, -1, 3)
    return over_white(frame)


def _task_file(path: str | Path | None, way: str) -> Path | None:
    """The MediaPipe model that is meant, or None for a folder without one; `way` is how to get one, for errors."""
    if path is None:
        (model,) = list_files("face_landmarker")
        return find(model)
    place = Path(path)
    if os.path.isdir(place):
        tasks = sorted(place.glob("*.task"))
        return next((task for task in tasks if task.name == "face_landmarker.task"), next(iter(tasks), None))
    if not is_file(place):
        raise TalkingPortraitError(f"{place} is not there, but a face landmarker (.task) is needed; {way}")
    if place.suffix != ".task":
        raise TalkingPortraitError(f"{place} is something else, but a face landmarker (.task) is needed; {way}")
    return existing_file(place, "face landmarker")
