"""Faces to learn landmarks from: crops of videos and pictures, with coarse landmarks and a better landmarker's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from ....models.face.face_mesh import LIPS_INNER, LIPS_OUTER, OUTER_EYE_CORNERS, VERTICES
from ...errors import TalkingPortraitError, quoted
from ...face.face import Face, Landmarker
from ...face.landmarker_opencv import TFLiteLandmarker
from ...face.landmarks import USUAL_CONFIDENCE
from ...face.part_points import EYES, MOUTH, Part, to_square
from ...files.images import is_picture, read_image, to_uint8
from ...files.input_paths import existing_folder
from ...files.video import is_film, open_video
from ...image.byte_sampling import cut_out
from ...packages import load_opencv
from ...types import Progress, no_progress

EVERY, MOST_FRAMES = 2, 120
"""Every second frame of a video is taken, as neighbours are too much alike, up to so many."""
LONGEST_SIDE = 1280
"""Larger pictures are made smaller."""
LEAST_EYES = 28.0
"""Pixels between the outer eye corners of the smallest faces."""
MOST_APART = 0.25
"""Between both landmarkers' mouths, over that distance; faces beyond it were not the same or not found well."""
AROUND = 2.0
"""Side of a crop over that of the network's square, so that it can be shifted, turned and scaled."""
CROP = 128
"""Pixels along a crop's side."""


@dataclass(frozen=True)
class Crops:
    """Crops of one part of many faces.

    `pictures` (N, 128, 128, 3) uint8; `coarse` and `fine` (N, 468, 3) float32: landmarks of the shipped mesh network
    and of the better landmarker, in half sides from the crop's middle, for a left eye those of the mirrored face;
    `files` (N,) the number of each one's file.
    """

    pictures: np.ndarray
    coarse: np.ndarray
    fine: np.ndarray
    files: np.ndarray

    def __len__(self) -> int:
        return len(self.pictures)

    def only(self, chosen: np.ndarray) -> Crops:
        """Those that `chosen` (N,) bool marks."""
        return Crops(self.pictures[chosen], self.coarse[chosen], self.fine[chosen], self.files[chosen])


def collect(folder: Path, teacher: Landmarker, progress: Progress = no_progress) -> tuple[dict[str, Crops], list[str]]:
    """Crops "mouth" and "eyes" of all faces in the videos and pictures of a folder, and the files' names.

    Files that can't be read are left out. Raises TalkingPortraitError for a folder without any face.
    """
    existing_folder(folder, "faces'")
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and (is_film(path) or is_picture(path)))
    coarse_landmarker = TFLiteLandmarker(networks=())
    random = np.random.default_rng(0)
    found: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray, int]]] = {"mouth": [], "eyes": []}
    for number, path in enumerate(paths):
        progress(number, len(paths))
        try:
            for picture in _pictures(path):
                for fine in teacher.faces(picture, USUAL_CONFIDENCE):
                    coarse = _coarse(coarse_landmarker, picture, fine.points[:VERTICES], random)
                    if coarse is None:
                        continue
                    for name, parts in (("mouth", (MOUTH,)), ("eyes", EYES)):
                        found[name] += [(*_crop(picture, part, coarse, fine.points), number) for part in parts]
        except TalkingPortraitError:
            continue
    progress(len(paths), len(paths))
    if not found["mouth"]:
        raise TalkingPortraitError(
            f"No face was found in the {len(paths)} videos and pictures of {quoted(str(folder))}; give a folder of "
            f"videos and pictures with faces of {LEAST_EYES * 2:.0f} pixels or more."
        )
    names = [path.relative_to(folder).as_posix() for path in paths]
    return {name: Crops(*map(np.stack, zip(*crops, strict=True))) for name, crops in found.items()}, names


def _pictures(path: Path) -> Iterator[np.ndarray]:
    """A picture, or frames of a video, (H, W, 3) uint8."""
    if is_film(path):
        frames = open_video(path).frames(only=range(0, EVERY * MOST_FRAMES, EVERY))
        yield from map(_smaller, islice(frames, MOST_FRAMES))
    else:
        yield _smaller(to_uint8(read_image(path))[..., :3])


def _smaller(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    factor = LONGEST_SIDE / max(height, width)
    if factor >= 1:
        return np.ascontiguousarray(picture)
    cv2 = load_opencv()
    return cv2.resize(picture, (round(width * factor), round(height * factor)), interpolation=cv2.INTER_AREA)


def _coarse(
    landmarker: TFLiteLandmarker, picture: np.ndarray, fine: np.ndarray, random: np.random.Generator
) -> np.ndarray | None:
    """The mesh network's points of a face in a square that is laid round `fine`, a little off; None for a bad match."""
    right, left = OUTER_EYE_CORNERS
    eyes = float(np.linalg.norm(fine[left] - fine[right]))
    if eyes < LEAST_EYES:
        return None
    shifted = fine + random.normal(0, 0.01, 3) * eyes
    face = landmarker.track(picture, Face(points=shifted, blendshapes=None, score=None), USUAL_CONFIDENCE)
    if face is None:
        return None
    lips = [*LIPS_OUTER, *LIPS_INNER]
    apart = np.abs(face.points[lips, :2].mean(axis=0) - fine[lips, :2].mean(axis=0)).max()
    return None if apart > MOST_APART * eyes else face.points


def _crop(
    picture: np.ndarray, part: Part, coarse: np.ndarray, fine: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    square = part.square(coarse, CROP, AROUND)
    numbers = part.numbers(np.arange(VERTICES))
    depth = part.depth(coarse)

    def placed(points: np.ndarray) -> np.ndarray:
        return to_square(points[numbers], square, CROP, depth).astype(np.float32)

    return cut_out(picture, square, CROP), placed(coarse), placed(fine)
