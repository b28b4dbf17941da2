"""Whether two faces may be of the same person, and the face of one person through a film.

Compared are the shape of what no expression moves and the pattern of light and dark of the upper face: brows, eyes,
nose, forehead and the hair on it. Each face is looked at in a view of its own, as the metric mesh of one face differs
with its size and place in the picture, and what a lamp from one side changes is taken from the pattern.

Numbers were chosen on pictures of 51 people that Instant turned by up to 18 degrees, in other sizes, places, rolls and
lights, and on two filmed people; docs/measurements/dubbing.md says what comes of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from ...models.face.face_mesh import face_mesh, vertex_normals
from ..face.face import Face
from ..face.face_tracking import FacePicker
from ..face.flat_face import Layout, laid_flat, lay_out
from ..face.head_pose import split_matrix
from ..face.metric_mesh import metric_mesh

SAME_SHAPE, SAME_PATTERN = 0.5, 0.3
"""Root mean square distance in cm, and 1 less the correlation, at which one alone says that it is somebody else."""
LOWEST = -1.5
"""Height in cm in the canonical head from which on a landmark counts: from the tip of the nose up."""
MOST_APART = 35.0
"""Degrees; faces that are turned to the side by more than this from each other are not compared."""
OWN_VIEW = 6.0
"""Side of the view in which the shape of a face is taken, over the face's size."""
SIDE, TOP, BOTTOM, PER_CM = 8.0, 8.5, -2.6, 2.0
"""Cm in the canonical head that the pattern reaches, to either side, up and down, and texels in one."""
SEEN, LEAST_SEEN = 0.4, 0.35
"""Part of its area from the front with which a texel counts, and part of all texels that two patterns must share."""
DARKNESS = 8.0
"""Of 255; what is added before the logarithm, as dark colours are mostly noise."""
COMPARED = 25
"""Looks whose median says what a person looks like."""
LOOK_EVERY = 5
"""Frames after which a face that is followed is looked at again."""
LOOKS_TO_BE_SURE = 5
"""Looks at a face that is found anew, after which the median says whether it is the person's."""
GAP = 12
"""Frames for which a face may be lost and, in its place, be the same without being like the person's."""


@dataclass(frozen=True)
class Look:
    """`points` (n, 3) in cm in the head frame, `yaw` in degrees, and the `pattern` (m,) of texels where `visible`."""

    points: np.ndarray
    yaw: float
    pattern: np.ndarray
    visible: np.ndarray

    def difference(self, other: Look) -> float | None:
        """From 0; below 1 both may be of the same person. None where they can't be compared."""
        common = self.visible & other.visible
        if abs(self.yaw - other.yaw) > MOST_APART or common.mean() < LEAST_SEEN:
            return None
        shape = float(np.sqrt(np.square(self.points - other.points).sum(-1).mean()))
        one, two = self.pattern[common], other.pattern[common]
        alike = float(one @ two) / max(float(np.sqrt((one @ one) * (two @ two))), 1e-9)
        return float(np.hypot(shape / SAME_SHAPE, (1 - alike) / SAME_PATTERN))

    def is_like(self, other: Look) -> bool:
        """Whether both may be of the same person, False also where that can't be compared."""
        difference = self.difference(other)
        return difference is not None and difference < 1


def look_of(face: Face, picture: np.ndarray) -> Look:
    """The look of a face in a picture (H, W, 3), bytes or floats in 0..1."""
    vertices, matrix = metric_mesh(*_in_own_view(face))
    told = face_mesh().vertices[:, 1] > LOWEST
    layout, lamps = _layout()
    colours, inside = laid_flat(picture, face.points, layout)
    visible = inside & (layout.turned_to_camera(face.points) > SEEN)
    light = np.log(colours[layout.on_face].astype(np.float32) + DARKNESS).mean(axis=-1)
    seen = lamps * visible[:, None]
    fitted = np.linalg.solve(seen.T @ seen + 1e-3 * np.eye(lamps.shape[1]), seen.T @ light)
    pattern = (light - lamps @ fitted).astype(np.float32)
    return Look(vertices[told].astype(np.float32), float(split_matrix(matrix[None])[0][0, 1]), pattern, visible)


