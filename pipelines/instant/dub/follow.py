"""Follows one face of a film from its first frame to its last, or as far as it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch

from ....models.face.face_mesh import VERTICES
from ...errors import TalkingPortraitError
from ...face.face import Face, Landmarker
from ...face.face_tracking import FacePicker
from ...face.landmarks import follow
from ...face.shots import Frame, find_cuts, thumbnail
from ...files.video import VideoFile
from ...person.same_person import Shape, median_shape, most_alike, shape_of
from ...types import Progress, no_progress
from .filmed_face import FilmedFace, filmed_face

CONFIDENCE = 0.5
COMPARED = 25
"""Faces of the film's beginning whose median shape is looked for after a cut."""
LEAST_MASKED = 0.3
"""Part of a face's landmarks that must lie within a mask."""
PREVIEW_SECONDS = 1


@dataclass
class FilmPicker(FacePicker):
    """Picks a face by `choose` and `index`, by the `place` (x, y) in pixels it is nearest to, or by the `mask` (H, W)
    bool it lies in; after a cut it picks the same person's, and none where only others are seen."""

    place: tuple[float, float] | None = None
    mask: np.ndarray | None = None
    _shapes: list[Shape] = field(default_factory=list, repr=False)

    def pick(self, faces: list[Face]) -> Face | None:
        """The chosen face of a frame, None where it is not seen."""
        face = super().pick(faces)
        if face is not None and len(self._shapes) < COMPARED:
            self._shapes.append(shape_of(face, self.image_size))
        return face

    def begin_shot(self) -> None:
        """Searches the person anew: the next frame is that of another shot."""
        self.last = None

    def _chosen(self, faces: list[Face]) -> Face | None:
        if self._shapes:
            return most_alike(faces, median_shape(self._shapes), self.image_size)
        if self.mask is not None:
            parts = [_part_within(face, self.mask) for face in faces]
            best = int(np.argmax(parts))
            return faces[best] if parts[best] >= LEAST_MASKED else None
        if self.place is not None:
            place = np.array(self.place)
            return min(faces, key=lambda face: float(np.linalg.norm(face.centre - place)))
        return super()._chosen(faces)


def follow_film(
    video: VideoFile,
    landmarker: Landmarker,
    picker: FilmPicker,
    *,
    frames: int,
    smoothing: float = 1.0,
    progress: Progress = no_progress,
) -> FilmedFace:
    """The face of `picker` in the first `frames` frames of a film, or in all that there are.

    Raises TalkingPortraitError where the face is in none of them.
    """
    changes: list[Frame] = []
    starts = [0]
    rate = float(video.fps)
    current = np.zeros((1, 1, 3), np.uint8)

    def pictures() -> Iterator[torch.Tensor]:
        nonlocal current
        before: np.ndarray | None = None
        for number, current in enumerate(islice(video.frames(), frames)):
            small = thumbnail(current)
            changes.append(Frame(0.0 if before is None else float(np.abs(small - before).mean())))
            before = small
            recent = changes[-round(rate) - 2 :]
            if number and find_cuts(recent, rate)[-1:] == [len(recent) - 1]:
                starts.append(number)
                picker.begin_shot()
            yield torch.from_numpy(current.astype(np.float32) / 255)

    points: list[np.ndarray] = []
    found: list[bool] = []
    empty = np.zeros((VERTICES, 3), np.float32)
    preview_every = max(1, round(PREVIEW_SECONDS * rate))
    for face in follow(pictures(), video.size, landmarker, picker=picker, min_confidence=CONFIDENCE):
        found.append(face is not None)
        points.append(empty if face is None else face.points[:VERTICES].astype(np.float32))
        show = None if len(found) % preview_every else torch.from_numpy(current / np.float32(255))
        progress(len(found), max(frames, len(found)), show)
    if not any(found):
        raise TalkingPortraitError(
            f"{'The chosen face is' if picker.mask is not None else 'A face is'} found in none of the {len(found)} "
            f"frames of {video.path.name}; give a video that shows a face of at least 64 pixels."
        )
    return filmed_face(np.stack(points), np.array(found), tuple(starts), video.size, smoothing=smoothing)


def _part_within(face: Face, mask: np.ndarray) -> float:
    """Part of the landmarks that lie within a mask (H, W)."""
    x = np.clip(face.points[:, 0].astype(int), 0, mask.shape[1] - 1)
    y = np.clip(face.points[:, 1].astype(int), 0, mask.shape[0] - 1)
    return float(mask[y, x].mean())
