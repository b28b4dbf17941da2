"""MediaPipe's face mesh: the canonical head, its triangles, and the names of its points.

The table `face_mesh.safetensors` holds published figures of the MediaPipe canonical face model (Apache-2.0,
Copyright The MediaPipe Authors): 468 vertices in cm (x to the face's left, y up, z out of the face), texture
coordinates, 898 triangles and 33 Procrustes weights. Index groups are MediaPipe's; "left" is the person's left.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array

SHIPPED = Path(__file__).with_suffix(".safetensors")
"""The table that comes with the pack."""
VERTICES = 468
"""Points of the mesh; landmarkers add ten iris points, 468 to 477."""

INNER_UPPER_LIP, INNER_LOWER_LIP = 13, 14
OUTER_UPPER_LIP, OUTER_LOWER_LIP = 0, 17
OUTER_MOUTH_CORNERS, INNER_MOUTH_CORNERS = (61, 291), (78, 308)
"""The right and the left one, of the rings LIPS_OUTER and LIPS_INNER."""
OUTER_EYE_CORNERS = (33, 263)
"""The right and the left eye's outer corner; their distance is the unit for lip openings."""
INNER_EYE_CORNERS = (133, 362)
NOSE_TIP, NOSE_BASE, NOSE_BRIDGE, CHIN = 1, 2, 168, 152
CHEEKS = (205, 50, 425, 280)
"""Two on the right and two on the left cheek, below the eyes and beside the nose."""

LIPS_OUTER = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
"""Ring from the right mouth corner over the upper lip to the left corner and back below."""
LIPS_INNER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
"""The same ring along the line where the lips meet."""
RIGHT_EYE = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)
"""Ring from the outer corner over the upper lid to the inner corner and back along the lower lid."""
LEFT_EYE = (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249)
RIGHT_BROW = (46, 53, 52, 65, 55, 70, 63, 105, 66, 107)
"""Lower edge from outside to inside, then the upper edge."""
LEFT_BROW = (276, 283, 282, 295, 285, 300, 293, 334, 296, 336)
FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
"""Silhouette ring, from the top of the forehead by the person's left round to the right."""

BLENDSHAPES = (
    "_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight",
    "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker",
    "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft",
    "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight",
)  # fmt: skip


@dataclass(frozen=True)
class FaceMesh:
    """`vertices` (468, 3) cm, `uv` (468, 2) in 0..1 from the top left, `triangles` (898, 3), `procrustes` (468,)."""

    vertices: np.ndarray
    uv: np.ndarray
    triangles: np.ndarray
    procrustes: np.ndarray


@cache
def face_mesh() -> FaceMesh:
    """The canonical mesh, read once; its arrays are read-only."""
    from safetensors.numpy import load_file

    from ..weight_files import read_shipped

    table = read_shipped(SHIPPED, load_file)
    mesh = FaceMesh(
        vertices=table["vertices"],
        uv=table["uv"],
        triangles=table["triangles"].astype(np.int64),
        procrustes=table["procrustes_weights"],
    )
    for array in vars(mesh).values():
        array.setflags(write=False)
    return mesh


def mouth_opening(points: np.ndarray) -> np.ndarray:
    """Distance of the inner lips over that of the outer eye corners, for points (..., P, 3) in any unit."""
    lips = np.linalg.norm(points[..., INNER_UPPER_LIP, :] - points[..., INNER_LOWER_LIP, :], axis=-1)
    return lips / eye_distance(points)


def eye_distance(points: np.ndarray) -> np.ndarray:
    """Distance (...) of the outer eye corners of points (..., P, 2 or 3), in their unit and above 0."""
    right, left = OUTER_EYE_CORNERS
    return np.maximum(np.linalg.norm(points[..., right, :] - points[..., left, :], axis=-1), 1e-6)


@cache
def mirror_index() -> np.ndarray:
    """For each of the 468 vertices, the one on the other side of the face."""
    vertices = face_mesh().vertices
    mirrored = vertices * np.array([-1, 1, 1], dtype=vertices.dtype)
    distance = np.linalg.norm(vertices[:, None] - mirrored[None], axis=-1)
    index = distance.argmin(axis=0)
    index.setflags(write=False)
    return index


def vertex_normals(vertices: np.ndarray) -> np.ndarray:
    """Unit normals (B, 468, 3) of meshes (B, 468, 3): the sum of those of the triangles around, weighted by area."""
    a, b, c = (vertices[:, face_mesh().triangles[:, corner]] for corner in range(3))
    normals = _triangles_around() @ np.cross(b - a, c - a).transpose(1, 0, 2).reshape(len(face_mesh().triangles), -1)
    normals = normals.reshape(VERTICES, len(vertices), 3).transpose(1, 0, 2)
    return normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)


@cache
def _triangles_around() -> csr_array:
    """The matrix (468, 898) with 1 where a triangle has a vertex."""
    from scipy.sparse import csr_array

    triangles = face_mesh().triangles
    numbers = np.repeat(np.arange(len(triangles)), 3)
    return csr_array((np.ones(triangles.size), (triangles.ravel(), numbers)), shape=(VERTICES, len(triangles)))
