"""Regions of the canonical face around its mouth, and how far its vertices go with the lips.

Numbers were chosen by eye on portraits, but for those of the jaw, which are of recorded speakers.
"""

from __future__ import annotations

import numpy as np

from ..curves import smoothstep
from .face_mesh import INNER_MOUTH_CORNERS, LIPS_INNER, face_mesh

UPPER_INNER_LIP = LIPS_INNER[1:10]
LOWER_INNER_LIP = LIPS_INNER[:10:-1]
"""Both from the right to the left mouth corner, without the corners; entry i of one lies over entry i of the other."""
MOUTH_CORNERS = INNER_MOUTH_CORNERS
"""Between them the lips part."""
UPPER_CHAIN = [MOUTH_CORNERS[0], *UPPER_INNER_LIP, MOUTH_CORNERS[1]]
LOWER_CHAIN = [MOUTH_CORNERS[0], *LOWER_INNER_LIP, MOUTH_CORNERS[1]]


def below_nose() -> np.ndarray:
    """1 (468,) on lips and jaw, 0 from the nose up."""
    return smoothstep(-1.0, -2.5, face_mesh().vertices[:, 1])


def under_nose() -> np.ndarray:
    """1 (468,) on the skin between nose and mouth and on the upper lip, fading beside them."""
    x, y = np.abs(face_mesh().vertices[:, 0]), face_mesh().vertices[:, 1]
    return smoothstep(3.0, 1.6, x) * smoothstep(-1.8, -2.4, y) * smoothstep(-4.7, -4.1, y)


def jaw_part() -> np.ndarray:
    """Part (468,) in which vertices go down with the chin beyond the mesh's own movement, as recorded speakers' do."""
    x, y = np.abs(face_mesh().vertices[:, 0]), face_mesh().vertices[:, 1]
    # It begins below the lower lip, and at the sides below the ears.
    begins = -5.3 + 2.8 * smoothstep(3.0, 6.0, x)
    # A jaw turns about its hinge, to which its sides are nearer.
    return smoothstep(0.0, 1.0, (begins - y) / (begins + 8.0)) * (0.45 + 0.55 * np.exp(-((x / 2.2) ** 2) / 2))


def mouth_part() -> np.ndarray:
    """1 (468,) on the lips, falling to 0 two mouth heights away."""
    canonical = face_mesh().vertices
    lips = canonical[list(LIPS_INNER)]
    distance = np.linalg.norm(canonical[:, None, :2] - lips[None, :, :2], axis=-1).min(axis=1)
    return np.clip(1 - distance / 3.0, 0, 1) ** 2


def beside_mouth() -> tuple[np.ndarray, np.ndarray]:
    """Places (468,) along the lips from 0 in the middle to 1 at the corners; 1 (468,) there, fading over the cheeks."""
    x, y = face_mesh().vertices[:, 0], face_mesh().vertices[:, 1]
    corner = face_mesh().vertices[MOUTH_CORNERS[1]]
    beyond = (np.abs(x) - corner[0]).clip(min=0) / 1.7
    over = (y - corner[1]) / np.where(y > corner[1], 2.4, 1.8)
    return np.clip(np.abs(x) / corner[0], 0, 1), np.exp(-(beyond**2 + over**2) / 2)


def corner_part() -> np.ndarray:
    """Part (468,) in which vertices go with the mouth's corners: nothing at the middle of the lips."""
    along, around = beside_mouth()
    return along**2 * around


def lip_followers() -> tuple[np.ndarray, np.ndarray]:
    """Matrices (468, 11): how all vertices follow the points of the upper, and of the lower, inner lip and its corners.

    Each fades into the skin around; nothing follows both lips except beside the corners.
    """
    canonical = face_mesh().vertices.astype(np.float64)
    x, y = canonical[:, 0], canonical[:, 1]
    above, below = _side()
    fade = 1 - smoothstep(2.2, 3.6, np.abs(x))
    fade *= 1 - smoothstep(-2.9, -1.9, y)
    matrices = []
    for chain, side in ((UPPER_CHAIN, ~below), (LOWER_CHAIN, below)):
        along = np.exp(-(((x[:, None] - x[chain][None]) / 0.45) ** 2) / 2)
        along /= along.sum(axis=1, keepdims=True) + 1e-9
        away = np.abs(y - np.interp(x, x[chain], y[chain]))
        follows = (side * fade * np.exp(-((away / 1.2) ** 2) / 2))[:, None] * along
        follows[chain] = np.eye(len(chain))
        matrices.append(follows)
    matrices[1][list(MOUTH_CORNERS)] = 0
    return matrices[0], matrices[1]


def thickening() -> np.ndarray:
    """Rise (468,) in cm with which lips pucker: their outer borders move away from the line where they meet."""
    canonical = face_mesh().vertices
    above, below = _side()
    outwards = np.abs(above) / np.where(below, 0.8, 0.6)
    bump = outwards * np.exp((1 - outwards**2) / 2) * np.exp(-((canonical[:, 0] / 1.8) ** 2) / 2)
    bump *= 1 - smoothstep(-2.9, -2.1, canonical[:, 1])
    bump[[*UPPER_INNER_LIP, *LOWER_INNER_LIP]] = 0
    return np.where(below, -0.20, 0.14) * bump


def _side() -> tuple[np.ndarray, np.ndarray]:
    """Height (468,) above the line where the lips meet on the canonical face; whether a vertex is of the lower side."""
    canonical = face_mesh().vertices
    x = canonical[UPPER_CHAIN, 0]
    line = np.interp(canonical[:, 0], x, (canonical[UPPER_CHAIN, 1] + canonical[LOWER_CHAIN, 1]) / 2)
    above = canonical[:, 1] - line
    below = above < 0
    below[list(UPPER_INNER_LIP)] = False
    below[list(LOWER_INNER_LIP)] = True
    return above, below
