"""Where a filmed face would have its landmarks if its mouth were at rest, which a film that speaks need not show."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ....models.face.face_mesh import INNER_LOWER_LIP, INNER_UPPER_LIP, VERTICES, eye_distance, mouth_opening
from ....models.face.mouth_regions import MOUTH_CORNERS, UPPER_INNER_LIP
from ....models.face.mouth_shapes import close_lips, mouth_vertices, neutral_vertices
from ....models.speech.mouth_network import CONTROLS
from ...face.head_pose import split_matrix
from ...face.metric_mesh import project
from ...types import Camera, FaceMotion, FaceTrack
from ..renderer.mouth_shape import Speaking
from ..renderer.portrait_mesh import LipControls, PortraitMesh

REST_FRAMES = 400
"""Frames from which the shape at rest is taken, at most, spread over the film."""
FRONTAL, LEAST_PART = 20.0, 0.3
"""Degrees to the side up to which frames tell the usual shape, and the part of the frames that do so at least."""
USUAL_MOUTHS = (
    (0.10, 0.16, 0.22, 0.68, 0.29, 0.0),
    (0.11, 0.15, 0.27, 0.39, 0.35, 0.0),
    (0.12, 0.22, 0.16, 0.22, 0.45, 0.0),
    (0.15, 0.32, 0.11, 0.19, 0.54, 0.0),
    (0.24, 0.52, 0.06, 0.18, 0.67, 0.0),
)
"""Mean mouth controls of the fifths of speech, from shut to open, as Instant's driver predicts 24 speakers; the tongue
moves no skin."""
CLOSED_PART, MOST_CLOSED = 0.05, 0.045
"""Part of the frames whose lips touch, at least, and the widest gap in eye distances that landmarkers report there."""
TURNED_MOST = 40.0
"""Degrees to the side up to which frames tell what goes with a head's pose."""
STEADY_POSE = 0.2
"""Variance of a head's angles in square degrees below which little is learned from them."""


