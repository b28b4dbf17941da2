"""Landmarks of a film's lips, put where the edges of its open lips are seen.

A landmarker whose lips open too little, or too far, does so by much the same part of the mouth in all frames of a film.
Then the new words would take back less, or more, than was said. Numbers were chosen on eight renders with known
movements, followed by both landmarkers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .....models.face.face_mesh import eye_distance, mouth_opening
from .....models.face.mouth_regions import LOWER_INNER_LIP, MOUTH_CORNERS, UPPER_INNER_LIP
from ..lip_rims import OPEN_FROM, USUAL_RIMS, clear_edge, lip_rims, open_part

LEAST_FRAMES = 8
"""Open mouths that say by how much landmarks are wrong, at least."""
LOWER_AT, LOWER_GAIN = 0.035, 1.5
"""Mouth half widths from the landmarks at which the lower lip's edge is found where these are right, and the factor on
what it is found beside that: it is blurred and lies beside teeth and tongue, so that it is found too near to the usual.
"""
OUTER_EDGES, INNER_EDGES = ((0, 37, 267), (17, 84, 314)), ((13, 82, 312), (14, 87, 317))
"""Landmarks in the middle of the upper and of the lower lip's outer edge, and of the inner ones."""
MOST_PARTING = 1.0
"""By how much outer edges part where inner ones part by one, from which on inner ones part too little: 0.93 of 22 real
speakers, with a standard deviation of 0.12."""
LEAST_MOVED = 0.04
"""Mouth half widths, the standard deviation of an opening from which on it tells this."""
SURELY_MISSING = 0.05
"""Mouth half widths of an opening that are missing by this from which on it counts in full."""
UPPER_PART = 2 / 3
"""Part of an opening that is missing by this which the upper lip's edge is taken to have."""
ROWS = (
    ((UPPER_INNER_LIP, 1.0), (LOWER_INNER_LIP, 1.0)),
    (((183, 42, 41, 38, 12, 268, 271, 272, 407), 2 / 3), ((96, 89, 179, 86, 15, 316, 403, 319, 325), 2 / 3)),
    (((184, 74, 73, 72, 11, 302, 303, 304, 408), 1 / 3), ((77, 90, 180, 85, 16, 315, 404, 320, 307), 1 / 3)),
)
"""Landmarks of the upper and of the lower lip, from its inner edge outwards, and the part in which they go with it."""


@dataclass(frozen=True)
class LipLandmarks:
    """Mouth half widths by which landmarks of open lips are to go outwards, of the upper and of the lower lip.

    `rims` are those by which the edges lie outside them then, as `lip_rims` has them.
    """

    outwards: tuple[float, float]
    rims: tuple[float, float]

    @classmethod
    def of(cls, steps: Sequence[np.ndarray], points: np.ndarray) -> LipLandmarks:
        """From `edge_steps` of a film's frames, and landmarks (n, 468, 2 or 3); where there are few they stay.

        An edge of teeth, or of a shadow, may be taken for that of a lip: both go outwards at least as far as outer
        edges say, if these say that a part of the opening is missing.
        """
        rims = lip_rims(steps)
        if len(steps) < LEAST_FRAMES:
            return cls((0.0, 0.0), rims)
        upper, clear = clear_edge(steps, 0)
        upper, lower = clear * upper, LOWER_GAIN * (rims[1] - LOWER_AT)
        missing = missing_opening(points)
        missing = max(missing - upper - lower, 0.0) * min(max(missing / SURELY_MISSING, 0.0), 1.0)
        outwards = upper + UPPER_PART * missing, lower + (1 - UPPER_PART) * missing
        return cls(outwards, ((1 - clear) * rims[0], USUAL_RIMS[1]))

    def at_edges(self, points: np.ndarray, closed_gap: float) -> np.ndarray:
        """Landmarks (n, 468, 3) in pixels where these edges are; `closed_gap` eye distances are between shut lips."""
        right, left = (points[:, corner, :2].astype(np.float64) for corner in MOUTH_CORNERS)
        half = np.linalg.norm(left - right, axis=-1)[:, None] / 2
        along = (left - right) / np.maximum(2 * half, 1e-6)
        down = np.stack([-along[:, 1], along[:, 0]], axis=-1)[:, None]
        lips = [points[:, list(lip), :2] for lip in (UPPER_INNER_LIP, LOWER_INNER_LIP)]
        touching = closed_gap * eye_distance(points[..., :2])[:, None]
        part = open_part(np.linalg.norm(lips[1] - lips[0], axis=-1), touching, np.maximum(half, 1e-6))
        result = points.copy()
        for row in ROWS:
            for (landmarks, follows), outwards, way in zip(row, self.outwards, (-1, 1), strict=True):
                result[:, list(landmarks), :2] += (way * follows * outwards * part * half)[..., None] * down
        return result


def missing_opening(points: np.ndarray) -> float:
    """Mouth half widths by which open lips of landmarks (n, 468, 2 or 3) are farther apart than these say, at least.

    Landmarkers follow lips' outer edges; where the inner ones go less far than these a part of each opening is missing.
    Below 0 where they go farther; 0 where the mouth hardly moves, which says nothing.
    """
    points = points[..., :2].astype(np.float64)
    right, left = MOUTH_CORNERS
    half = np.linalg.norm(points[:, left] - points[:, right], axis=-1).mean() / 2
    inner, outer = (
        np.linalg.norm(np.subtract(*(points[:, list(lip)].mean(axis=1) for lip in edges)), axis=-1)
        / max(float(half), 1e-6)
        for edges in (INNER_EDGES, OUTER_EDGES)
    )
    parted = inner[mouth_opening(points) > OPEN_FROM]
    if inner.std() < LEAST_MOVED or not len(parted):
        return 0.0
    parting = float(np.mean((inner - inner.mean()) * (outer - outer.mean())) / inner.var())
    return (parting / MOST_PARTING - 1) * float(parted.mean())
