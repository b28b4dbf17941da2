"""The inside of a filmed mouth of any shape, from frames of the film that show mouths of about that shape.

What is seen between lips depends on their shape: teeth where they spread, the dark where they are round. Widths of
openings, of neighbours and of steps were chosen on the odd half of 19 films of as many people, each of whose halves
tells the inside of the other's mouths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from ....models.face.face_mesh import INNER_LOWER_LIP, INNER_UPPER_LIP, eye_distance, mouth_opening
from ....models.face.mouth_regions import MOUTH_CORNERS
from ...face.head_pose import split_matrix
from ...files.images import in_unit_range
from ...large_arrays import give_memory_back
from ...types import FaceTrack
from ..animate import fit_portrait
from ..renderer.renderer import InstantRenderer
from .filmed_face import FilmedFace, blocks, pixels_per_cm
from .mouth_motion import MouthMotion, mouth_motions
from .mouth_view import MouthView, with_lower_teeth
from .occlusion import hidden_lips
from .resting_face import held_mouths
from .skin.face_texture import texture_of
from .skin.sharpness import further_blur, nose_detail

LEAST_OPENING, PARTED = 0.08, 0.045
"""Eye distances: where the film shows no wider mouth than the first, the inside is drawn by Instant's renderer; lips
whose landmarks are nearer than the second may touch."""
OPENINGS, WIDTHS = 5, 3
"""Steps of the film's openings, and groups of widths within each, of which each gives one view."""
WIDEST_PART = 0.98
"""Part of the openings that is within the steps: the widest may be a landmarker's error."""
STILL_VALUE, FRONTAL_VALUE, TURNED = 0.5, 0.004, 12.0
"""What a frame loses for each eye distance that the face moves from the frame before, and for each degree beyond TURNED
that it looks aside."""
SHARP_VALUE, SHARP_PART, ALIKE = 0.3, 0.75, 0.25
"""What a frame loses for each e-fold of detail that it has less than this part of all frames, beyond those by which
sharp ones differ as a head nods."""
MOST_HIDDEN = 0.1
"""Part of the lips from which on something in front of an open mouth hides too much of its inside."""
NEIGHBOURS, NEAR = 3, np.array([0.45, 0.7])
"""Views that a mouth's inside is mixed of, and by how many cm of opening and of width mouths are equally unlike."""
DRAWN_MOUTH = (0.5, 0.7, 0.0, 0.0, 0.35, 0.0)
"""Mouth controls of the drawn inside."""
DRAWN_SIDE = 1920
"""Pixels of the longer side that a frame has at most for which the inside is drawn, as Instant's pictures have."""

Reader = Callable[[np.ndarray], Iterator[np.ndarray]]
"""Yields the frames (H, W, 3) of ascending numbers."""


@dataclass(frozen=True)
class MouthViews:
    """Open mouths of one person, at least one, and their `shapes` (n, 2) as `mouth_shapes` has them.

    `drawn` says that no open mouth is filmed, so that the renderer drew one.
    """

    views: tuple[MouthView, ...]
    shapes: np.ndarray
    drawn: bool

    def fill(
        self,
        places: np.ndarray,
        below_upper: np.ndarray,
        above_lower: np.ndarray,
        motion: MouthMotion,
        light: np.ndarray,
    ) -> np.ndarray:
        """Colours (h, w, 3) float32 of the inside of a mouth that does `motion`, in the `light` (3,) on the cheeks.

        The rest is as for `MouthView.fill`.
        """
        inside = np.zeros((*places.shape[:2], 3), np.float32)
        for number, part in self.mixed(self._shape(motion)):
            view = self.views[number]
            gain = (part * light / view.light).astype(np.float32)
            inside += gain * view.fill(places, below_upper, above_lower, motion)
        return inside

    def blur(self, frame: np.ndarray, motion: MouthMotion) -> np.ndarray:
        """Pixels (2,), as standard deviations along x and y, by which the inside for a frame has to be blurred.

        That is how much more blurred it is than the frames that the inside comes from.
        """
        detail = nose_detail(frame, motion.points, motion.eye_distance)
        result = np.zeros(2)
        if detail is not None:
            for number, part in self.mixed(self._shape(motion)):
                details = self.views[number].details
                if details is not None:
                    result += part * further_blur(details, detail, motion.eye_distance)
        return result

    @staticmethod
    def _shape(motion: MouthMotion) -> np.ndarray:
        return mouth_shapes((motion.points + motion.moved)[None], motion.basis[None])[0]

    def mixed(self, shape: np.ndarray) -> list[tuple[int, float]]:
        """Numbers and parts of the views nearest to a shape; parts change smoothly with it, and come and go at 0."""
        unlike = np.linalg.norm((self.shapes - shape) / NEAR, axis=1)
        nearest = np.argsort(unlike, kind="stable")
        if len(nearest) > NEIGHBOURS:
            reach = unlike[nearest[NEIGHBOURS]]
            parts = np.maximum(1 - (unlike[nearest[:NEIGHBOURS]] / max(float(reach), 1e-9)) ** 2, 0) ** 2 + 1e-9
        else:
            parts = 1 / (1e-3 + unlike[nearest])
        parts = parts / parts.sum()
        return [(int(number), float(part)) for number, part in zip(nearest, parts, strict=False)]