@dataclass(frozen=True)
class RestingFace:
    """The usual shape of a filmed face, and how its shape at rest differs from it.

    `usual` (468, 3) cm in the head frame is the mean shape, and `spoken` (468, 3) cm how speech moves a face whose
    lips are as far apart, so that the usual shape without `spoken` is that at rest. `closed_gap` is what landmarkers
    report between touching lips, in eye distances. A landmarker's face changes a little as it turns: by `by_angle`
    (3, 468, 3) cm a degree away from `angles` (3,). `rims` as `lip_rims` has them. `mesh` is the shape at rest with
    touching lips as a portrait.
    """

    usual: np.ndarray
    spoken: np.ndarray
    closed_gap: float
    by_angle: np.ndarray
    angles: np.ndarray
    rims: tuple[float, float]
    mesh: PortraitMesh

    @property
    def shape(self) -> np.ndarray:
        """The shape at rest (468, 3) in cm in the head frame."""
        return self.usual - self.spoken

    def places(self, matrix: np.ndarray, size: tuple[int, int], basis: np.ndarray) -> np.ndarray:
        """Landmarks at rest (n, 468, 2) in pixels of frames of a `size` whose heads are posed by `matrix` (n, 4, 4).

        `basis` (n, 2, 3) pixels per cm is that by which speech moves them: a jaw that opens goes back as well, and
        what lies farther away is not drawn smaller.
        """
        return self.usual_places(matrix, size) - np.einsum("nij,vj->nvi", basis, self.spoken)

    def usual_places(self, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Landmarks of the usual shape (n, 468, 2) in pixels, as for `places`."""
        turned = split_matrix(matrix)[0] - self.angles
        return project(self.usual + np.einsum("nk,kvc->nvc", turned, self.by_angle), matrix, size)


def resting_face(
    vertices: np.ndarray, matrix: np.ndarray, size: tuple[int, int], rims: tuple[float, float]
) -> RestingFace:
    """The face of shapes (n, 468, 3) in cm that are posed by `matrix` (n, 4, 4) in frames of a `size`.

    What landmarkers report is wrong by much the same in all frames, so that the mean shape at its opening tells the one
    at rest better than the few frames with closed lips do.
    """
    angles = split_matrix(matrix)[0]
    aside = np.abs(angles[:, 1])
    forwards = matrix[int(np.abs(angles).sum(axis=1).argmin())]
    closed_gap = closed_gap_of(vertices)
    frontal = aside <= max(FRONTAL, float(np.quantile(aside, LEAST_PART)))
    usual = vertices[frontal].mean(axis=0)
    gap = float(usual[INNER_UPPER_LIP, 1] - usual[INNER_LOWER_LIP, 1])
    opening = max(gap - closed_gap * float(eye_distance(usual)), 0.0)
    spoken = _spoken(_portrait(close_lips(usual), forwards, size), opening)
    told = aside <= max(TURNED_MOST, float(aside.min()))
    by_angle = _by_angle(vertices[told], angles[told])
    mesh = _portrait(close_lips(usual - spoken), forwards, size)
    return RestingFace(usual, spoken, closed_gap, by_angle, angles[frontal].mean(axis=0), rims, mesh)


def closed_gap_of(points: np.ndarray) -> float:
    """Eye distances that landmarkers report between touching lips, by landmarks (n, 468, 2 or 3) of some frames."""
    return min(float(np.quantile(mouth_opening(points), CLOSED_PART)), MOST_CLOSED)


def spread_over(count: int) -> np.ndarray:
    """Numbers of those of `count` frames from which the shape at rest is taken."""
    return np.arange(0, count, max(1, count // REST_FRAMES))


def speech_offsets(mesh: PortraitMesh, motion: FaceMotion, frames: np.ndarray) -> np.ndarray:
    """Offsets (B, 468, 3) in cm of a film's face in `frames` (B,) of a motion.

    It has no smile or open mouth of its own to leave: its shape at rest is that of speech.
    """
    resting = Speaking(np.zeros(motion.frames), np.zeros(motion.frames))
    return mesh.mouth.offsets(motion, frames, LipControls.of(motion, frames), resting)[0]


def held_mouths(controls: np.ndarray) -> FaceMotion:
    """A motion whose frames have these mouth controls (n, 6), with the head at rest."""
    neutral, still = neutral_vertices(), np.zeros((len(controls), 3))
    pucker = controls[:, CONTROLS.index("round")].astype(np.float32)
    return FaceMotion(neutral + mouth_vertices(controls), neutral, still, still, Fraction(25), pucker=pucker)


def _portrait(shape: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> PortraitMesh:
    """A shape (468, 3) as the portrait that a frame is in which the head is posed by `matrix` (4, 4)."""
    depth = -(shape @ matrix[2, :3] + matrix[2, 3])
    scale = Camera().focal * size[0] / 2 / depth.mean()
    points = np.concatenate([project(shape, matrix, size), (depth - depth.mean())[:, None] * scale], axis=1)
    mesh = PortraitMesh(FaceTrack(points[None], np.ones(1, bool), size, matrix[None]))
    # New openings are measured as the film's own are, by landmarks, wherever the edges of its lips lie beside these.
    mesh.mouth.fit_edges(np.zeros(len(UPPER_INNER_LIP)), 0.0)
    return mesh


def _spoken(mesh: PortraitMesh, opening: float) -> np.ndarray:
    """Offsets (468, 3) that speech has on average where lips are `opening` cm apart on average, by regression."""
    usual = held_mouths(np.array(USUAL_MOUTHS))
    offsets = speech_offsets(mesh, usual, np.arange(usual.frames))
    gaps = offsets[:, INNER_UPPER_LIP, 1] - offsets[:, INNER_LOWER_LIP, 1]
    slope, start = np.polyfit(gaps, offsets.reshape(usual.frames, -1), 1)
    return (start + opening * slope).reshape(VERTICES, 3)


def _by_angle(vertices: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """(3, 468, 3) cm a degree: how shapes (n, 468, 3) change with their heads' angles (n, 3) at the same mouth."""
    right, left = MOUTH_CORNERS
    width = np.linalg.norm(vertices[:, left] - vertices[:, right], axis=-1)
    told = np.column_stack([angles, mouth_opening(vertices), width, np.ones(len(vertices))])
    told[:, :-1] -= told[:, :-1].mean(axis=0)
    ridge = len(vertices) * np.diag([STEADY_POSE] * 3 + [1e-9] * 3)
    slopes = np.linalg.solve(told.T @ told + ridge, told.T @ vertices.reshape(len(vertices), -1))
    return slopes[:3].reshape(3, VERTICES, 3)
