"""Follows one face of a film from its first frame to its last, or as far as it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from ....models.face.face_mesh import VERTICES
from ...errors import TalkingPortraitError
from ...face.face import Face, Landmarker
from ...face.face_search import ImagePyramid, detect_in_whole
from ...face.landmarks import USUAL_CONFIDENCE, follow
from ...face.shots import Frame, find_cuts, thumbnail
from ...files.images import from_uint8
from ...files.video import VideoFile
from ...image.frame_workers import read_ahead
from ...large_arrays import give_memory_back, large_array
from ...packages import load_opencv
from ...person.same_person import PersonPicker
from ...types import Progress, no_progress
from .filmed_face import BLOCK, FilmedFace, filmed_face
from .skin.filmed_textures import FilmedTextures

LEAST_MASKED = 0.3
"""Part of a face's landmarks that must lie within a mask."""
FIRST_LOOKS = 8
"""Frames at the beginning in which the size of the faces is looked at, until one shows any."""
FACE_PIXELS = 280
"""Size of the smallest face of the beginning that is kept: landmarkers scale faces down to 192 or 256 pixels."""
PREVIEW_SECONDS = 1


@dataclass
class FilmPicker(PersonPicker):
    """Picks the person whose face is the one of `choose` and `index` at first, that nearest to the `place` (x, y) in
    pixels, or that in the `mask` (H, W) bool."""

    place: tuple[float, float] | None = None
    mask: np.ndarray | None = None

    def reduced(self, factor: int) -> FilmPicker:
        """The same for frames whose sides are divided by `factor`."""
        height, width = (max(1, side // factor) for side in self.image_size)
        place = None if self.place is None else (self.place[0] / factor, self.place[1] / factor)
        mask = self.mask
        if mask is not None:
            rows = np.minimum((np.arange(height) + 0.5) * factor, mask.shape[0] - 1).astype(int)
            columns = np.minimum((np.arange(width) + 0.5) * factor, mask.shape[1] - 1).astype(int)
            mask = mask[np.ix_(rows, columns)]
        return FilmPicker((height, width), self.choose, self.index, place=place, mask=mask)

    def choice_among(self, takes: str) -> str:
        return "" if self.place is not None or self.mask is not None else super().choice_among(takes)

    def _first(self, faces: list[Face]) -> Face | None:
        if self.mask is not None:
            parts = [_part_within(face, self.mask) for face in faces]
            best = int(np.argmax(parts))
            return faces[best] if parts[best] >= LEAST_MASKED else None
        if self.place is not None:
            place = np.array(self.place)
            return min(faces, key=lambda face: float(np.linalg.norm(face.centre - place)))
        return super()._first(faces)


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
    given, factor = picker, _reduction(video, landmarker)
    picker = given.reduced(factor)
    size = picker.image_size
    starts = [0]
    shown = np.zeros((1, 1, 3), np.uint8)

    def pictures(shots: Iterator[tuple[np.ndarray, bool]]) -> Iterator[torch.Tensor]:
        nonlocal shown
        for number, (picture, is_cut) in enumerate(shots):
            shown = picture
            if is_cut:
                starts.append(number)
            picker.show(picture, is_cut=is_cut)
            yield torch.from_numpy(picture)

    textures = FilmedTextures(frames)
    points = large_array((frames, VERTICES, 3))
    found: list[bool] = []
    stretch = np.array([video.size[1] / size[1], video.size[0] / size[0], video.size[1] / size[1]], np.float32)
    preview_every = max(1, round(PREVIEW_SECONDS * video.fps))
    with closing(read_ahead(_shots(video, frames, size))) as shots:
        for face in follow(pictures(shots), size, landmarker, picker=picker):
            if face is not None:
                textures.add(len(found), shown, face.points)
                points[len(found)] = face.points[:VERTICES] * stretch
            found.append(face is not None)
            if len(found) % BLOCK == 0:
                give_memory_back(points)
            progress(len(found), max(frames, len(found)), None if len(found) % preview_every else from_uint8(shown))
    given.among, given.picked_at = picker.among, (factor * picker.picked_at[0], factor * picker.picked_at[1])
    if not any(found):
        raise TalkingPortraitError(
            f"{'The chosen face is' if picker.mask is not None else 'A face is'} found in none of the {len(found)} "
            f"frames of {video.path.name}; give a video that shows a face of at least 64 pixels, with its mouth."
        )
    own = np.array(found)
    for start, end in picker.others():
        own[start:end] = False
    points, looks = textures.aligned(points[: len(found)], own)
    sharpness = textures.sharpness(len(own))
    return filmed_face(points, own, tuple(starts), video.size, smoothing=smoothing, textures=looks, sharpness=sharpness)


def _shots(video: VideoFile, frames: int, size: tuple[int, int]) -> Iterator[tuple[np.ndarray, bool]]:
    """Frames of a film at another size, and whether each begins another shot."""
    rate = float(video.fps)
    changes: list[Frame] = []
    before: np.ndarray | None = None
    for frame in islice(video.frames(), frames):
        current = _reduced(frame, size)
        small = thumbnail(current)
        changes.append(Frame(0.0 if before is None else float(np.abs(small - before).mean())))
        before = small
        del changes[: -round(rate) - 2]
        is_cut = len(changes) > 1 and find_cuts(changes, rate)[-1:] == [len(changes) - 1]
        yield current, is_cut


def _reduction(video: VideoFile, landmarker: Landmarker) -> int:
    """By how much frames may be made smaller for the search, so that the largest face keeps enough pixels."""
    for frame in islice(video.frames(), 0, 4 * FIRST_LOOKS, 4):
        faces = detect_in_whole(ImagePyramid(torch.from_numpy(frame)), landmarker, USUAL_CONFIDENCE)
        if faces:
            return max(1, int(min(face.size for face in faces) / FACE_PIXELS))
    return 1


def _reduced(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if frame.shape[:2] == size:
        return frame
    cv2 = load_opencv()
    return cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA)


def _part_within(face: Face, mask: np.ndarray) -> float:
    """Part of the landmarks that lie within a mask (H, W)."""
    x = np.clip(face.points[:, 0].astype(int), 0, mask.shape[1] - 1)
    y = np.clip(face.points[:, 1].astype(int), 0, mask.shape[0] - 1)
    return float(mask[y, x].mean())