def mouth_shapes(points: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """(n, 2): the opening and the width in cm of mouths with landmarks (n, 468, 2) in pixels.

    `basis` (n, 2, 3) as in MouthMotion, so that a turned head's mouth is as wide as from the front.
    """
    right, left = MOUTH_CORNERS
    apart = (points[:, INNER_LOWER_LIP] - points[:, INNER_UPPER_LIP], points[:, left] - points[:, right])
    cm = [np.maximum(np.linalg.norm(basis[:, :, axis], axis=-1), 1e-6) for axis in (1, 0)]
    return np.stack([np.linalg.norm(gap, axis=-1) / scale for gap, scale in zip(apart, cm, strict=True)], axis=-1)


def film_views(face: FilmedFace, read: Reader) -> MouthViews:
    """The open mouths of a film that `read` gives the frames of, or a drawn one where none of any width is seen.

    Lips that hardly part say nothing about what is seen between wide ones.
    """
    value, opening, shapes = (np.concatenate(part) for part in zip(*_frames_of(face), strict=True))
    shown = face.found & ~face.mouth_outside
    shown = np.flatnonzero(shown if shown.any() else face.found)
    views: list[MouthView] = []
    seen: list[int] = []
    if opening[shown].max() >= LEAST_OPENING:
        chosen = _spread(shown[opening[shown] >= PARTED], value, shapes)
        for number, frame in zip(chosen.tolist(), read(chosen), strict=True):
            if _hidden(face, number, frame) < MOST_HIDDEN:
                views.append(MouthView.of(frame, as_filmed(face, number)))
                seen.append(number)
    if (opening[seen] >= LEAST_OPENING).any():
        return MouthViews(with_lower_teeth(views), shapes[seen], drawn=False)
    # The renderer would take a piece of the lips for teeth where these part a little.
    shut = shown[opening[shown] < PARTED]
    chosen = _spread(shut if len(shut) else shown, value, shapes)
    fits = (
        (float(value[number] - opening[number]) - _hidden(face, number, frame), number, frame)
        for number, frame in zip(chosen.tolist(), read(chosen), strict=True)
    )
    _, number, frame = max(fits, key=lambda entry: entry[0])
    drawn, motion = _drawn(face, number, frame)
    return MouthViews((MouthView.of(drawn, motion),), mouth_shapes(motion.points[None], motion.basis[None]), drawn=True)


def _frames_of(face: FilmedFace) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of each block of frames how still and frontal they are (n,), the opening in eye distances, and the shapes."""
    known = face.sharpness[np.isfinite(face.sharpness)]
    usual = np.quantile(known, SHARP_PART) if len(known) else np.nan
    for part in blocks(face.frames):
        numbers = np.arange(part.start, part.stop)
        points = face.points[numbers].astype(np.float64)
        travel = np.linalg.norm(points - face.points[np.maximum(numbers - 1, 0)], axis=-1).mean(axis=1)
        travel /= eye_distance(points)
        _, matrix = face.shapes(numbers)
        turned = np.abs(split_matrix(matrix)[0][:, 1])
        give_memory_back(face.points)
        value = -STILL_VALUE * travel - FRONTAL_VALUE * np.maximum(turned - TURNED, 0)
        value -= SHARP_VALUE * np.nan_to_num(usual - face.sharpness[numbers] - ALIKE).clip(min=0)
        basis = pixels_per_cm(matrix, face.size, face.rest.shape)
        yield value, mouth_opening(points), mouth_shapes(points[..., :2], basis)


def _spread(numbers: np.ndarray, value: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """Of frames `numbers` the best of each step of opening and of each group of widths within it, in order."""
    opening, width = shapes[numbers].T
    steps = np.linspace(opening.min(), np.quantile(opening, WIDEST_PART), OPENINGS + 1)[1:-1]
    step = np.searchsorted(steps, opening, side="right")
    chosen = set()
    for k in range(OPENINGS):
        within = np.flatnonzero(step == k)
        for group in np.array_split(within[np.argsort(width[within], kind="stable")], WIDTHS):
            if len(group):
                chosen.add(int(numbers[group[np.argmax(value[numbers[group]])]]))
    return np.array(sorted(chosen))


def _hidden(face: FilmedFace, number: int, frame: np.ndarray) -> float:
    """The part of the lips that something hides in a frame."""
    if face.appearance is None:
        return 0.0
    return hidden_lips([face.appearance.oddness(texture_of(frame, face.points[number]))])


def as_filmed(face: FilmedFace, number: int) -> MouthMotion:
    """Where the mouth of a frame is, without a movement."""
    filmed = mouth_motions(face, np.array([number]), held_mouths(np.zeros((1, 6))), np.array([0]), 1.0)[0]
    return replace(filmed, moved=np.zeros_like(filmed.moved))


def _drawn(face: FilmedFace, number: int, frame: np.ndarray) -> tuple[np.ndarray, MouthMotion]:
    """A frame, smaller if it is large, with its mouth opened by Instant's renderer, and where the lips are then."""
    _, matrix = face.shapes(np.array([number]))
    points = face.points[number : number + 1].astype(np.float64)
    track = FaceTrack(points, np.ones(1, bool), face.size, matrix)
    image, track = fit_portrait(in_unit_range(frame), track, min(DRAWN_SIDE, max(face.size)))
    renderer = InstantRenderer(image, track, eyes=False)
    speaking = held_mouths(np.array([DRAWN_MOUTH]))
    drawn = renderer.render(speaking)[0][0].numpy()
    moved = renderer.mesh.move(speaking, np.array([0]), renderer.mesh.mouth.speaking(speaking)).expression
    if frame.dtype == np.uint8:
        drawn = np.rint(drawn * 255).astype(np.uint8)
    here = as_filmed(face, number)
    scale = image.shape[0] / face.size[0]
    return drawn, replace(
        here,
        points=track.points[0, :, :2] + moved[0].numpy(),
        moved=here.moved * scale,
        basis=here.basis * scale,
        middle=here.middle * scale,
        eye_distance=here.eye_distance * scale,
        closed_gap=here.closed_gap * scale,
    )
