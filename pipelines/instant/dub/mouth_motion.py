"""What a filmed mouth has to do to speak other words: pixels by which landmarks of the film move."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from ....models.curves import smoothstep
from ....models.face.face_mesh import (
    FACE_OVAL,
    INNER_LOWER_LIP,
    INNER_UPPER_LIP,
    VERTICES,
    eye_distance,
    face_mesh,
)
from ....models.face.mouth_regions import MOUTH_CORNERS
from ....models.face.mouth_shapes import closing_offsets, lip_gaps, mouth_vertices
from ...types import FaceMotion
from .filmed_face import FilmedFace, eye_pixels, pixels_per_cm
from .lip_rims import open_part
from .resting_face import speech_offsets

MOVED_BELOW, STILL_ABOVE = -2.4, -0.6
"""Heights in cm in the canonical head: below the first all movement is the new one, above the second all is filmed."""
LIP_SIDES, LIP_BOTTOM = (2.8, 4.2), (-6.0, -9.0)
"""Cm in the canonical head: up to the first landmarks are the mouth's, from the second on they follow the jaw."""
LEAST_WIDTH = 0.8
"""Part of a filmed mouth's width that it keeps, chosen by eye on films of five people."""
OVERLAP = 0.04
"""Mouth half widths by which lips that shut go on beyond the meeting of their edges."""
OPEN_JAW = np.array([[0.5, 0, 0, 0, 0, 0]])
"""Mouth controls of an opened jaw."""


@dataclass(frozen=True)
class MouthMotion:
    """What one frame's mouth does.

    `points` (468, 2) filmed landmarks in pixels, `moved` (468, 2) pixels by which they move. `basis` (2, 3) pixels per
    cm along the head's axes; `middle` (2,) where the middle of the mouth at rest is. `eye_distance`, and the
    `closed_gap` between the landmarks of lips that touch, in pixels. `rims` as `lip_rims` has them.
    """

    points: np.ndarray
    moved: np.ndarray
    basis: np.ndarray
    middle: np.ndarray
    eye_distance: float
    closed_gap: float
    rims: tuple[float, float]


def mouth_motions(
    face: FilmedFace, numbers: np.ndarray, motion: FaceMotion, frames: np.ndarray, jaw: float
) -> list[MouthMotion]:
    """The movements that give the film's frames `numbers` (n,) the mouth that `motion` has in `frames` (n,).

    `jaw` is the part of the movement of chin and cheeks that is the new one; the rest stays as filmed.
    """
    vertices, matrix = face.shapes(numbers)
    points = face.points[numbers][..., :2].astype(np.float64)
    rest = face.rest
    shape, closed_gap = rest.shape, rest.closed_gap
    spoken = speech_offsets(rest.mesh, motion, frames)
    basis = pixels_per_cm(matrix, face.size, shape)
    resting = rest.places(matrix, face.size, basis)
    weight = (_lower_face() * (1 - (1 - jaw) * _follows_jaw()))[:, None]
    usual = resting + np.einsum("nij,vj->nvi", basis, rest.spoken)
    new = np.einsum("nij,nvj->nvi", basis, spoken - rest.spoken)
    moved = weight * (_leaves_film()[:, None] * (usual - points) + new)
    moved += np.einsum("nij,nvj->nvi", basis, closing_offsets(_nearer(vertices, shape + spoken, closed_gap, rest.rims)))
    moved = _not_crushed(points, moved)
    middle = resting[:, [INNER_UPPER_LIP, INNER_LOWER_LIP]].mean(axis=1)
    eyes = eye_pixels(basis, shape)
    return [
        MouthMotion(points[k], moved[k], basis[k], middle[k], float(eyes[k]), closed_gap * float(eyes[k]), rest.rims)
        for k in range(len(numbers))
    ]


def _nearer(filmed: np.ndarray, spoken: np.ndarray, closed_gap: float, rims: tuple[float, float]) -> np.ndarray:
    """(n, 9, 3) cm by which lips come nearer than landmarks say, from shapes (n, 468, 3) as filmed and as they speak.

    What is seen between open lips is wider than the gap of their landmarks and narrower between touching ones. Lips
    are cut where the wider of both openings has its edges, so that those which shut have to meet there.
    """
    right, left = MOUTH_CORNERS
    half = np.linalg.norm(filmed[:, left] - filmed[:, right], axis=-1)[:, None] / 2
    touching = closed_gap * eye_distance(filmed)[:, None]
    before, after = lip_gaps(filmed), lip_gaps(spoken)
    gaps = np.stack([np.linalg.norm(gap, axis=-1) for gap in (before, after)])
    parts = open_part(gaps, touching, half)
    nearer = ((sum(rims) + OVERLAP) * half + touching) * (parts.max(axis=0) - parts[1])
    way = before + after
    return way * (nearer / np.maximum(np.linalg.norm(way, axis=-1), 1e-6))[..., None]


def _not_crushed(points: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Movements (n, 468, 2) of landmarks (n, 468, 2) that leave every mouth a part of its width, at least.

    Lips and folds of a wide grin that shall purse would be pressed to a knot.
    """
    right, left = MOUTH_CORNERS
    across = points[:, left] - points[:, right]
    width = np.linalg.norm(across, axis=-1)[:, None]
    along = np.einsum("nvk,nk->nv", moved, across / np.maximum(width, 1e-6))
    narrower = along[:, right, None] - along[:, left, None]
    excess = 1 - np.minimum(1, (1 - LEAST_WIDTH) * width / np.maximum(narrower, 1e-6))
    back = excess * (along - (along[:, right, None] + along[:, left, None]) / 2)
    return moved - back[..., None] * (across / np.maximum(width, 1e-6))[:, None]


@cache
def _lower_face() -> np.ndarray:
    """(468,) in 0..1: how far each vertex takes the new movement in place of the filmed one."""
    return smoothstep(STILL_ABOVE, MOVED_BELOW, face_mesh().vertices[:, 1].astype(np.float64))


@cache
def _leaves_film() -> np.ndarray:
    """(468,) in 0..1: how far each vertex leaves what it does in the film.

    Landmarks of a face's outline swing up to the temples as a mouth opens, which neither cheeks nor hair do: there as
    far as a jaw moves them.
    """
    result = np.ones(VERTICES)
    oval = list(FACE_OVAL)
    travel = np.linalg.norm(mouth_vertices(OPEN_JAW)[0], axis=-1)[oval]
    result[oval] = travel / travel.max()
    return result


@cache
def _follows_jaw() -> np.ndarray:
    """(468,) in 0..1: chin, jaw and cheeks, with what lies between them and the mouth in part.

    A chin that stays where a wide mouth had it stretches all the skin up to lips that shut, not a narrow strip of it.
    """
    x, y, _ = face_mesh().vertices.T.astype(np.float64)
    return np.maximum(smoothstep(*LIP_SIDES, np.abs(x)), smoothstep(*LIP_BOTTOM, y))
