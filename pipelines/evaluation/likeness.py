"""How near the face of a video is to that of a reference: landmark distances and closures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...models.face.face_mesh import INNER_EYE_CORNERS, LIPS_INNER, LIPS_OUTER, NOSE_BRIDGE, OUTER_EYE_CORNERS, VERTICES
from .speech_lips import RATE, Closures, at_rate, compare_closures, correlation
from .watched_face import WatchedFace

STEADY = (*OUTER_EYE_CORNERS, *INNER_EYE_CORNERS, NOSE_BRIDGE, 6, 197)
"""Corners of the eyes and the bridge of the nose, which no expression moves: faces are laid over each other by them."""
LIPS = tuple(dict.fromkeys((*LIPS_OUTER, *LIPS_INNER)))


@dataclass(frozen=True)
class Likeness:
    """Over the time that both videos last; distances in percent of the reference's eye distance.

    `landmarks` and `mouth`: mean distance of all points, and of the lips', once the steady points of both faces lie
    over each other. `opening`: correlation of the lip openings. `closures` None where the reference's never close.
    """

    landmarks: float
    mouth: float
    opening: float
    closures: Closures | None


def likeness(face: WatchedFace, reference: WatchedFace) -> Likeness | None:
    """None where the two have less than a second in common."""
    seconds = min(face.seconds, reference.seconds)
    if seconds < 1:
        return None
    own, wanted = (at_rate(each.opening, each.fps, seconds) for each in (face, reference))
    times = np.arange(int(seconds * float(reference.fps))) / float(reference.fps)
    target = reference.flat[: len(times), :VERTICES]
    points = _at(face, times)
    apart = np.linalg.norm(_laid_over(points, target) - target, axis=-1) / reference.eyes[: len(times), None]
    return Likeness(
        landmarks=100 * float(apart.mean()),
        mouth=100 * float(apart[:, list(LIPS)].mean()),
        opening=correlation(own, wanted),
        closures=compare_closures(own, wanted) if seconds * RATE > 2 * RATE else None,
    )


def _at(face: WatchedFace, times: np.ndarray) -> np.ndarray:
    """Points (T, 468, 2) at these seconds."""
    place = np.clip(times * float(face.fps), 0, face.frames - 1)
    low = place.astype(int)
    high = np.minimum(low + 1, face.frames - 1)
    part = (place - low)[:, None, None]
    points = face.flat[:, :VERTICES]
    return points[low] * (1 - part) + points[high] * part


def _laid_over(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Points (T, P, 2) moved, turned and scaled so that their steady ones come nearest to the target's."""
    own, wanted = (each[..., 0] + 1j * each[..., 1] for each in (points, target))
    own_steady, wanted_steady = own[:, list(STEADY)], wanted[:, list(STEADY)]
    own_middle, middle = own_steady.mean(axis=1, keepdims=True), wanted_steady.mean(axis=1, keepdims=True)
    a, b = own_steady - own_middle, wanted_steady - middle
    turn = (a.conj() * b).sum(axis=1) / np.maximum(np.square(np.abs(a)).sum(axis=1), 1e-12)
    laid = (own - own_middle) * turn[:, None] + middle
    return np.stack([laid.real, laid.imag], axis=-1)
