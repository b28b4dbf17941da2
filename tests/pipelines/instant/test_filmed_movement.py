"""How a filmed face moves, without the faults of its landmarks."""

from __future__ import annotations

import numpy as np
from talking_portrait.models.face.face_mesh import LIPS_OUTER
from talking_portrait.models.face.mouth_shapes import neutral_vertices
from talking_portrait.pipelines.instant.dub.mouth_motion import MouthMotion
from talking_portrait.pipelines.instant.dub.mouth_view import lip_edges
from talking_portrait.pipelines.instant.renderer.mouth_shape import LOWER_INNER_LIP, UPPER_INNER_LIP


def test_edges_of_lips_that_part_lie_no_farther_in_than_where_the_filmed_ones_meet():
    """A film's open lips have their edges within the landmarks; the corners of hardly open ones have no room for it."""
    points = neutral_vertices()[:, :2].astype(np.float64) * [10, -10] + 256
    points[list(LOWER_INNER_LIP), 1] += [0, 1, 2, 3, 4, 3, 2, 1, 0]
    moved = np.zeros((468, 2))
    moved[list(LOWER_INNER_LIP), 1] = 20
    basis = np.array([[10.0, 0, 0], [0, -10, 0]])
    edges = lip_edges(MouthMotion(points, moved, basis, points[13], 90.0, 0.5, (-0.1, -0.1)))
    upper, lower = (points[list(chain), 1].mean() for chain in (UPPER_INNER_LIP, LOWER_INNER_LIP))
    assert (edges.lower - edges.upper).min() > -1e-6
    assert points[list(LIPS_OUTER), 1].min() < edges.middle[1] + edges.upper.mean() < lower
    assert upper < edges.middle[1] + edges.lower.mean()
