"""Shape, expression and pose of a person's face in every frame, from landmarks alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...models.face.face_mesh import VERTICES, mouth_opening
from ..face.head_pose import matrix_to_euler
from ..face.metric_mesh import metric_mesh, similarity
from ..types import Progress, no_progress
from .person_mesh import expression_weight

EXPRESSIONS = 32
"""Most components of the expression basis (spec: K <= 32)."""
LEAST_VARIANCE = 1e-5
"""Components with a smaller part of the whole variance are left out: they are rounding."""
SMOOTHING_WINDOW, SMOOTHING_ORDER = 5, 3
"""Of the Savitzky-Golay filter over poses."""
RIDGE_SECONDS = 2
"""Shapes are taken to depend on the angles as if this much of the video showed that they do not."""
ALIGNMENTS = 3
"""Rounds in which shapes are laid on their mean; after the second, the mean hardly changes."""
LEAST_TURN = 0.5
"""Degrees; a head that turns less counts as still."""
BLOCK = 256
"""Frames whose meshes are computed at once."""
WIDEST, WIDER = 0.01, 1.25
"""The mouth wide open is the mean of this part of the frames, those with the widest mouth, times this factor."""


@dataclass(frozen=True)
class Poses:
    """`rotation` (N, 3, 3) and `translation` (N, 3) in cm: from the head, at its mean size, to the camera."""

    rotation: np.ndarray
    translation: np.ndarray


@dataclass(frozen=True)
class PersonShape:
    """What `fit_shape` finds in N frames: mean + turning_basis @ turning + basis @ expression, in the head frame in cm.

    `mean` (468, 3); `basis` (468, 3, K) with `expression` (N, K) of unit variance, `opened` (K,) that of the mouth wide
    open; `turning_basis` (468, 3, 3) with `turning` (N, 3): how the shape that landmarks give depends on the head's
    angles, which is no expression.
    """

    mean: np.ndarray
    turning_basis: np.ndarray
    turning: np.ndarray
    basis: np.ndarray
    expression: np.ndarray
    opened: np.ndarray
    poses: Poses


def fit_shape(
    points: np.ndarray,
    usable: np.ndarray,
    shots: Sequence[tuple[int, int]],
    size: int,
    fps: float,
    progress: Progress = no_progress,
) -> PersonShape:
    """Mean shape, expression basis, expressions and poses of a face.

    `points` (N, P, 3) are landmarks in the pixels of square crops of `size`; `usable` (N,) are the frames, at least
    one, to learn from. The others get what lies between their neighbours. Poses are smoothed within `shots`.
    """
    frames = len(points)
    shapes = np.empty((frames, VERTICES, 3), np.float32)
    matrices = np.empty((frames, 4, 4))
    for start in range(0, frames, BLOCK):
        block = slice(start, start + BLOCK)
        shapes[block], matrices[block] = metric_mesh(points[block], (size, size))
        progress(min(start + BLOCK, frames), frames)
    known = np.flatnonzero(usable)
    mean = _align(shapes, matrices, known)
    openings = mouth_opening(shapes[known])
    poses = _smoothed(_between_known_poses(matrices, known), shots)
    turning, turning_basis = _turning(poses, shapes - mean, known, RIDGE_SECONDS * fps)
    shapes -= mean + np.einsum("vcj,nj->nvc", turning_basis, turning)
    moved = (shapes * expression_weight()[:, None]).reshape(frames, -1)
    basis = _components(moved[known], openings)
    expression = between_known(moved @ (basis / np.square(basis).sum(axis=0)), known)
    widest = known[np.argsort(openings)[-max(1, round(WIDEST * len(known))) :]]
    opened = WIDER * expression[widest].mean(axis=0)
    return PersonShape(mean, turning_basis, turning, basis.reshape(VERTICES, 3, -1), expression, opened, poses)


def _turning(poses: Poses, moved: np.ndarray, known: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """The head's angles, standardised (N, 3), and their linear effect (468, 3, 3) on shapes without their mean.

    Landmarks are a flat picture's: the depth of a turned face is wrong in the same way each time. What follows the
    angles is left out of the expressions, as speech can't predict it.
    """
    angles = matrix_to_euler(poses.rotation)
    angles -= angles[known].mean(axis=0)
    turning = angles / np.maximum(angles[known].std(axis=0), LEAST_TURN)
    products = turning[known].T @ turning[known] + ridge * np.eye(3)
    effect = np.linalg.solve(products, np.einsum("nj,nvc->jvc", turning[known], moved[known]).reshape(3, -1))
    return turning, effect.T.reshape(VERTICES, 3, 3)


def _align(shapes: np.ndarray, matrices: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Takes out of the shapes (N, 468, 3), in place, what is pose; returns the mean shape (468, 3) of `known` frames.

    MediaPipe's matrices also follow the mouth. Here the part of the face that no expression moves is laid on that of
    the mean shape, and what that takes goes into the matrices (N, 4, 4).
    """
    still = 1 - expression_weight()
    for _ in range(ALIGNMENTS):
        mean = shapes[known].mean(axis=0, dtype=np.float64)
        moves = similarity(mean, shapes, still)
        matrices[:] = matrices @ moves
        back = np.linalg.inv(moves)
        shapes[:] = shapes @ back[:, :3, :3].transpose(0, 2, 1) + back[:, None, :3, 3]
    return shapes[known].mean(axis=0, dtype=np.float64)


