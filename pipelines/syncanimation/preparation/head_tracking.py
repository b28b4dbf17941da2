"""Head poses, focal length and rigid shape from landmarks: bundle adjustment over all frames of a video.

In turns the poses are fitted to the shape (Gauss-Newton, all frames at once) and the shape to the poses (one linear
system for each vertex). The first shape, which holds what a face that hardly turns does not show, is the canonical
face, or the person's by a model of faces where one is given.
The focal length is searched on a grid by the error on some of the frames, as the published tracker does it.
Everything is in the convention of `face/head_pose.py`: the camera looks along -z, its y points up, and units are cm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ....models.face.face_mesh import LEFT_BROW, LEFT_EYE, RIGHT_BROW, RIGHT_EYE, VERTICES, face_mesh
from ...errors import TalkingPortraitError
from ...face.head_pose import matrix_to_euler
from ...face.metric_mesh import similarity
from ...person.over_frames import in_all_frames, smooth_within
from ...progress import share
from ...types import Progress, no_progress

FOCAL_LENGTHS = np.arange(500, 1500, 50) / 512
"""What is tried, in sides of the square picture; the published grid is for 512 pixels."""
USUAL_FOCAL, FOCAL_EVIDENCE = 1100 / 512, 1.05
"""Errors up to this multiple of the least one say little (landmarks of a head that turns by few degrees); among their
focal lengths the nearest to the usual one of a portrait is taken."""
FOCAL_FRAMES = 48
"""Frames on which the focal length is searched, evenly spaced."""
LOWEST = -1.5
"""Height in cm in the canonical head from which on a vertex counts as rigid: from the tip of the nose up."""
RIGID = 100
"""Vertices that are kept, those with the least error, as many as the published bundle adjustment has about."""
PRIOR = 0.02
"""Weight of the first place of a vertex, in parts of what all frames say about it across the picture."""
LOOSE = 2.5
"""Standard deviations from which on an observation counts for less than half."""
POSE_STEPS, ROUNDS, FOCAL_ROUNDS = 4, 6, 3
BLOCK = 256
"""Frames that are computed at once."""
MOST_ERROR = 4.0
"""Times the usual error of a frame, from which on it is an outlier."""
JUMP_WINDOW, JUMP_DEGREES, JUMP_DEVIATIONS = 7, 4.0, 8.0
"""A frame is an outlier where it is turned away from the median of so many frames by so much."""
SMOOTHING_SECONDS, SMOOTHING_ORDER = 0.28, 2
"""Of the Savitzky-Golay filter over poses: 7 frames at 25 a second."""


class HeadShape(Protocol):
    """A model of faces that gives a person's shape, with a `name` that tells it from others."""

    name: str

    def fit(self, points: np.ndarray, focal: float, size: int, progress: Progress = ...) -> np.ndarray:
        """The face at rest (468, 3) in the canonical head frame, in cm, of landmarks as `track_head` takes them."""
        ...


