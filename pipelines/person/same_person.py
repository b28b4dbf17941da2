"""Whether two faces may be of the same person, by the shape of what no expression moves.

Numbers were measured on two speakers with MediaPipe's landmarks and with the shipped networks': the root mean square
distance of one frame's shape from the median of its own video is 0.26 cm at most (0.10 in the median), and from that of
the other person 0.38 cm or more in 95 % of frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ...models.face.face_mesh import face_mesh
from ..face.face import Face
from ..face.face_tracking import FacePicker
from ..face.head_pose import split_matrix
from ..face.metric_mesh import metric_mesh

SAME = 0.34
"""Cm; shapes that are nearer may be of one person."""
LOWEST = -1.5
"""Height in cm in the canonical head from which on a landmark counts: from the tip of the nose up."""
FRONTAL = 30.0
"""Degrees; the shape of a face that is turned further is too wrong to compare."""


@dataclass(frozen=True)
class Shape:
    """`points` (n, 3) in cm in the head frame, `yaw` in degrees."""

    points: np.ndarray
    yaw: float

    @property
    def is_frontal(self) -> bool:
        return abs(self.yaw) <= FRONTAL

    def distance(self, reference: np.ndarray) -> float:
        """In cm, from points (n, 3)."""
        return float(np.sqrt(np.square(self.points - reference).sum(-1).mean()))


def shape_of(face: Face, image_size: tuple[int, int]) -> Shape:
    """The shape of a face in a picture of (height, width)."""
    vertices, matrix = metric_mesh(face.points, image_size)
    return Shape(vertices[face_mesh().vertices[:, 1] > LOWEST], float(split_matrix(matrix)[0][1]))


def main_person(seen: Sequence[tuple[Shape, float]]) -> np.ndarray | None:
    """The median shape (n, 3) of the person who takes up most of the video, None where no face is seen from the front.

    `seen` are the faces of some frames, with the part of the frame that each takes up.
    """
    groups: list[list[tuple[Shape, float]]] = []
    for shape, part in seen:
        if not shape.is_frontal:
            continue
        distances = [shape.distance(_median(group)) for group in groups]
        if distances and min(distances) < SAME:
            groups[int(np.argmin(distances))].append((shape, part))
        else:
            groups.append([(shape, part)])
    if not groups:
        return None
    return _median(max(groups, key=lambda group: sum(part for _, part in group)))


def _median(group: list[tuple[Shape, float]]) -> np.ndarray:
    return np.median([shape.points for shape, _ in group], axis=0)


@dataclass
class PersonPicker(FacePicker):
    """Picks the face of the person with the shape `reference`, and none where only others are seen."""

    reference: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))

    def _chosen(self, faces: list[Face]) -> Face | None:
        near = [(shape_of(face, self.image_size).distance(self.reference), face) for face in faces]
        distance, face = min(near, key=lambda pair: pair[0])
        return face if distance < SAME else None
