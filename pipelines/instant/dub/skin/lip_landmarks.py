"""Landmarks of a film's lips, put where the edges of its open lips are seen.

A landmarker whose lips open too little, or too far, does so by much the same part of the mouth in all frames of a film.
Then the new words would take back less, or more, than was said. Numbers were chosen on eight renders with known
movements, followed by both landmarkers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .....models.face.face_mesh import eye_distance
from .....models.face.mouth_regions import LOWER_INNER_LIP, MOUTH_CORNERS, UPPER_INNER_LIP
from ..lip_rims import USUAL_RIMS, clear_edge, lip_rims, open_part

LEAST_FRAMES = 8
"""Open mouths that say by how much landmarks are wrong, at least."""
LOWER_AT, LOWER_GAIN = 0.035, 1.5
"""Mouth half widths from the landmarks at which the lower lip's edge is found where these are right, and the factor on
what it is found beside that: it is blurred and lies beside teeth and tongue, so that it is found too near to the usual.
"""
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
    def of(cls, steps: Sequence[np.ndarray]) -> LipLandmarks:
        """From `edge_steps` of a film's frames; where there are few they stay."""
        rims = lip_rims(steps)
        if len(steps) < LEAST_FRAMES:
            return cls((0.0, 0.0), rims)
        upper, clear = clear_edge(steps, 0)
        lower = LOWER_GAIN * (rims[1] - LOWER_AT)
        return cls((clear * upper, lower), ((1 - clear) * rims[0], USUAL_RIMS[1]))

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