def _components(moved: np.ndarray, openings: np.ndarray) -> np.ndarray:
    """Principal components (1404, K) of movements (n, 1404), each as long as its standard deviation.

    Each is turned so that more of it goes with a wider mouth.
    """
    moved = moved - moved.mean(axis=0)
    variances, directions = np.linalg.eigh(moved.T.astype(np.float64) @ moved / len(moved))
    largest = slice(None, -min(EXPRESSIONS, len(moved) - 1) - 1, -1)
    variances, directions = variances[largest], directions[:, largest]
    kept = variances > LEAST_VARIANCE * max(float(variances.sum()), 1e-12)
    basis = directions[:, kept] * np.sqrt(variances[kept])
    with_mouth = (openings - openings.mean()) @ (moved @ basis)
    return basis * np.where(with_mouth < 0, -1.0, 1.0)


def between_known(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Values (N, C) in which those of frames that are not `known` are replaced by values between their neighbours'."""
    frames = np.arange(len(values))
    return np.stack([np.interp(frames, known, column[known]) for column in values.T], axis=1)


def _between_known_poses(matrices: np.ndarray, known: np.ndarray) -> Poses:
    scale = np.linalg.norm(matrices[:, :3, 0], axis=1)
    columns = matrices[:, :3] / scale[:, None, None]
    return _as_poses(between_known(columns.reshape(-1, 12), known))


def _smoothed(poses: Poses, shots: Sequence[tuple[int, int]]) -> Poses:
    from scipy.signal import savgol_filter

    columns = np.concatenate([poses.rotation, poses.translation[..., None]], axis=2).reshape(-1, 12)
    for start, stop in shots:
        if stop - start >= SMOOTHING_WINDOW:
            columns[start:stop] = savgol_filter(columns[start:stop], SMOOTHING_WINDOW, SMOOTHING_ORDER, axis=0)
    return _as_poses(columns)


def _as_poses(columns: np.ndarray) -> Poses:
    """From (N, 12), the rows of [R|t], whose rotations need not be quite such."""
    matrices = columns.reshape(-1, 3, 4)
    u, _, vt = np.linalg.svd(matrices[..., :3])
    return Poses(u @ vt, matrices[..., 3])


def model_pose(poses: Poses, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Rotation (N, 3) in radians and translation (N, 3) of a mirrored face model before a camera at `distance` cm.

    The face model's camera shows it mirrored, so its x axis points to the face's right. Its translation is subtracted
    before it is rotated: R (G - t) = R G + T, so t = -R^T T; T is relative to the point that the camera turns to.
    """
    mirror = np.array([-1.0, 1.0, 1.0])
    rotation = mirror[:, None] * poses.rotation * mirror
    moved = mirror * poses.translation + [0, 0, distance]
    translation = -(moved[:, None] @ rotation)[:, 0]
    return np.radians(matrix_to_euler(rotation)), translation
