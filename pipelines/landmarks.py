"""Face landmarks of pictures and clips: find the face, follow it, bridge the frames without one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from .errors import TalkingPortraitError
from .geometry import metric_mesh
from .landmark_views import (
    Face,
    Landmarker,
    View,
    is_hard,
    look_at_whole,
    same_face,
    search,
    search_small,
    view_of,
)
from .temporal_smoothing import smooth_points
from .types import FaceTrack, Progress, no_progress

Choice = Literal["largest", "nearest", "index"]
Missing = Literal["hold", "interpolate", "error"]
Engine = Literal["auto", "mediapipe", "opencv"]

SEARCH_AGAIN = 25
"""In a clip without a face, the slow search is repeated after this many frames."""
SAME_PLACE = 1.0
"""How far a face may jump from frame to frame, over its size, and still be the same."""
GET_COMMAND = "python -m talking_portrait models get face_landmarker"


def open_landmarker(path: str | Path | None = None, engine: Engine = "auto") -> Landmarker:
    """The landmark engine for a model file.

    `path` is a MediaPipe `.task` file, or a folder (or one of the files in it) that holds
    `face_detection_short_range.tflite` and `face_landmark.tflite`; None takes what lies in the default model folder.
    `engine` "mediapipe" (478 points, learnt expression scores) needs the mediapipe package, "opencv" (468 points,
    expression scores from distances) the opencv package; "auto" takes the first that can run.
    Raises TalkingPortraitError if the file is missing, is no landmarker, or its package is not installed.
    """
    from .landmarks_mediapipe import MediaPipeLandmarker
    from .landmarks_tflite import TFLiteLandmarker, find_networks

    if engine not in ("auto", "mediapipe", "opencv"):
        raise TalkingPortraitError(f'The landmark engine is "{engine}", but auto, mediapipe or opencv is expected.')
    place = _model_place(path)
    task = _task_file(place)
    networks = find_networks(place)
    problem = f"{place} holds no face landmarker; get one with: {GET_COMMAND}"
    if task and engine in ("auto", "mediapipe"):
        try:
            return MediaPipeLandmarker(task)
        except ImportError:
            problem = (
                "The landmark model needs the mediapipe package, which is not installed; run `pip install mediapipe`, "
                "or fetch the model that OpenCV runs with `python -m talking_portrait models get face_landmark_tflite`."
            )
    if networks and engine in ("auto", "opencv"):
        try:
            return TFLiteLandmarker(*networks)
        except ImportError:
            problem = (
                "The landmark networks need the opencv package, which is not installed; run "
                f"`pip install opencv-python-headless`, or `pip install mediapipe` and `{GET_COMMAND}`."
            )
    if (task or networks) and problem.startswith(str(place)):
        needed = "a face_landmarker.task file" if engine == "mediapipe" else "the two .tflite networks"
        problem = (
            f"The {engine} landmark engine needs {needed}, but {place} is something else; get it with: {GET_COMMAND}"
        )
    raise TalkingPortraitError(problem)


def detect(
    images: torch.Tensor,
    landmarker: Landmarker,
    *,
    choose: Choice = "largest",
    index: int = 0,
    missing: Missing = "hold",
    min_confidence: float = 0.5,
    smoothing: float = 1.0,
    progress: Progress = no_progress,
) -> tuple[FaceTrack, str]:
    """Follows one face through pictures and says in words how that went.

    `images` (F, H, W, C) in 0..1, C 1, 3 or 4 (alpha over grey). `choose` says which of several faces: the largest,
    the nearest to the middle, or number `index` from left to right; in later frames the same face is followed.
    `missing` says what a frame without the face gets: the points of the last frame that has it, points between its
    neighbours, or an error. `smoothing` 0..2 calms the trembling of points in a clip without delaying them and without
    touching quick movement; single pictures and cuts stay as they are.
    Raises TalkingPortraitError when no frame shows a face, and for pictures of another shape.
    """
    frames = _as_rgb(images)
    if choose not in ("largest", "nearest", "index") or missing not in ("hold", "interpolate", "error"):
        raise TalkingPortraitError(
            f'Face choice "{choose}" and missing frames "{missing}" were asked for, but largest, nearest or index, '
            "and hold, interpolate or error are expected."
        )
    if not 0 < min_confidence <= 1:
        raise TalkingPortraitError(
            f"The least confidence is {min_confidence}, but a number above 0 up to 1 is expected."
        )
    total = len(frames)
    follower = _Follower(landmarker, choose, index, min_confidence, clip=total > 1)
    faces: list[Face | None] = []
    for number in range(total):
        faces.append(follower.next(_rgb(frames[number])))
        if faces[-1] is None and missing == "error":
            raise TalkingPortraitError(
                f"Frame {number} of {total} shows no face, and frames without one are set to be an error; "
                "choose hold or interpolate, or cut the frame out."
            )
        progress(number + 1, total)
    size = (int(frames.shape[1]), int(frames.shape[2]))
    if not any(faces):
        what = "The picture shows" if total == 1 else f"None of the {total} frames shows"
        raise TalkingPortraitError(
            f"{what} no face that the landmarker can find ({size[1]} x {size[0]} pixels); "
            "use a picture with one clearly visible face of at least 64 pixels."
        )
    found = np.array([face is not None for face in faces])
    points = _fill(np.array([face.points for face in faces if face]), found, missing)
    if total > 1 and smoothing > 0:
        points = smooth_points(points, smoothing)
    blendshapes = None
    if all(face.blendshapes is not None for face in faces if face):
        scores = np.array([face.blendshapes for face in faces if face], dtype=np.float64)
        blendshapes = _fill(scores, found, missing).astype(np.float32)
    score = None
    if all(face.score is not None for face in faces if face):
        score = np.array([0.0 if face is None else face.score for face in faces], dtype=np.float32)
    _, matrix = metric_mesh(points, size)
    track = FaceTrack(points=points, found=found, image_size=size, matrix=matrix, blendshapes=blendshapes, score=score)
    return track, _report(found, missing, follower.most_seen, landmarker)


@dataclass
class _Follower:
    """Finds the wanted face, then the same one again in each further frame."""

    landmarker: Landmarker
    choose: Choice
    index: int
    min_confidence: float
    clip: bool
    last: Face | None = None
    most_seen: int = 0
    _since_search: int = field(default=SEARCH_AGAIN, repr=False)
    _view: View | None = field(default=None, repr=False)

    def next(self, picture: torch.Tensor) -> Face | None:
        """The face in the next frame (H, W, 3), or None."""
        face = self._again(picture) if self.last is not None else None
        if face is None:
            faces = self._all(picture)
            self.most_seen = max(self.most_seen, len(faces))
            face = self._pick(faces, picture)
        if face is not None:
            self.last = face
        return face

    def _again(self, picture: torch.Tensor) -> Face | None:
        """The last face in its own view; only for faces that the whole picture may not show."""
        assert self.last is not None
        if not is_hard(self.last, picture):
            return None
        # The view stays while the face stays in it: a view that trembles makes the points tremble.
        if self._view is None or not _well_inside(self.last, self._view):
            self._view = view_of(self.last)
        return self._near_last(self._view.look(picture, self.landmarker, self.min_confidence))

    def _all(self, picture: torch.Tensor) -> list[Face]:
        faces = look_at_whole(picture, self.landmarker, self.min_confidence)
        if faces and self.choose != "largest" and self.last is None:
            faces = search_small(picture, self.landmarker, self.min_confidence, faces)
        if not faces:
            self._since_search += 1
            if not self.clip or self._since_search >= SEARCH_AGAIN:
                self._since_search = 0
                faces = search(picture, self.landmarker, self.min_confidence)
            elif self.last is not None:
                faces = view_of(self.last).look(picture, self.landmarker, self.min_confidence)
        if faces:
            self._since_search = SEARCH_AGAIN
        return faces

    def _pick(self, faces: list[Face], picture: torch.Tensor) -> Face | None:
        if not faces:
            return None
        if self.last is not None:
            same = self._near_last(faces)
            if same is not None:
                return same
        if self.choose == "index":
            return self._numbered(faces)
        if self.choose == "nearest":
            middle = np.array([picture.shape[1], picture.shape[0]]) / 2
            return min(faces, key=lambda face: float(np.linalg.norm(face.centre - middle)))
        return max(faces, key=lambda face: float(np.prod(face.box[2:] - face.box[:2])))

    def _numbered(self, faces: list[Face]) -> Face | None:
        ordered = sorted(faces, key=lambda face: face.centre[0])
        if 0 <= self.index < len(ordered):
            return ordered[self.index]
        if self.last is not None:
            return None
        raise TalkingPortraitError(
            f"Face number {self.index} was asked for, but {len(ordered)} "
            f"{'face was' if len(ordered) == 1 else 'faces were'} found, numbered from 0 at the left; "
            f"choose 0{'' if len(ordered) == 1 else f' to {len(ordered) - 1}'}, or the largest face."
        )

    def _near_last(self, faces: list[Face]) -> Face | None:
        assert self.last is not None
        last = self.last
        same = same_face(last, faces)
        if same is not None and len(faces) == 1:
            return faces[same]
        near = [face for face in faces if np.linalg.norm(face.centre - last.centre) < SAME_PLACE * last.size]
        near = [face for face in near if 0.5 < face.size / last.size < 2]
        return min(near, key=lambda face: float(np.linalg.norm(face.centre - last.centre)), default=None)


def _well_inside(face: Face, view: View) -> bool:
    fresh = view_of(face)
    middle = np.array([view.size[1], view.size[0], 1]) / [2, 2, 1]
    drift = float(np.linalg.norm(fresh.matrix @ middle - view.matrix @ middle)) / face.size
    zoom = np.linalg.norm(fresh.matrix[:, 0]) / np.linalg.norm(view.matrix[:, 0])
    turned = float(np.dot(fresh.matrix[:, 0], view.matrix[:, 0]))
    turned /= float(np.linalg.norm(fresh.matrix[:, 0]) * np.linalg.norm(view.matrix[:, 0]))
    return drift < 0.25 and 0.8 < zoom < 1.25 and turned > 0.9


def _fill(values: np.ndarray, found: np.ndarray, missing: Missing) -> np.ndarray:
    """`values` of the found frames (N, ...) spread over all frames (F, ...)."""
    frames = np.arange(len(found))
    known = frames[found]
    if missing == "interpolate":
        flat = values.reshape(len(values), -1)
        place = np.interp(frames, known, np.arange(len(known)))
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, len(known) - 1)
        part = (place - low)[:, None]
        return (flat[low] * (1 - part) + flat[high] * part).reshape(len(found), *values.shape[1:])
    # Frames before the first find have only that one to hold.
    source = np.maximum(np.searchsorted(known, frames, side="right") - 1, 0)
    return values[source].astype(np.float64)


def _as_rgb(images: torch.Tensor) -> torch.Tensor:
    """Checks a batch of pictures; leaves it on its device."""
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
    """(H, W, C) as (H, W, 3) float32 on the CPU; what is transparent becomes grey; NaN becomes black."""
    frame = torch.nan_to_num(frame.detach().to("cpu", torch.float32))
    if frame.shape[-1] == 1:
        return frame.expand(-1, -1, 3)
    if frame.shape[-1] == 4:
        alpha = frame[..., 3:]
        return frame[..., :3] * alpha + 0.5 * (1 - alpha)
    return frame


def _report(found: np.ndarray, missing: Missing, most_seen: int, landmarker: Landmarker) -> str:
    total, good = len(found), int(found.sum())
    filled = total - good
    lines = [f"{good} of {total} {'frame shows' if total == 1 else 'frames show'} the face."]
    if filled:
        lines.append(f"{filled} {'interpolated' if missing == 'interpolate' else 'held'}.")
    lines.append(f"Faces seen: {most_seen}.")
    lines.append(f"Engine: {landmarker.name}, {landmarker.points} points.")
    return " ".join(lines)


def _model_place(path: str | Path | None) -> Path:
    if path is not None:
        place = Path(path)
        if not place.exists():
            raise TalkingPortraitError(f"The landmark model {place} does not exist; get one with: {GET_COMMAND}")
        return place
    from .model_files import default_model_root

    return default_model_root() / "detection"


def _task_file(place: Path) -> Path | None:
    if place.suffix == ".task":
        return place
    tasks = sorted(place.glob("*.task")) if place.is_dir() else []
    named = [task for task in tasks if task.name == "face_landmarker.task"]
    return next(iter(named or tasks), None)
