"""How light falls on a portrait's skin, and how much more or less of it when the face moves.

One lamp and an even rest are fitted to the brightness of the skin over the normals of the mesh. Shadows that a face
throws on itself stay where they are in the picture.

Numbers that name no source were chosen by eye on portraits; the trials are not recorded.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from ....models.curves import soft_limit
from ....models.face.face_mesh import (
    LEFT_BROW,
    LEFT_EYE,
    LIPS_INNER,
    LIPS_OUTER,
    RIGHT_BROW,
    RIGHT_EYE,
    VERTICES,
    face_mesh,
    vertex_normals,
)
from ....models.face.mouth_regions import under_nose
from ...image.luma import LUMA
from .portrait_mesh import PortraitMesh

if TYPE_CHECKING:
    from scipy.sparse import csr_array

SHARE = 0.8
"""Part of the computed change that is drawn: much of what skin reflects comes from below its surface."""
EASED_CHANGE, MOST_CHANGE = 0.08, 0.16
"""Parts of its light that skin gains or loses from which that is eased, and at most."""
UNDER_NOSE = 0.3
"""Part of its gain that skin between nose and mouth has: puckered, it turns up to light that the nose keeps away."""
VISIBLE = 0.35
"""Cosine to the view from which a vertex's skin is measured."""
STRONGEST_LAMP, LEAST_LIGHT = 0.8, 0.3
"""Most light of the lamp beside the even rest, and least light of any skin beside the mean."""
ROUNDS = 4
"""Times that skin is fitted anew without what lies far off: hair, beards, spectacles."""


class FaceLight:
    """The lamp of one portrait."""

    def __init__(self, picture: np.ndarray, mesh: PortraitMesh) -> None:
        """`picture` (H, W, 3) in 0..1."""
        self.mesh = mesh
        self.skin = np.ones(VERTICES)
        self.skin[[*RIGHT_EYE, *LEFT_EYE, *LIPS_INNER]] = 0
        self.gain = 1 - (1 - UNDER_NOSE) * under_nose()
        """(468,): part of the light that is gained there."""
        normals = self._normals(mesh.vertices[None], np.eye(3)[None])[0]
        measured = mesh.facing() > VISIBLE
        measured[[*RIGHT_EYE, *LEFT_EYE, *RIGHT_BROW, *LEFT_BROW, *LIPS_INNER, *LIPS_OUTER]] = False
        self.even, self.lamp = _fitted(_brightness(picture, mesh.points[measured]), normals[measured])
        self.rest = self._light(normals)

    def change(self, offsets: np.ndarray, camera_motion: np.ndarray) -> np.ndarray:
        """Factors (B, 468) of the skin's brightness when vertices move by `offsets` (B, 468, 3) in the head's frame.

        `camera_motion` (B, 4, 4) as in `PoseAndShape`.
        """
        normals = self._normals(self.mesh.vertices + offsets, camera_motion[:, :3, :3])
        change = SHARE * (self._light(normals) / self.rest - 1) * self.skin
        change = np.sign(change) * soft_limit(np.abs(change), EASED_CHANGE, MOST_CHANGE)
        return 1 + np.where(change > 0, self.gain * change, change)

    def _light(self, normals: np.ndarray) -> np.ndarray:
        return np.maximum(self.even + normals @ self.lamp, LEAST_LIGHT)

    def _normals(self, vertices: np.ndarray, turn: np.ndarray) -> np.ndarray:
        """Normals (B, 468, 3) in camera space, evened out over neighbours as the mesh is coarse."""
        normals = vertex_normals(vertices @ self.mesh.matrix[:3, :3].T)
        by_vertex = _neighbours() @ normals.swapaxes(0, 1).reshape(VERTICES, -1)
        normals = by_vertex.reshape(VERTICES, -1, 3).swapaxes(0, 1)
        normals = normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
        return normals @ turn.transpose(0, 2, 1)


def _brightness(picture: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Of the skin around points (N, 2), (N,)."""
    height, width = picture.shape[:2]
    reach = np.arange(-1, 2)
    x = np.clip(points[:, 0].astype(int)[:, None, None] + reach[None, :, None], 0, width - 1)
    y = np.clip(points[:, 1].astype(int)[:, None, None] + reach[None, None, :], 0, height - 1)
    return (picture[y, x].astype(np.float64) @ LUMA).mean(axis=(1, 2))


def _fitted(light: np.ndarray, normals: np.ndarray) -> tuple[float, np.ndarray]:
    """The even light and the lamp (3,) that explain `light` (N,) at `normals` (N, 3), where the mean of all is 1."""
    if len(light) < 30 or light.mean() < 0.02:
        return 1.0, np.zeros(3)
    light = light / light.mean()
    middle = normals.mean(axis=0)
    terms = np.column_stack([np.ones(len(light)), normals - middle])
    weights, found = np.ones(len(light)), np.array([1.0, 0, 0, 0])
    for _ in range(ROUNDS):
        weighted = terms * weights[:, None]
        damping = np.diag([0.0, 1, 1, 1]) * 0.02 * weights.sum()
        found = np.linalg.solve(weighted.T @ terms + damping, weighted.T @ light)
        rest = np.abs(light - terms @ found)
        weights = 1 / (1 + (rest / (2 * np.median(rest) + 1e-3)) ** 4)
    lamp = found[1:] / max(found[0], 0.2)
    lamp = lamp * min(1.0, STRONGEST_LAMP / max(float(np.linalg.norm(lamp)), 1e-9))
    return 1 - float(lamp @ middle), lamp


@cache
def _neighbours() -> csr_array:
    """The matrix (468, 468) that takes the mean over each vertex and those around it, twice.

    Sparse not only as most of it is 0: NumPy divides products of full matrices of this size among threads of its own,
    which then spin for longer than the product takes, on the processors that draw frames.
    """
    from scipy.sparse import csr_array

    near = np.eye(VERTICES)
    triangles = face_mesh().triangles
    for one, other in ((0, 1), (1, 2), (2, 0)):
        near[triangles[:, one], triangles[:, other]] = near[triangles[:, other], triangles[:, one]] = 1
    near /= near.sum(axis=1, keepdims=True)
    return csr_array(near @ near)
