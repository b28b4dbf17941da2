"""Shapes of the upper face as vertex offsets on the 468-point mesh: eyelids, brows, cheeks.

Names are those of the 52 ARKit blendshapes that MediaPipe reports (models/face/face_mesh.py). Offsets are in cm in the
head's frame and add up linearly: a weight of 0 is rest and 1 the full shape. Brows and cheeks are smooth bumps laid out
by hand on the canonical head; eyelids are those of `eyelid_shapes`.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from ..curves import smoothstep
from .eyelid_shapes import LOWER_FOLD, LOWER_LID, UPPER_FOLD, UPPER_LID, eyelid_shapes
from .face_mesh import face_mesh, mirror_index

_SIDED = ("eyeBlink", "eyeWide", "eyeSquint", "browDown", "browOuterUp", "cheekSquint")
SHAPES = ("browInnerUp", *(f"{name}{side}" for name in _SIDED for side in ("Left", "Right")))
"""The blendshapes that this module gives form to."""


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
    lower = np.array(LOWER_LID + LOWER_FOLD)
    offsets[lower] += lid[lower] * 0.6
    return offsets


def _wide(mesh: np.ndarray, closing: np.ndarray) -> np.ndarray:
    """The right upper lid drawn up by a fifth of the opening."""
    offsets = np.zeros_like(mesh)
    upper = np.array(UPPER_LID + UPPER_FOLD)
    offsets[upper] = -0.2 * closing[upper]
    return offsets


def _mirrored(offsets: np.ndarray) -> np.ndarray:
    return offsets[mirror_index()] * np.array([-1, 1, 1])


def _both(right: np.ndarray) -> np.ndarray:
    """A shape and its mirror image; where both reach, in the middle, the stronger one counts."""
    left = _mirrored(right)
    stronger = np.linalg.norm(right, axis=1) >= np.linalg.norm(left, axis=1)
    return np.where(stronger[:, None], right, left)
