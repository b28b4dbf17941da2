"""Shape, expression and pose of a person's face in every frame, from landmarks alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ...models.face.face_mesh import VERTICES, mouth_opening
from ..errors import TalkingPortraitError
from ..face.head_pose import matrix_to_euler
from ..face.metric_mesh import metric_mesh, similarity
from ..image.affine_sampling import apply_map
from ..person.over_frames import between_known, smooth_within
from ..types import Progress, no_progress
from .person_mesh import expression_weight

EXPRESSIONS = 32
"""Most components of the expression basis (spec: K <= 32)."""
STILL = 0.01
"""Variance in cm^2, summed over all coordinates, of a face that does not move; that of two speakers is 9 to 12."""
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
    to_crop: np.ndarray,
    usable: np.ndarray,
    shots: Sequence[tuple[int, int]],
    size: int,
    fps: float,
    progress: Progress = no_progress,
) -> PersonShape:
    """Mean shape, expression basis, expressions and poses of a face.

    `points` (N, P, 3) are landmarks in the pixels of the frames, `to_crop` (2, 3) is the map from there to the square
    crops of `size`; `usable` (N,) are the frames, at least one, to learn from. The others get what lies between their
    neighbours. Poses are smoothed within `shots`.

    Raises TalkingPortraitError for a face that does not move.
    """
    frames = len(points)
    shapes = np.empty((frames, VERTICES, 3), np.float32)
    matrices = np.empty((frames, 4, 4))
    for block in _blocks(frames):
        shapes[block], matrices[block] = metric_mesh(apply_map(to_crop, points[block]), (size, size))
        progress(min(block.stop, frames), frames)
    known = np.flatnonzero(usable)
    mean = _align(shapes, matrices, known)
    openings = mouth_opening(shapes[known])
    poses = _smoothed(_between_known_poses(matrices, known), shots)
    turning, turning_basis = _turning(poses, shapes, mean, known, RIDGE_SECONDS * fps)
    for block in _blocks(frames):
        shapes[block] -= mean + np.einsum("vcj,nj->nvc", turning_basis, turning[block])
    shapes *= expression_weight()[:, None]
    moved = shapes.reshape(frames, -1)
    basis = _components(moved, known)
    expression = between_known(moved @ (basis / np.square(basis).sum(axis=0)).astype(np.float32), known)
    with_mouth = (openings - openings.mean()) @ expression[known]
    signs = np.where(with_mouth < 0, -1.0, 1.0)  # so that more of each component goes with a wider mouth
    basis, expression = basis * signs, expression * signs
    opened = wide_open(openings, expression[known])
    return PersonShape(mean, turning_basis, turning, basis.reshape(VERTICES, 3, -1), expression, opened, poses)


def wide_open(openings: np.ndarray, expression: np.ndarray) -> np.ndarray:
    """The expression (K,) of the mouth wide open, of frames with these openings (n,) and expressions (n, K)."""
    widest = np.argsort(openings)[-max(1, round(WIDEST * len(openings))) :]
    opened: np.ndarray = WIDER * expression[widest].mean(axis=0)
    return opened


def _blocks(frames: int) -> Iterator[slice]:
    """All frames, some at a time: what is computed of them in double precision takes several times their memory."""
    for start in range(0, frames, BLOCK):
        yield slice(start, start + BLOCK)


def _turning(
    poses: Poses, shapes: np.ndarray, mean: np.ndarray, known: np.ndarray, ridge: float
) -> tuple[np.ndarray, np.ndarray]:
    """The head's angles, standardised (N, 3), and their linear effect (468, 3, 3) on shapes, beside their mean.

    Landmarks are a flat picture's: the depth of a turned face is wrong in the same way each time. What follows the
    angles is left out of the expressions, as speech can't predict it.
    """
    angles = matrix_to_euler(poses.rotation)
    angles -= angles[known].mean(axis=0)
    turning = angles / np.maximum(angles[known].std(axis=0), LEAST_TURN)
    products = turning[known].T @ turning[known] + ridge * np.eye(3)
    together = sum(
        np.einsum("nj,nvc->jvc", turning[known[block]], shapes[known[block]] - mean) for block in _blocks(len(known))
    )
    effect = np.linalg.solve(products, np.reshape(together, (3, -1)))
    return turning, effect.T.reshape(VERTICES, 3, 3)


def _align(shapes: np.ndarray, matrices: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Takes out of the shapes (N, 468, 3), in place, what is pose; returns the mean shape (468, 3) of `known` frames.

    MediaPipe's matrices also follow the mouth. Here the part of the face that no expression moves is laid on that of
    the mean shape, and what that takes goes into the matrices (N, 4, 4).
    """
    still = 1 - expression_weight()
    for _ in range(ALIGNMENTS):
        mean = _mean(shapes, known)
        for block in _blocks(len(shapes)):
            moves = similarity(mean, shapes[block], still)
            matrices[block] = matrices[block] @ moves
            back = np.linalg.inv(moves)
            shapes[block] = shapes[block] @ back[:, :3, :3].transpose(0, 2, 1) + back[:, None, :3, 3]
    return _mean(shapes, known)


def _mean(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    return sum(values[known[block]].sum(axis=0, dtype=np.float64) for block in _blocks(len(known))) / len(known)


def _components(moved: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Principal components (1404, K) of the movements (N, 1404) in `known` frames, each as long as its deviation.

    Raises TalkingPortraitError for a face that does not move.
    """
    mean = _mean(moved, known)
    products = np.zeros((len(mean), len(mean)))
    for block in _blocks(len(known)):
        centred = moved[known[block]] - mean
        products += centred.T @ centred
    variances, directions = np.linalg.eigh(products / len(known))
    largest = slice(None, -min(EXPRESSIONS, len(known) - 1) - 1, -1)
    variances, directions = variances[largest], directions[:, largest]
    if not variances.sum() > STILL:
        raise TalkingPortraitError(
            "The face does not move in the video, so no expression can be learnt from it; give a video in which the "
            "person speaks."
        )
    kept = variances > LEAST_VARIANCE * variances.sum()
    return directions[:, kept] * np.sqrt(variances[kept])


def _between_known_poses(matrices: np.ndarray, known: np.ndarray) -> Poses:
    scale = np.linalg.norm(matrices[:, :3, 0], axis=1)
    columns = matrices[:, :3] / scale[:, None, None]
    return _as_poses(between_known(columns.reshape(-1, 12), known))


def _smoothed(poses: Poses, shots: Sequence[tuple[int, int]]) -> Poses:
    columns = np.concatenate([poses.rotation, poses.translation[..., None]], axis=2).reshape(-1, 12)
    return _as_poses(smooth_within(columns, shots, SMOOTHING_WINDOW, SMOOTHING_ORDER))


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