def main_person(seen: Sequence[tuple[Look, float]]) -> Look | None:
    """The median look of the person who takes up most of the video, None where no face is seen.

    `seen` are the faces of some frames, with the part of the frame that each takes up.
    """
    people: list[_Seen] = []
    for look, part in seen:
        own = next((person for person in people if look.is_like(person.median)), None)
        if own is None:
            people.append(_Seen(look, part))
        else:
            own.add(look, part)
    return max(people, key=lambda person: person.part).median if people else None


def median_look(looks: Sequence[Look]) -> Look:
    """The median of each number."""
    points, pattern, visible = (
        np.median([getattr(look, name) for look in looks], axis=0) for name in ("points", "pattern", "visible")
    )
    return Look(points, float(np.median([look.yaw for look in looks])), pattern, visible > 0.5)


@dataclass
class PersonPicker(FacePicker):
    """Picks one person's face through a film: after a cut or a loss the one that looks so, and none of others'.

    `reference` is the person's look; without it the first face is picked by the rule of `FacePicker`, and its look
    learned. `show` takes each frame before its faces come. A face that suddenly looks different in its place, as with
    dark glasses, is still picked until two faces are seen in one frame; `others` then counts it as another's.
    """

    reference: Look | None = None
    _others: list[tuple[int, int]] = field(default_factory=list, repr=False)
    _doubted: list[tuple[int, int]] = field(default_factory=list, repr=False)
    _in_doubt: bool = field(default=False, repr=False)
    _is_alone: bool = field(default=True, repr=False)
    """No frame has shown two faces."""
    _learned: list[Look] | None = field(default=None, repr=False)
    _recent: Look | None = field(default=None, repr=False)
    """The person as last seen in this shot."""
    _frame: np.ndarray = field(default_factory=lambda: np.zeros((1, 1, 3), np.uint8), repr=False)
    _number: int = field(default=-1, repr=False)
    _start: int = field(default=0, repr=False)
    """The first frame of those in which the face is followed."""
    _followed: int | None = field(default=None, repr=False)
    """The last of them, None while the face is not followed."""
    _looked: int = field(default=0, repr=False)
    """The last of them in which the face was compared."""
    _differences: list[float] = field(default_factory=list, repr=False)
    _is_sure: bool = field(default=True, repr=False)

    def show(self, frame: np.ndarray, *, is_cut: bool) -> None:
        """Takes the next frame (H, W, 3), and whether it begins another shot, in which the person is searched anew."""
        self._number += 1
        self._frame = frame
        if is_cut:
            self._end()
            self.last = self._recent = None
        elif self._followed is not None and self._number - self._followed > GAP:
            self._end()

    def others(self) -> list[tuple[int, int]]:
        """The stretches (first frame, end) of the frames up to now in which another's face was picked."""
        self._end()
        return self._others if self._is_alone else [*self._others, *self._doubted]

    def pick(self, faces: list[Face]) -> Face | None:
        """The person's face, None where it is not seen."""
        self._is_alone &= len(faces) <= 1
        return super().pick(faces)

    def keep(self, face: Face) -> bool:
        """Takes the face that was picked last as it was tracked into another frame, False if it became another's."""
        return self._same([face]) is not None and not self._in_doubt and super().keep(face)

    def _first(self, faces: list[Face]) -> Face | None:
        """The face of the person who is not known yet."""
        return super()._chosen(faces)

    def _chosen(self, faces: list[Face]) -> Face | None:
        if self.reference is not None:
            return self._most_alike(faces)
        face = self._first(faces)
        if face is not None:
            self._learned = []
            self._take(look_of(face, self._frame))
        return face

    def _same(self, near: list[Face]) -> Face | None:
        if self.reference is None or not near:
            return super()._same(near)
        is_due = not self._is_sure or self._number - self._looked >= LOOK_EVERY
        if self._followed is not None and len(near) == 1 and not is_due:
            self._followed = self._number
            return near[0]
        return self._most_alike(near)

    def _most_alike(self, faces: list[Face]) -> Face | None:
        """The face that is most like the person's, None where it is another's.

        A face that can't be compared may be that which is followed, and is nobody's else.
        """
        looks = [look_of(face, self._frame) for face in faces]
        differences = [self._difference(look) for look in looks]
        compared = {number: value for number, value in enumerate(differences) if value is not None}
        if not compared and self._followed is not None:
            self._followed = self._number
            return faces[0]
        best = min(compared, key=compared.__getitem__, default=None)
        if best is not None and compared[best] < 1:
            if self._in_doubt:
                self._end()
            return faces[best] if self._take(looks[best]) else None
        if self._followed is None:
            return None
        if self._is_sure:
            self._start, self._is_sure, self._in_doubt = self._looked + 1, False, True
        if self._in_doubt and self._is_alone:
            self._followed = self._number
            return faces[0]
        self._end()
        return None

    def _end(self) -> None:
        """Ends the stretch of frames in which the face is followed."""
        if self._followed is not None and not self._is_sure:
            (self._doubted if self._in_doubt else self._others).append((self._start, self._followed + 1))
        self._followed, self._in_doubt = None, False

    def _difference(self, look: Look) -> float | None:
        """That from the person, as known or as last seen in this shot; None where neither can be compared."""
        known = [one for one in (self.reference, self._recent) if one is not None]
        return min((value for one in known if (value := look.difference(one)) is not None), default=None)

    def _take(self, look: Look) -> bool:
        """Goes on with a face of this look; False where the stretch turns out to be another's."""
        if self._followed is None:
            self._start, self._differences, self._is_sure = self._number, [], self.reference is None
        self._followed = self._looked = self._number
        if not self._is_sure:
            assert self.reference is not None
            difference = look.difference(self.reference)
            self._differences.append(self._difference(look) or 0.0 if difference is None else difference)
            if len(self._differences) < LOOKS_TO_BE_SURE:
                return True
            self._is_sure = float(np.median(self._differences)) < 1
            if not self._is_sure:
                self._end()
                return False
        self._recent = look
        if self._learned is not None and len(self._learned) < COMPARED:
            self._learned.append(look)
            self.reference = median_look(self._learned)
        return True


