"""A face of a picture laid out flat by its mesh: each texel is the same place of the skin in every picture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from ...models.face.face_mesh import eye_distance, face_mesh
from ..packages import load_opencv

STEEP = 0.35
"""Least part of a triangle's area that is seen from the front, for it to have texels."""
MARGIN = 4
"""Pixels around the texels that are cut out of a picture."""


@dataclass(frozen=True)
class Layout:
    """Where the texels (H, W) are: `x`, `y` in cm in the canonical head, `per_cm` of them in a cm.

    `on_face` (H, W) bool marks those that the mesh has, whose triangles are `triangle` (n,) and weights of corners
    `corners` (n, 3) are `weights` (n, 3), in the order of the mask.
    """

    x: np.ndarray
    y: np.ndarray
    per_cm: float
    on_face: np.ndarray
    triangle: np.ndarray
    corners: np.ndarray
    weights: np.ndarray

    def places(self, points: np.ndarray) -> np.ndarray:
        """Places (n, 2) in pixels of the texels on the face, for landmarks (468, 2 or more)."""
        return np.einsum("nk,nkc->nc", self.weights, points[:, :2].astype(np.float32)[self.corners])

    def turned_to_camera(self, points: np.ndarray) -> np.ndarray:
        """The part (n,) of a frontal face's area that the texels have in a picture with landmarks (468, 2 or more).

        It is 0 or less where they face away.
        """
        points = points[:, :2].astype(np.float32)
        area = _areas(points) / max(float(eye_distance(points)), 1.0) ** 2 / _frontal_areas()
        return -area[self.triangle]


def lay_out(side: float, top: float, bottom: float, per_cm: float) -> Layout:
    """The texels of the canonical head from `bottom` to `top` and so many cm to either side."""
    width, height = round(2 * side * per_cm), round((top - bottom) * per_cm)
    x, y = np.meshgrid((np.arange(width) + 0.5) / per_cm - side, top - (np.arange(height) + 0.5) / per_cm)
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
    triangle = chosen[on_face]
    return Layout(
        x.astype(np.float32),
        y.astype(np.float32),
        per_cm,
        on_face,
        triangle,
        triangles[triangle],
        weights[on_face].astype(np.float32),
    )


def laid_flat(picture: np.ndarray, points: np.ndarray, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Colours (H, W, 3) uint8 of the texels in a picture (h, w, 3), bytes or floats in 0..1, with landmarks in pixels,
    and which (n,) of those on the face lie within the picture. Beside the face colours mean nothing."""
    cv2 = load_opencv()
    places = layout.places(points)
    size = np.array(picture.shape[1::-1])
    x, y = places.T
    inside = (x >= 1) & (y >= 1) & (x < size[0] - 1) & (y < size[1] - 1)
    low = np.clip(np.floor([x.min(), y.min()]).astype(int) - MARGIN, 0, size - 2)
    high = np.clip(np.ceil([x.max(), y.max()]).astype(int) + MARGIN, low + 2, size)
    crop = picture[low[1] : high[1], low[0] : high[0]]
    crop = crop if crop.dtype == np.uint8 else np.rint(crop * 255).astype(np.uint8)
    eyes = max(float(eye_distance(points[:, :2].astype(np.float32))), 1.0)
    scale = layout.per_cm * float(eye_distance(face_mesh().vertices)) / eyes
    if scale < 1:
        width, height = (max(2, round(side * scale)) for side in high - low)
        crop = cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA)
    stretch = (np.array(crop.shape[1::-1]) / (high - low)).astype(np.float32)
    maps = np.full((*layout.on_face.shape, 2), -1, np.float32)
    maps[layout.on_face] = (places - low) * stretch - np.float32(0.5)
    return cv2.remap(crop, maps, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), inside


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
