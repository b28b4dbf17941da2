"""The mesh of a face model that is made of a person's own landmarks: MediaPipe's, finer, with a mouth of its own.

MediaPipe's 468 landmarks are the corners of its triangles. Each triangle is divided into 16, as a face model has one
colour for each vertex, and the line where the lips meet is there twice: once as the rim of the lips, once as that of
the inner mouth, which is dark.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from ...models.curves import smoothstep
from ...models.face.face_mesh import LIPS_INNER, VERTICES, face_mesh

DIVISIONS = 2
"""How often each edge is halved: vertices then lie about 2 pixels apart in a crop of 256 pixels."""
FULL_WEIGHT, NO_WEIGHT = -1.0, 2.5
"""Heights in cm in the canonical head up to which an expression has its full effect, and from which on it has none.

The first is that of the tip of the nose, the second that of the lower lids.
"""


@dataclass(frozen=True)
class PersonMesh:
    """A mesh of V vertices and F triangles; the first 468 vertices are the landmarks.

    `shares` (V, 468): what of each landmark makes a vertex. `triangles` (F, 3) int64, in the order in which the normals
    of a mirrored face point outwards. `inner_mouth` (V,) bool: the vertex belongs to the inner mouth alone.
    """

    shares: np.ndarray
    triangles: np.ndarray
    inner_mouth: np.ndarray

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Values (468, C) of the landmarks to those (V, C) of the vertices."""
        return self.shares @ values


@cache
def person_mesh() -> PersonMesh:
    """The mesh, made once; its arrays are read-only."""
    shares = [*np.eye(VERTICES, dtype=np.float32)]
    behind = {landmark: VERTICES + place for place, landmark in enumerate(LIPS_INNER)}
    shares += [shares[landmark] for landmark in LIPS_INNER]
    inner_mouth = [False] * VERTICES + [True] * len(LIPS_INNER)
    triangles = []
    for first, second, third in face_mesh().triangles.tolist():
        if behind.keys() >= {first, second, third}:
            first, second, third = behind[first], behind[second], behind[third]
        triangles.append((first, third, second))  # mirroring turns the normals round, and so does this order
    for _ in range(DIVISIONS):
        triangles = _divided(triangles, shares, inner_mouth)
    mesh = PersonMesh(np.stack(shares), np.array(triangles, dtype=np.int64), np.array(inner_mouth))
    for array in vars(mesh).values():
        array.setflags(write=False)
    return mesh


Triangle = tuple[int, int, int]


def _divided(triangles: list[Triangle], shares: list[np.ndarray], inner_mouth: list[bool]) -> list[Triangle]:
    """Four triangles for each; the vertices in the middle of the edges are added to the two lists."""
    middles: dict[tuple[int, int], int] = {}

    def middle(one: int, other: int) -> int:
        edge = (min(one, other), max(one, other))
        if edge not in middles:
            middles[edge] = len(shares)
            shares.append((shares[one] + shares[other]) / 2)
            inner_mouth.append(inner_mouth[one] and inner_mouth[other])
        return middles[edge]

    smaller = []
    for a, b, c in triangles:
        ab, bc, ca = middle(a, b), middle(b, c), middle(c, a)
        smaller += [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    return smaller


@cache
def expression_weight() -> np.ndarray:
    """(468,) in 0..1: how far an expression moves each landmark; 1 in the lower face, 0 from the eyes on."""
    height = face_mesh().vertices[:, 1]
    return smoothstep(NO_WEIGHT, FULL_WEIGHT, height).astype(np.float32)
