"""The lower face of a frame laid out flat: each texel is the same place of the skin in every frame."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from .....models.face.face_mesh import LIPS_INNER, LIPS_OUTER, eye_distance, face_mesh, mouth_opening
from ....face.flat_face import Layout, laid_flat, lay_out
from ....packages import load_opencv

TEXELS_PER_EYE_DISTANCE = 64
SIDE, TOP, BOTTOM = 7.0, 1.0, -8.6
"""Cm in the canonical head that the texture reaches: to either side, up to below the eyes, and down to the chin."""
SEEN_MIDDLE, SEEN_SIDE, SIDE_FROM = 0.2, 0.5, 4.0
"""Part of its area from the front that a triangle must have in a frame to be compared there: little in the middle,
where what hides a face distorts its landmarks, and more so many cm from it, where a turned face ends."""
BESIDE_HIDDEN = 5
"""Texels across around those that are not compared in which none is: landmarks of a turned face's edge are off."""


@dataclass(frozen=True)
class TextureGrid(Layout):
    """The lower face's texels; `lips` (H, W) marks the lips, `between_lips` where they meet."""

    lips: np.ndarray
    between_lips: np.ndarray

    def column(self, x: float) -> int:
        return round((x + SIDE) * self.per_cm)

    def row(self, y: float) -> int:
        return round((TOP - y) * self.per_cm)


@dataclass(frozen=True)
class Texture:
    """Colours (H, W, 3) of texels in 0..255, where they are `visible` (H, W), and the `opening` in eye distances.

    `steps` across the lips' edges as `edge_steps` has them, of frames that were kept with an open mouth.
    """

    colours: np.ndarray
    visible: np.ndarray
    opening: float
    steps: np.ndarray | None = None


def texture_of(frame: np.ndarray, points: np.ndarray) -> Texture:
    """The texture of a frame (H, W, 3), bytes or floats in 0..1, with landmarks (468, 2 or more) in pixels."""
    cv2 = load_opencv()
    grid = texture_grid()
    colours, inside = laid_flat(frame, points, grid)
    visible = np.zeros(grid.on_face.shape, bool)
    side = np.abs(grid.x) > SIDE_FROM
    least = np.where(side[grid.on_face], SEEN_SIDE, SEEN_MIDDLE)
    visible[grid.on_face] = inside & (grid.turned_to_camera(points) > least)
    hidden = (side & grid.on_face & ~visible).astype(np.uint8)
    beside_hidden = cv2.dilate(hidden, np.ones((BESIDE_HIDDEN, BESIDE_HIDDEN), np.uint8)) > 0
    return Texture(colours, visible & ~beside_hidden, float(mouth_opening(points[:, :2].astype(np.float32))))


@cache
def texture_grid() -> TextureGrid:
    """The grid of texels, made once."""
    cv2 = load_opencv()
    canonical = face_mesh().vertices.astype(np.float64)
    layout = lay_out(SIDE, TOP, BOTTOM, TEXELS_PER_EYE_DISTANCE / float(eye_distance(face_mesh().vertices)))
    lips, slit = np.zeros(layout.x.shape, np.uint8), np.zeros(layout.x.shape, np.uint8)
    for image, contour in ((lips, LIPS_OUTER), (slit, LIPS_INNER)):
        outline = np.stack([canonical[list(contour), 0] + SIDE, TOP - canonical[list(contour), 1]], axis=-1)
        corners = np.rint(outline * layout.per_cm - 0.5).astype(np.int32)
        cv2.fillPoly(image, [corners], 1)
        cv2.polylines(image, [corners], True, 1)
    around = np.ones((3, 3), np.uint8)
    return TextureGrid(**vars(layout), lips=cv2.dilate(lips, around) > 0, between_lips=cv2.dilate(slit, around) > 0)
