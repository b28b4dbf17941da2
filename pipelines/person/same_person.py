"""Whether two faces may be of the same person, by the shape of what no expression moves.

Numbers were measured on two speakers with MediaPipe's landmarks and with the shipped networks': the root mean square
distance of one frame's shape from the median of its own video is 0.3 cm at most (0.10 in the median), and from that of
the other person 0.38 cm or more in 95 % of frames. It grows by about 0.011 cm for each degree that one of two heads is
turned further, as the depth of landmarks is guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
MOST_APART = 25.0
"""Degrees; shapes of faces that are turned to the side by more than this from each other are not compared."""


@dataclass(frozen=True)
class Shape:
    """`points` (n, 3) in cm in the head frame, `yaw` in degrees."""

    points: np.ndarray
    yaw: float

    def is_comparable(self, other: Shape) -> bool:
        """Whether the heads are turned alike, so that the distance says something."""
        return abs(self.yaw - other.yaw) <= MOST_APART

    def is_like(self, other: Shape) -> bool:
        """Whether both may be of the same person, False also where that can't be compared."""
        return self.is_comparable(other) and self.distance(other) < SAME

    def distance(self, other: Shape) -> float:
        """Root mean square distance of the points in cm."""
        return float(np.sqrt(np.square(self.points - other.points).sum(-1).mean()))


def shape_of(face: Face, image_size: tuple[int, int]) -> Shape:
    """The shape of a face in a picture of (height, width)."""
    return shapes_of(face.points[None], image_size)[0]


def shapes_of(points: np.ndarray, image_size: tuple[int, int]) -> list[Shape]:
    """The shapes of faces with landmarks (n, P, 3) in pictures of (height, width)."""
    vertices, matrix = metric_mesh(points, image_size)
    told = face_mesh().vertices[:, 1] > LOWEST
    yaws = split_matrix(matrix)[0][:, 1]
    return [Shape(shape[told], float(yaw)) for shape, yaw in zip(vertices, yaws, strict=True)]


def main_person(seen: Sequence[tuple[Shape, float]]) -> Shape | None:
    """The median shape of the person who takes up most of the video, None where no face is seen.

    `seen` are the faces of some frames, with the part of the frame that each takes up.
    """
    groups: list[list[tuple[Shape, float]]] = []
    for shape, part in seen:
        own = next((group for group in groups if shape.is_like(median_shape([each for each, _ in group]))), None)
        if own is None:
            groups.append([(shape, part)])
        else:
            own.append((shape, part))
    if not groups:
        return None
    return median_shape([shape for shape, _ in max(groups, key=lambda group: sum(part for _, part in group))])


def median_shape(shapes: Sequence[Shape]) -> Shape:
    """The median of each number."""
    points = np.median([shape.points for shape in shapes], axis=0)
    return Shape(points, float(np.median([shape.yaw for shape in shapes])))


@dataclass
class PersonPicker(FacePicker):
    """Picks the face of the person with the shape `reference`, and none where only others are seen."""

    reference: Shape | None = None

    def _chosen(self, faces: list[Face]) -> Face | None:
        assert self.reference is not None
        return most_alike(faces, self.reference, self.image_size)


def most_alike(faces: Sequence[Face], reference: Shape, image_size: tuple[int, int]) -> Face | None:
    """The face whose shape is nearest to `reference` among those that may be of that person, None without one."""
    shapes = [shape_of(face, image_size) for face in faces]
    like = [number for number, shape in enumerate(shapes) if shape.is_like(reference)]
    nearest = min(like, key=lambda number: shapes[number].distance(reference), default=None)
    return None if nearest is None else faces[nearest]