@dataclass(frozen=True)
class HeadTrack:
    """`rotation` (N, 3, 3) and `translation` (N, 3) in cm from head to camera, `focal` in pixels, the middle (cx, cy).

    `vertices` (V,) are the numbers of the rigid landmarks, `shape` (V, 3) their places in the head; `usable` (N,) are
    the frames whose pose is no outlier, the others have poses between theirs; `error` is the median distance in pixels
    between landmarks and projected shape.
    """

    rotation: np.ndarray
    translation: np.ndarray
    focal: float
    centre: float
    vertices: np.ndarray
    shape: np.ndarray
    usable: np.ndarray
    error: float

    def c2w(self, unit: float = 1.0) -> np.ndarray:
        """The camera's positions in the head's frame (N, 4, 4) float32; `unit` scales the cm."""
        matrices = np.tile(np.eye(4), (len(self.rotation), 1, 1))
        matrices[:, :3, :3] = self.rotation.transpose(0, 2, 1)
        matrices[:, :3, 3] = -np.einsum("nij,ni->nj", self.rotation, self.translation) * unit
        return matrices.astype(np.float32)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels (N, P, 2) of points (P, 3) of the head in all frames."""
        return project(points @ self.rotation.transpose(0, 2, 1) + self.translation[:, None], self.focal, self.centre)


def project(in_camera: np.ndarray, focal: float, centre: float) -> np.ndarray:
    """Pixels (..., 2) of points (..., 3) before the camera."""
    return focal * in_camera[..., :2] * [-1, 1] / in_camera[..., 2:] + centre


def track_head(
    points: np.ndarray,
    usable: np.ndarray,
    shots: Sequence[tuple[int, int]],
    size: int,
    fps: float,
    shape: HeadShape | None = None,
    progress: Progress = no_progress,
) -> HeadTrack:
    """The head's pose in every frame from landmarks (N, 468 or more, 3) in pixels of square pictures.

    `usable` (N,) are the frames to fit to; `shape` gives the first shape, by default the canonical face is that. Raises
    TalkingPortraitError where no frame can be fitted.
    """
    known = np.flatnonzero(usable)
    candidates = _candidates()
    some = known[np.linspace(0, len(known) - 1, min(FOCAL_FRAMES, len(known))).astype(int)]
    first = face_mesh().vertices.astype(np.float64)
    if shape is not None:
        first = shape.fit(points[some], USUAL_FOCAL * size, size, share(progress, 0, 0.3))
        progress = share(progress, 0.3, 1)
    costs = []
    for number, length in enumerate(FOCAL_LENGTHS):
        trial = _Adjustment(points[some], first, candidates, length * size, size)
        trial.run(FOCAL_ROUNDS)
        costs.append(trial.cost())
        progress(number + 1, 2 * len(FOCAL_LENGTHS))
    likely = FOCAL_LENGTHS[np.array(costs) <= FOCAL_EVIDENCE * min(costs)]
    focal = float(likely[np.argmin(np.abs(np.log(likely / USUAL_FOCAL)))]) * size
    trial = _Adjustment(points[some], first, candidates, focal, size)
    trial.run(FOCAL_ROUNDS)
    rigid = candidates[np.sort(np.argsort(trial.vertex_errors())[:RIGID])]
    whole = _Adjustment(points[known], first, rigid, focal, size)
    for round_ in range(ROUNDS):
        whole.run(1)
        progress(ROUNDS + round_ + 1, 2 * ROUNDS)
    frame_errors = whole.frame_errors()
    good = frame_errors <= MOST_ERROR * np.median(frame_errors)
    good &= ~_jumps(whole.rotation, known)
    if not good.any():
        raise TalkingPortraitError(
            "The head's pose can't be found in any frame of the video; give a video in which the whole face is seen."
        )
    found = np.zeros(len(points), bool)
    found[known[good]] = True
    columns = np.concatenate([whole.rotation, whole.translation[..., None]], axis=2)[good].reshape(-1, 12)
    columns = in_all_frames(columns, known[good], len(points))
    rotation, translation = _smoothed(columns, shots, fps)
    return HeadTrack(
        rotation, translation, focal, size / 2, rigid, whole.shape, found, float(np.median(frame_errors[good]))
    )


def _candidates() -> np.ndarray:
    """Vertices that hardly any expression moves."""
    moving = {*LEFT_EYE, *RIGHT_EYE, *LEFT_BROW, *RIGHT_BROW}
    high = np.flatnonzero(face_mesh().vertices[:, 1] > LOWEST)
    return np.array([vertex for vertex in high if vertex not in moving])


class _Adjustment:
    """Poses and shape of one video for one focal length, from the shape `first` (468, 3) of its face on."""

    def __init__(self, points: np.ndarray, first: np.ndarray, vertices: np.ndarray, focal: float, size: int) -> None:
        self.seen = points[:, vertices, :2].astype(np.float64)
        self.focal, self.centre = focal, size / 2
        self.first = first[vertices]
        self.shape = self.first.copy()
        self.noise = size / 512
        count = len(points)
        self.rotation, self.translation = np.empty((count, 3, 3)), np.empty((count, 3))
        weight = face_mesh().procrustes
        for block in self._blocks():
            solid = points[block, :VERTICES].astype(np.float64) * [1, -1, -1]
            placed = similarity(first, solid, weight)
            scale = np.linalg.norm(placed[:, :3, 0], axis=1)
            self.rotation[block] = placed[:, :3, :3] / scale[:, None, None]
            across = (placed[:, :2, 3] + np.array([-1, 1]) * self.centre) / scale[:, None]
            self.translation[block] = np.column_stack([across, -focal / scale])

    def run(self, rounds: int) -> None:
        for _ in range(rounds):
            for block in self._blocks():
                for _ in range(POSE_STEPS):
                    self._fit_poses(block)
            self._fit_shape()

    def cost(self) -> float:
        """The robust error in all, in square pixels."""
        return float(np.mean([np.log1p(self._residuals(block)[3]).mean() for block in self._blocks()]))

    def vertex_errors(self) -> np.ndarray:
        """The median distance of each vertex (V,) in pixels."""
        return np.median(np.concatenate([self._distances(block) for block in self._blocks()]), axis=0)

    def frame_errors(self) -> np.ndarray:
        """The median distance of each frame (N,) in pixels."""
        return np.concatenate([np.median(self._distances(block), axis=1) for block in self._blocks()])

    def _blocks(self) -> Iterator[slice]:
        for start in range(0, len(self.seen), BLOCK):
            yield slice(start, min(start + BLOCK, len(self.seen)))

    def _distances(self, block: slice) -> np.ndarray:
        return np.linalg.norm(self._residuals(block)[1], axis=2)

    def _residuals(self, block: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Turned shape (n, V, 3), residuals (n, V, 2), derivative by places (n, V, 2, 3), squared over noise (n, V)."""
        turned = self.shape @ self.rotation[block].transpose(0, 2, 1)
        x, y, z = np.moveaxis(turned + self.translation[block, None], -1, 0)
        residual = self.seen[block] - np.stack([-x / z, y / z], axis=2) * self.focal - self.centre
        zero = np.zeros_like(x)
        rows = [np.stack([-1 / z, zero, x / z**2], axis=2), np.stack([zero, 1 / z, -y / z**2], axis=2)]
        squares = np.square(residual).sum(axis=2) / (LOOSE * self.noise) ** 2
        return turned, residual, self.focal * np.stack(rows, axis=2), squares

    def _fit_poses(self, block: slice) -> None:
        turned, residual, by_place, squares = self._residuals(block)
        by_turn = np.cross(turned[:, :, None], by_place)  # the derivative of w x p along w is p x gradient
        jacobian = np.concatenate([by_turn, by_place], axis=3).reshape(len(turned), -1, 6)
        weighted = jacobian / np.repeat(1 + squares, 2, axis=1)[..., None]
        normal = weighted.transpose(0, 2, 1) @ jacobian
        normal += 1e-9 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(6)
        steps = np.linalg.solve(normal, weighted.transpose(0, 2, 1) @ residual.reshape(len(turned), -1, 1))[..., 0]
        self.rotation[block] = _turns(steps[:, :3]) @ self.rotation[block]
        self.translation[block] += steps[:, 3:]

    def _fit_shape(self) -> None:
        normal, right, across = np.zeros((len(self.shape), 3, 3)), np.zeros((len(self.shape), 3)), 0.0
        for block in self._blocks():
            _, residual, by_place, squares = self._residuals(block)
            jacobian = np.einsum("nvci,nij->nvcj", by_place, self.rotation[block])
            weighted = jacobian / (1 + squares)[..., None, None]
            normal += np.einsum("nvci,nvcj->vij", weighted, jacobian)
            right += np.einsum("nvci,nvc->vi", weighted, residual)
            across += float(np.square(self.focal / self.translation[block, 2]).sum())
        hold = PRIOR * across
        right += hold * (self.first - self.shape)
        self.shape = self.shape + np.linalg.solve(normal + hold * np.eye(3), right[..., None])[..., 0]


def _turns(vectors: np.ndarray) -> np.ndarray:
    """Rotation matrices (n, 3, 3) of rotation vectors (n, 3) in radians."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(vectors).as_matrix()


def _jumps(rotation: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which frames (n,) are turned away from those around them as no head turns."""
    from scipy.ndimage import median_filter

    angles = np.unwrap(matrix_to_euler(rotation), axis=0, period=360)
    away = np.abs(angles - median_filter(angles, (JUMP_WINDOW, 1), mode="nearest"))
    return (away > np.maximum(JUMP_DEGREES, JUMP_DEVIATIONS * np.median(away, axis=0))).any(axis=1)


def _smoothed(columns: np.ndarray, shots: Sequence[tuple[int, int]], fps: float) -> tuple[np.ndarray, np.ndarray]:
    """Rotations (N, 3, 3) and translations (N, 3) of (N, 12), the rows of [R|t], smoothed within shots."""
    columns = smooth_within(columns, shots, 2 * round(SMOOTHING_SECONDS * fps / 2) + 1, SMOOTHING_ORDER)
    matrices = columns.reshape(-1, 3, 4)
    u, _, vt = np.linalg.svd(matrices[..., :3])
    return u @ vt, matrices[..., 3]
