"""What in a portrait keeps it from speaking well, in one line.

Numbers that name no source were chosen by eye on portraits; the trials are not recorded.
"""

from __future__ import annotations

import numpy as np

from ...models.face.face_mesh import INNER_LOWER_LIP, INNER_UPPER_LIP, LEFT_EYE, OUTER_EYE_CORNERS, RIGHT_EYE
from ..errors import TalkingPortraitError
from .renderer.portrait_mesh import PortraitMesh

OPEN_MOUTH = 0.16
"""Lip opening in eye distances from which a mouth is open wider than a smile."""
SHUT_EYE = 0.1
"""Height of an eye over its width below which it is shut."""
SMALL_FACE = 30
"""Pixels between the outer eye corners below which a face is small."""
UPSIDE_DOWN, LYING = 135.0, 60.0
"""Degrees by which the line of the eyes is turned in a picture that is upside down, or that lies on its side."""
LIP_CONTRAST, LINE_CONTRAST = 0.06, 0.14
"""Differences of brightness, over that around the mouth, between lips and what is around them, and across the mouth,
below both of which there is something in front of it."""
DARK_SKIN = 0.3
"""Brightness that the mouth's surroundings count for at least, so that noise in the dark is no contrast."""
LIPS = (0, 17, 37, 267, 84, 314, 16, 85, 315, 11, 12, 15, 38, 268, 86, 316)
AROUND = (164, 167, 393, 18, 200, 199, 83, 313, 201, 421, 92, 322, 165, 391)
ACROSS = ((37, 84), (0, 17), (267, 314))
"""Vertices above and below the mouth, between which its brightness is compared."""


def check_upright(mesh: PortraitMesh) -> None:
    """Raises TalkingPortraitError for a picture that is upside down."""
    turned = abs(_roll(mesh))
    if turned > UPSIDE_DOWN:
        raise TalkingPortraitError(
            f"The portrait is upside down (its eyes' line is turned by {turned:.0f} degrees), but an upright face is "
            "expected; rotate the picture by 180 degrees and detect its landmarks again."
        )


def source_note(picture: np.ndarray, mesh: PortraitMesh) -> str:
    """One line about what the portrait (H, W, 3) in 0..1 lacks, or ""."""
    found = []
    if abs(_roll(mesh)) > LYING:
        found.append("the face lies on its side, so it moves as if the picture were rotated")
    if mesh.eye_distance < SMALL_FACE:
        found.append(
            f"the face is very small ({mesh.eye_distance:.0f} pixels between the eyes' outer corners), so little of "
            "its speech is visible"
        )
    if _mouth_is_hidden(picture, mesh):
        found.append("something covers the mouth, so lips are drawn over it")
    elif _lip_gap(mesh) > OPEN_MOUTH:
        found.append("the mouth is wide open, so lips that close are stretched")
    if all(_opening(mesh, ring) < SHUT_EYE for ring in (RIGHT_EYE, LEFT_EYE)):
        found.append("the eyes are shut, so they stay shut")
    if not found:
        return ""
    return f"In this portrait {'; '.join(found)}. A face from the front with closed lips and open eyes speaks best."


def _roll(mesh: PortraitMesh) -> float:
    """Degrees from -180 to 180 by which the line of the eyes is turned in the picture."""
    right, left = mesh.points[list(OUTER_EYE_CORNERS)]
    return float(np.degrees(np.arctan2(left[1] - right[1], left[0] - right[0])))


def _lip_gap(mesh: PortraitMesh) -> float:
    """Lip opening in eye distances."""
    gap = mesh.points[INNER_LOWER_LIP] - mesh.points[INNER_UPPER_LIP]
    return float(np.linalg.norm(gap)) / mesh.eye_distance


def _opening(mesh: PortraitMesh, ring: tuple[int, ...]) -> float:
    """Height of an eye over its width."""
    points = mesh.points
    x, y = points[ring[8]] - points[ring[0]]
    height = points[ring[12]] - points[ring[4]]
    return float(abs(height @ np.array([-y, x])) / max(x * x + y * y, 1e-6))


def _mouth_is_hidden(picture: np.ndarray, mesh: PortraitMesh) -> bool:
    """Whether nothing differs in colour or brightness where lips are to be."""
    points = mesh.points
    lips, around = (_colours(picture, points[list(ring)]) for ring in (LIPS, AROUND))
    light = max(float(np.median(around)), DARK_SKIN)
    if np.abs(np.median(lips, axis=0) - np.median(around, axis=0)).max() > LIP_CONTRAST * light:
        return False
    way = np.linspace(-0.2, 1.2, 50)[:, None]
    across = np.stack([_colours(picture, points[up] + (points[down] - points[up]) * way) for up, down in ACROSS])
    return float(np.ptp(across.mean(axis=(0, 2)))) < LINE_CONTRAST * light


def _colours(picture: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Colours (N, 3) of a picture at points (N, 2)."""
    from scipy.ndimage import map_coordinates

    places = [points[:, 1] - 0.5, points[:, 0] - 0.5]
    return np.stack([map_coordinates(picture[..., k], places, order=1, mode="nearest") for k in range(3)], axis=-1)
