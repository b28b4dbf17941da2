"""How a filmed face moves away from where it usually is, without two faults of landmarks.

A picture that is moved by jittering landmarks flickers. Where a chin's landmarks are too high under a wide mouth, the
skin between chin and lip, and the lip's red with it, is stretched as the mouth shuts.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from ....models.curves import smoothstep
from ....models.face.face_mesh import face_mesh

REACH, SPREAD = 8, 3.0
"""Frames on either side that are averaged, and the standard deviation of their weights."""
JITTER, QUICK = 0.006, 0.015
"""Eye distances by which the middle between two frames may lie beside the frame between them, about, for jitter: among
the frames around, and in this one, which may be the only one whose lips are shut."""
AROUND, TRUNCATED = 7.0, 2.5
"""Frames over which movement is averaged, as a mouth that speaks is quiet only for a moment, and how many of these
standard deviations are averaged. These and the numbers before were chosen on ten films and eight renders, by what is
left of the jitter and by what the renders' true movement loses."""
BESIDE = 1.5
"""Cm of the canonical head within which landmarks move alike, as a standard deviation."""
OVERLAP = REACH + round(AROUND * TRUNCATED)
"""Frames on either side that a frame depends on."""
LOWER_LIP, CHIN = [14, 17, 84, 87, 178, 314, 317, 402], [148, 152, 176, 377, 400]
HIGH_FROM, HIGH_PART = 0.02, 0.6
"""Eye distances by which a lower lip may go down without the chin, and the part of the rest by which the chin's
landmarks are too high. Chosen on eleven films, in which the chin laid flat then changes least."""
CHIN_TOP, CHIN_BOTTOM, CHIN_SIDE = (-5.3, -6.8), (-8.6, -7.4), (4.0, 2.5)
"""Cm in the canonical head between which skin becomes the chin's, from above, from below and from either side: the
face's outline stays, as neck and background would move with it."""


def steadied(moved: np.ndarray) -> np.ndarray:
    """Movements (F, 468, 2) in eye distances, averaged over time where they are no larger than jitter is.

    Frames are averaged in pairs, one before and one after, and each pair counts as far as its mean lies where the frame
    is: steady movement is not delayed, and lips that close quickly keep their movement.
    """
    from scipy.ndimage import gaussian_filter1d

    count = len(moved)
    padded = np.pad(moved, [(REACH, REACH), (0, 0), (0, 0)], mode="reflect" if count > 1 else "edge")
    total, weights = moved.copy(), np.ones(moved.shape[:2])
    alike = np.ones(moved.shape[:2])
    for step in range(1, REACH + 1):
        pairs = (padded[REACH - step :][:count] + padded[REACH + step :][:count]) / 2
        beside = ((pairs - moved) ** 2).sum(axis=-1) @ _neighbours()
        around = gaussian_filter1d(beside, AROUND, axis=0, mode="nearest", truncate=TRUNCATED)
        alike = np.minimum(alike, np.exp(-around / JITTER**2 - beside / QUICK**2))
        weight = 2 * np.exp(-0.5 * (step / SPREAD) ** 2) * alike
        total += weight[..., None] * pairs
        weights += weight
    return total / weights[..., None]


def with_chin_below_lip(moved: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Movements (F, 468, 2) in eye distances whose chin follows a lower lip that goes far `down`, directions (F, 2)."""
    lip, chin = (np.einsum("nvk,nk->nv", moved[:, part], down).mean(axis=1) for part in (LOWER_LIP, CHIN))
    lower = HIGH_PART * np.maximum(lip - chin - HIGH_FROM, 0)
    aside, height, _ = face_mesh().vertices.T.astype(np.float64)
    weight = smoothstep(*CHIN_TOP, height) * smoothstep(*CHIN_BOTTOM, height) * smoothstep(*CHIN_SIDE, np.abs(aside))
    return moved + (lower[:, None] * weight)[..., None] * down[:, None]


@cache
def _neighbours() -> np.ndarray:
    """(468, 468): the weight of each landmark (row) for what is around each (column), which add up to 1."""
    places = face_mesh().vertices.astype(np.float64)
    square = ((places[:, None] - places) ** 2).sum(axis=-1)
    weights = np.exp(-0.5 * square / BESIDE**2)
    return weights / weights.sum(axis=0)
