"""The lower face of a frame laid out flat: each texel is the same place of the skin in every frame."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from ....models.face.face_mesh import LIPS_INNER, LIPS_OUTER, eye_distance, face_mesh, mouth_opening
from ...packages import load_opencv

TEXELS_PER_EYE_DISTANCE = 64
SIDE, TOP, BOTTOM = 7.0, 1.0, -8.6
"""Cm in the canonical head that the texture reaches: to either side, up to below the eyes, and down to the chin."""
STEEP = 0.35
"""Least part of a triangle's area that is seen from the front, for it to have texels."""
SEEN_MIDDLE, SEEN_SIDE, SIDE_FROM = 0.2, 0.5, 4.0
"""Part of its area from the front that a triangle must have in a frame to be compared there: little in the middle,
where what hides a face distorts its landmarks, and more so many cm from it, where a turned face ends."""
BESIDE_HIDDEN = 5
"""Texels across around those that are not compared in which none is: landmarks of a turned face's edge are off."""
MARGIN = 4
"""Pixels around the texels that are cut out of a frame."""


@dataclass(frozen=True)
class TextureGrid:
    """Where the texels (H, W) are: `x`, `y` in cm in the canonical head, and masks (H, W).

    `on_face` marks those that the mesh has, whose triangles are `triangle` (n,) and weights of corners `corners` (n, 3)
    are `weights` (n, 3), in the order of the mask. `lips` marks the lips, `between_lips` where they meet.
    """

    x: np.ndarray
    y: np.ndarray
    on_face: np.ndarray
    triangle: np.ndarray
    corners: np.ndarray
    weights: np.ndarray
    lips: np.ndarray
    between_lips: np.ndarray

    def column(self, x: float) -> int:
        return round((x + SIDE) * _texels_per_cm())

    def row(self, y: float) -> int:
        return round((TOP - y) * _texels_per_cm())

    def places(self, points: np.ndarray) -> np.ndarray:
        """Places (n, 2) in pixels of the texels on the face, for landmarks (468, 2 or more)."""
        return np.einsum("nk,nkc->nc", self.weights, points[:, :2].astype(np.float32)[self.corners])


@dataclass(frozen=True)
class Texture:
    """Colours (H, W, 3) of texels in 0..255, where they are `visible` (H, W), and the `opening` in eye distances."""

    colours: np.ndarray
    visible: np.ndarray
    opening: float


def texture_of(frame: np.ndarray, points: np.ndarray) -> Texture:
    """The texture of a frame (H, W, 3), bytes or floats in 0..1, with landmarks (468, 2 or more) in pixels."""
    cv2 = load_opencv()
    grid = texture_grid()
    points = points[:, :2].astype(np.float32)
    places = grid.places(points)
    size = np.array(frame.shape[1::-1])
    x, y = places.T
    low = np.clip(np.floor([x.min(), y.min()]).astype(int) - MARGIN, 0, size - 2)
    high = np.clip(np.ceil([x.max(), y.max()]).astype(int) + MARGIN, low + 2, size)
    crop = frame[low[1] : high[1], low[0] : high[0]]
    crop = crop if crop.dtype == np.uint8 else np.rint(crop * 255).astype(np.uint8)
    eyes = max(float(eye_distance(points)), 1.0)
    scale = TEXELS_PER_EYE_DISTANCE / eyes
    if scale < 1:
        width, height = (max(2, round(side * scale)) for side in high - low)
        crop = cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA)
    stretch = (np.array(crop.shape[1::-1]) / (high - low)).astype(np.float32)
    maps = np.full((*grid.on_face.shape, 2), -1, np.float32)
    maps[grid.on_face] = (places - low) * stretch - np.float32(0.5)
    colours = cv2.remap(crop, maps, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = (x >= 1) & (y >= 1) & (x < size[0] - 1) & (y < size[1] - 1)
    area = _areas(points) / eyes**2 / _frontal_areas()
    visible = np.zeros(grid.on_face.shape, bool)
    side = np.abs(grid.x) > SIDE_FROM
    visible[grid.on_face] = inside & (-area[grid.triangle] > np.where(side[grid.on_face], SEEN_SIDE, SEEN_MIDDLE))
    hidden = (side & grid.on_face & ~visible).astype(np.uint8)
    beside_hidden = cv2.dilate(hidden, np.ones((BESIDE_HIDDEN, BESIDE_HIDDEN), np.uint8)) > 0
    return Texture(colours, visible & ~beside_hidden, float(mouth_opening(points)))


@cache
def texture_grid() -> TextureGrid:
    """The grid of texels, made once."""
    cv2 = load_opencv()
    per_cm = _texels_per_cm()
    width, height = round(2 * SIDE * per_cm), round((TOP - BOTTOM) * per_cm)
    x, y = np.meshgrid((np.arange(width) + 0.5) / per_cm - SIDE, TOP - (np.arange(height) + 0.5) / per_cm)
    canonical, triangles = face_mesh().vertices.astype(np.float64), face_mesh().triangles
    normal = np.cross(*(canonical[triangles[:, k]] - canonical[triangles[:, 0]] for k in (1, 2)))
    frontal = np.abs(normal[:, 2]) / np.linalg.norm(normal, axis=1) > STEEP
    chosen = np.full(x.shape, -1)
    weights = np.zeros((*x.shape, 3))
    nearest = np.full(x.shape, -np.inf)
    for number in np.flatnonzero(frontal):
        first, second, third = canonical[triangles[number]]
        a, b = second[:2] - first[:2], third[:2] - first[:2]
        across, down = x - first[0], y - first[1]
        area = a[0] * b[1] - a[1] * b[0]
        u, v = (across * b[1] - down * b[0]) / area, (down * a[0] - across * a[1]) / area
        depth = first[2] * (1 - u - v) + second[2] * u + third[2] * v
        within = (np.minimum(u, v) >= 0) & (u + v <= 1) & (depth > nearest)
        nearest[within], chosen[within] = depth[within], number
        weights[within] = np.stack([1 - u - v, u, v], axis=-1)[within]
    on_face = chosen >= 0
    lips, slit = np.zeros(x.shape, np.uint8), np.zeros(x.shape, np.uint8)
    for image, contour in ((lips, LIPS_OUTER), (slit, LIPS_INNER)):
        outline = np.stack([canonical[list(contour), 0] + SIDE, TOP - canonical[list(contour), 1]], axis=-1) * per_cm
        corners = np.rint(outline - 0.5).astype(np.int32)
        cv2.fillPoly(image, [corners], 1)
        cv2.polylines(image, [corners], True, 1)
    around = np.ones((3, 3), np.uint8)
    triangle = chosen[on_face]
    return TextureGrid(
        x.astype(np.float32),
        y.astype(np.float32),
        on_face,
        triangle,
        triangles[triangle],
        weights[on_face].astype(np.float32),
        cv2.dilate(lips, around) > 0,
        cv2.dilate(slit, around) > 0,
    )


def _areas(points: np.ndarray) -> np.ndarray:
    """Twice the signed areas (898,) of the mesh's triangles, for points (468, 2)."""
    triangles = face_mesh().triangles
    a, b = (points[triangles[:, k]] - points[triangles[:, 0]] for k in (1, 2))
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


@cache
def _frontal_areas() -> np.ndarray:
    """Those of the canonical face, in squares of its eyes' distance."""
    vertices = face_mesh().vertices
    return _areas(vertices[:, :2]) / eye_distance(vertices) ** 2


def _texels_per_cm() -> float:
    return TEXELS_PER_EYE_DISTANCE / float(eye_distance(face_mesh().vertices))
