"""Eyelids on the 468-point mesh: the line on which they meet, the offsets that close them, how far they are closed."""

from __future__ import annotations

import numpy as np

from .face_mesh import LEFT_EYE, RIGHT_EYE, VERTICES, eye_distance, mirror_index

MEETING_LINE = 0.12
"""Where the lids meet, as a part of the opening above the lower lid: it rises a little, the upper lid does the rest.

Chosen by eye for the mesh. Instant's picture has a line of its own (pipelines/instant/renderer/eyes/eyelids.py).
"""

# Vertices around the right eye, outside to inside. Lid edges are paired; folds lie next to them, away from the eye.
UPPER_LID = RIGHT_EYE[1:8]
LOWER_LID = tuple(reversed(RIGHT_EYE[9:]))
UPPER_FOLD = (247, 30, 29, 27, 28, 56, 190)
LOWER_FOLD = (25, 110, 24, 23, 22, 26, 112)
_UPPER_FOLD_SHARE = 0.38
"""How far the fold above the upper lid follows the lid, as a part of the opening."""
_LOWER_FOLD_SHARE = 0.05


def eye_opening(points: np.ndarray) -> np.ndarray:
    """Height of the right and the left eye's opening over the distance of the outer eye corners.

    `points` (..., P, 3) in any unit; returns (..., 2).
    """
    heights = []
    for ring in (RIGHT_EYE, LEFT_EYE):
        upper, lower = list(ring[3:6]), list(ring[13:10:-1])
        gap = np.linalg.norm(points[..., upper, :] - points[..., lower, :], axis=-1)
        heights.append(gap.mean(axis=-1))
    return np.stack(heights, axis=-1) / eye_distance(points)[..., None]


def eyelid_shapes(vertices: np.ndarray) -> np.ndarray:
    """Offsets (2, 468, 3) that close the right and the left eye of a mesh (468, 3): at weight 1 the lids touch.

    The upper lid comes down to the lower one, the skin fold above follows it a part of the way.
    """
    mirror = mirror_index()
    shapes = np.zeros((2, VERTICES, 3), dtype=vertices.dtype)
    rows = [np.array(group) for group in (UPPER_LID, LOWER_LID, UPPER_FOLD, LOWER_FOLD)]
    for shape, groups in zip(shapes, (rows, [mirror[row] for row in rows]), strict=True):
        upper, lower, upper_fold, lower_fold = groups
        gap = vertices[lower] - vertices[upper]
        shape[upper] = gap * (1 - MEETING_LINE)
        shape[lower] = -gap * MEETING_LINE
        shape[upper_fold] = gap * _UPPER_FOLD_SHARE
        shape[lower_fold] = -gap * _LOWER_FOLD_SHARE
    return shapes


def eyelid_closure(vertices: np.ndarray, neutral: np.ndarray) -> np.ndarray:
    """How far the right and the left eye are closed, (..., 2): 0 as at rest, 1 shut, below 0 wider than at rest."""
    return 1 - eye_opening(vertices) / np.maximum(eye_opening(neutral), 1e-6)
