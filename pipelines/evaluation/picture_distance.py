"""LPIPS: how differently the pictures of a video and of its reference look, as a whole and around the mouth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch

from ...models.face.face_mesh import OUTER_MOUTH_CORNERS, eye_distance
from ...models.lpips import LPIPS
from ..face.face import Face
from ..files.images import from_uint8
from ..files.video import VideoFile
from ..image.affine_sampling import box_map, sample_picture, turned_map
from ..types import Progress
from .watched_face import WatchedFace

RATE = Fraction(5)
"""Pairs of pictures a second."""
LONGEST_SIDE = 512
"""Pixels; larger pictures are made smaller."""
SAME_SHAPE = 0.02
"""By which the proportions of two pictures may differ that are compared as wholes."""
MOUTH_SIDE = 128
"""Pixels of the square around the mouth, which is as wide as the distance of the outer eye corners."""


@dataclass(frozen=True)
class PictureDistance:
    """Means over time; `whole` is None for pictures of other proportions."""

    whole: float | None
    mouth: float


@torch.no_grad()
def picture_distance(
    video: VideoFile,
    face: WatchedFace,
    reference: VideoFile,
    truth: WatchedFace,
    network: LPIPS,
    *,
    progress: Progress,
) -> PictureDistance:
    """Of two videos whose faces were watched, over the time that both last.

    The mouth is cut out by each one's own landmarks, upright, so that only what it looks like counts.
    """
    proportions = [each.size[0] / each.size[1] for each in (video, reference)]
    same = abs(proportions[0] / proportions[1] - 1) <= SAME_SHAPE
    scale = min(1.0, LONGEST_SIDE / max(video.size))
    size = max(1, round(video.size[0] * scale)), max(1, round(video.size[1] * scale))
    count = max(1, int(min(face.seconds, truth.seconds) * RATE))
    wholes: list[float] = []
    mouths: list[float] = []
    for number, pair in enumerate(zip(_looks(video, face, size), _looks(reference, truth, size), strict=False)):
        (own, own_mouth), (other, other_mouth) = pair
        mouths.append(float(network(_planes(own_mouth), _planes(other_mouth))))
        if same:
            wholes.append(float(network(_planes(own), _planes(other))))
        progress(number + 1, count)
        if number + 1 == count:
            break
    return PictureDistance(float(np.mean(wholes)) if same else None, float(np.mean(mouths)))


def _looks(video: VideoFile, face: WatchedFace, size: tuple[int, int]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Each compared picture at `size` (height, width), and its mouth."""
    whole = box_map(0, 0, video.size[1], video.size[0], size)
    for number, frame in enumerate(replace(video, fps=RATE).frames()):
        picture = from_uint8(frame)
        points = face.track.points[min(round(number / RATE * face.fps), face.frames - 1)]
        yield sample_picture(picture, whole, size), sample_picture(picture, _mouth(points), (MOUTH_SIDE, MOUTH_SIDE))


def _mouth(points: np.ndarray) -> np.ndarray:
    """The map of an upright square around the mouth."""
    flat = points[:, :2]
    x, y = flat[list(OUTER_MOUTH_CORNERS)].mean(axis=0)
    side = max(float(eye_distance(flat)), 1.0)
    return turned_map((x, y), side, Face(points, None, None).roll, (MOUTH_SIDE, MOUTH_SIDE))


def _planes(picture: torch.Tensor) -> torch.Tensor:
    return picture.movedim(-1, 0)[None]