class _Seen:
    """A person of a video: the first looks at them, their median, and how much of the frames they take up."""

    def __init__(self, look: Look, part: float) -> None:
        self.looks, self.median, self.part = [look], look, part

    def add(self, look: Look, part: float) -> None:
        self.part += part
        if len(self.looks) < COMPARED:
            self.looks.append(look)
            self.median = median_look(self.looks)


@cache
def _layout() -> tuple[Layout, np.ndarray]:
    """The texels, and what lamps add to the logarithm of the light of each (m, 4): something all over, and something by
    how far the skin faces each way."""
    layout = lay_out(SIDE, TOP, BOTTOM, PER_CM)
    normals = vertex_normals(face_mesh().vertices[None].astype(np.float64))[0]
    facing = np.einsum("nk,nkc->nc", layout.weights, normals[layout.corners])
    return layout, np.column_stack([np.ones(len(facing)), facing])


def _in_own_view(face: Face) -> tuple[np.ndarray, tuple[int, int]]:
    """The landmarks (P, 3) of a face in the middle of a square picture, and the picture's size."""
    side = OWN_VIEW * max(face.size, 1.0)
    points = face.points.astype(np.float64) * (1000 / side)
    points[:, :2] += 500 - face.centre * (1000 / side)
    return points, (1000, 1000)
