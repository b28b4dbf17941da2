"""Shapes of the upper face as vertex offsets on the 468-point mesh: eyelids, brows, cheeks.

Names are those of the 52 ARKit blendshapes that MediaPipe reports (models/face/face_mesh.py). Offsets are in cm in the
head's frame and add up linearly: a weight of 0 is rest and 1 the full shape. Brows and cheeks are smooth bumps laid out
by hand on the canonical head; eyelids are made from the mesh they act on, so that they close on any face.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from ..curves import smoothstep
from .face_mesh import LEFT_EYE, OUTER_EYE_CORNERS, RIGHT_EYE, VERTICES, face_mesh, mirror_index

MEETING = 0.12
"""Where the lids meet, as a part of the opening above the lower lid: it rises a little, the upper lid does the rest."""

# Vertices around the right eye, outside to inside. Lid edges are paired; folds lie next to them, away from the eye.
_UPPER_LID = RIGHT_EYE[1:8]
_LOWER_LID = tuple(reversed(RIGHT_EYE[9:]))
_UPPER_FOLD = (247, 30, 29, 27, 28, 56, 190)
_LOWER_FOLD = (25, 110, 24, 23, 22, 26, 112)
_UPPER_FOLD_SHARE = 0.38
"""How far the fold above the upper lid follows the lid, as a part of the opening."""
_LOWER_FOLD_SHARE = 0.05

_SIDED = ("eyeBlink", "eyeWide", "eyeSquint", "browDown", "browOuterUp", "cheekSquint")
SHAPES = ("browInnerUp", *(f"{name}{side}" for name in _SIDED for side in ("Left", "Right")))
"""The blendshapes that this module gives form to."""


def eye_opening(points: np.ndarray) -> np.ndarray:
    """Height of the right and the left eye's opening over the distance of the outer eye corners.

    `points` (..., P, 3) in any unit; returns (..., 2).
    """
    right, left = OUTER_EYE_CORNERS
    width = np.linalg.norm(points[..., right, :] - points[..., left, :], axis=-1)[..., None]
    heights = []
    for ring in (RIGHT_EYE, LEFT_EYE):
        upper, lower = list(ring[3:6]), list(ring[13:10:-1])
        gap = np.linalg.norm(points[..., upper, :] - points[..., lower, :], axis=-1)
        heights.append(gap.mean(axis=-1))
    return np.stack(heights, axis=-1) / np.maximum(width, 1e-6)


def eyelid_shapes(vertices: np.ndarray) -> np.ndarray:
    """Offsets (2, 468, 3) that close the right and the left eye of a mesh (468, 3): at weight 1 the lids touch.

    The upper lid comes down to the lower one, the skin fold above follows it a part of the way.
    """
    mirror = mirror_index()
    shapes = np.zeros((2, VERTICES, 3), dtype=vertices.dtype)
    rows = [np.array(group) for group in (_UPPER_LID, _LOWER_LID, _UPPER_FOLD, _LOWER_FOLD)]
    for shape, groups in zip(shapes, (rows, [mirror[row] for row in rows]), strict=True):
        upper, lower, upper_fold, lower_fold = groups
        gap = vertices[lower] - vertices[upper]
        shape[upper] = gap * (1 - MEETING)
        shape[lower] = -gap * MEETING
        shape[upper_fold] = gap * _UPPER_FOLD_SHARE
        shape[lower_fold] = -gap * _LOWER_FOLD_SHARE
    return shapes


def eyelid_closure(vertices: np.ndarray, neutral: np.ndarray) -> np.ndarray:
    """How far the right and the left eye are closed, (..., 2): 0 as at rest, 1 shut, below 0 wider than at rest."""
    return 1 - eye_opening(vertices) / np.maximum(eye_opening(neutral), 1e-6)


@cache
def upper_face_shapes() -> dict[str, np.ndarray]:
    """Offsets (468, 3) float32 on the canonical mesh for every name in SHAPES; read-only."""
    mesh = face_mesh().vertices.astype(np.float64)
    closing = dict(zip(("Right", "Left"), eyelid_shapes(mesh), strict=True))
    right = {
        "browOuterUp": _brow(mesh, rise=0.5, inward=0.0, inner=1.2, outer=4.0, reach=7.8),
        "browDown": _brow(mesh, rise=-0.38, inward=0.16, inner=-1.0, outer=0.6, reach=5.2),
        "cheekSquint": _cheek(mesh),
        "eyeWide": _wide(mesh, closing["Right"]),
        "eyeSquint": closing["Right"] * 0.3,
    }
    shapes = {"browInnerUp": _both(_brow(mesh, rise=0.6, inward=0.0, inner=-2.0, outer=-1.0, reach=4.6))}
    for side in ("Right", "Left"):
        shapes[f"eyeBlink{side}"] = closing[side]
        for name, offsets in right.items():
            shapes[f"{name}{side}"] = offsets if side == "Right" else _mirrored(offsets)
    table = {name: shapes[name].astype(np.float32) for name in SHAPES}
    for offsets in table.values():
        offsets.setflags(write=False)
    return table


def _brow(mesh: np.ndarray, *, rise: float, inward: float, inner: float, outer: float, reach: float) -> np.ndarray:
    """A lift of the right brow: full from `outer` to about `reach` - 2 cm from the middle, 0 at `inner` and `reach`.

    From the brow it fades up over the forehead, which stretches, and down towards the eyelids, which stay.
    """
    aside, height = -mesh[:, 0], mesh[:, 1]
    along = smoothstep(inner, outer, aside) * (1 - smoothstep(reach - 2.2, reach, aside))
    # The brow is an arch, so its height depends on the distance from the middle.
    arch = 4.6 + 0.35 * np.cos((np.clip(aside, 0, 6) - 3.2) / 2.2)
    below = smoothstep(arch - 1.75, arch - 0.35, height)
    above = 1 - smoothstep(arch + 0.4, 8.4, height)
    front = smoothstep(-0.5, 2.0, mesh[:, 2])
    weight = along * below * above * front
    # The forehead leans back, so what goes up also goes a little inwards.
    return weight[:, None] * np.array([inward, rise, -0.12 * rise])


def _cheek(mesh: np.ndarray) -> np.ndarray:
    """The right cheek bone's skin pushed up and out, the lower lid a little up with it."""
    centre, size = np.array([-3.4, 0.0]), np.array([1.5, 1.3])
    distance = (((mesh[:, :2] - centre) / size) ** 2).sum(axis=1)
    weight = np.exp(-distance) * smoothstep(0.6, 1.8, -mesh[:, 0]) * (1 - smoothstep(1.4, 2.2, mesh[:, 1]))
    offsets = weight[:, None] * np.array([-0.03, 0.26, 0.1])
    lid = eyelid_shapes(mesh)[0]
    lower = np.array(_LOWER_LID + _LOWER_FOLD)
    offsets[lower] += lid[lower] * 0.6
    return offsets


def _wide(mesh: np.ndarray, closing: np.ndarray) -> np.ndarray:
    """The right upper lid drawn up by a fifth of the opening."""
    offsets = np.zeros_like(mesh)
    upper = np.array(_UPPER_LID + _UPPER_FOLD)
    offsets[upper] = -0.2 * closing[upper]
    return offsets


def _mirrored(offsets: np.ndarray) -> np.ndarray:
    return offsets[mirror_index()] * np.array([-1, 1, 1])


def _both(right: np.ndarray) -> np.ndarray:
    """A shape and its mirror image; where both reach, in the middle, the stronger one counts."""
    left = _mirrored(right)
    stronger = np.linalg.norm(right, axis=1) >= np.linalg.norm(left, axis=1)
    return np.where(stronger[:, None], right, left)
