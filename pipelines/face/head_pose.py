"""Head poses and where they put a face in the picture: Euler angles, head matrices, perspective, smoothing.

Everything is double precision NumPy over leading batch dimensions. Angles are degrees in the order x (pitch, positive
nods down), y (yaw, positive turns to the face's left), z (roll, positive leans to the face's right), and
R = Rz Ry Rx. The perspective and the pose arithmetic are AniPortrait's (src/utils/mp_utils.py and pose_util.py in its
repository), which drive its networks; the other drivers and renderers share them.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from ..errors import TalkingPortraitError
from ..types import Camera

NECK = np.array([0.0, -7.0, -4.0])
"""About where the head turns, cm in the canonical head frame: below and behind the ears' line."""
TEMPLATE_FPS = 30
"""Frame rate that AniPortrait's head-pose templates are stored at."""


def euler_to_matrix(degrees: np.ndarray) -> np.ndarray:
    """Rotation matrices (..., 3, 3) of Euler angles (..., 3)."""
    angles = np.radians(np.asarray(degrees, dtype=np.float64))
    sx, sy, sz = np.moveaxis(np.sin(angles), -1, 0)
    cx, cy, cz = np.moveaxis(np.cos(angles), -1, 0)
    matrix = np.empty((*angles.shape[:-1], 3, 3))
    matrix[..., 0, 0] = cz * cy
    matrix[..., 0, 1] = cz * sy * sx - sz * cx
    matrix[..., 0, 2] = cz * sy * cx + sz * sx
    matrix[..., 1, 0] = sz * cy
    matrix[..., 1, 1] = sz * sy * sx + cz * cx
    matrix[..., 1, 2] = sz * sy * cx - cz * sx
    matrix[..., 2, 0] = -sy
    matrix[..., 2, 1] = cy * sx
    matrix[..., 2, 2] = cy * cx
    return matrix


def matrix_to_euler(rotation: np.ndarray) -> np.ndarray:
    """Euler angles (..., 3) of rotation matrices (..., 3, 3); y lies in -90..90, and at +-90 z is 0."""
    r = np.asarray(rotation, dtype=np.float64)
    y = np.arctan2(-r[..., 2, 0], np.hypot(r[..., 0, 0], r[..., 1, 0]))
    locked = np.hypot(r[..., 0, 0], r[..., 1, 0]) < 1e-7
    x = np.where(locked, np.arctan2(-r[..., 1, 2], r[..., 1, 1]), np.arctan2(r[..., 2, 1], r[..., 2, 2]))
    z = np.where(locked, 0.0, np.arctan2(r[..., 1, 0], r[..., 0, 0]))
    return np.degrees(np.stack([x, y, z], axis=-1))


def nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    """Rotation matrices (..., 3, 3) by way of a unit quaternion, for 3 x 3 blocks with rounding or a scale near 1.

    Angles then agree with the published tools to the last digit, which a singular value decomposition does not.
    """
    m = np.asarray(matrix, dtype=np.float64)
    diagonal = np.moveaxis(np.diagonal(m, axis1=-2, axis2=-1), -1, 0)
    trace = diagonal.sum(axis=0)
    # 4 q q^T up to rounding; its row with the largest diagonal entry is the best conditioned multiple of q.
    product = np.empty((*m.shape[:-2], 4, 4))
    product[..., 3, 3] = 1 + trace
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        product[..., i, i] = 1 - trace + 2 * diagonal[i]
        product[..., i, j] = product[..., j, i] = m[..., j, i] + m[..., i, j]
        product[..., i, 3] = product[..., 3, i] = m[..., k, j] - m[..., j, k]
    best = np.concatenate([diagonal, trace[None]]).argmax(axis=0)
    q = np.take_along_axis(product, best[..., None, None], axis=-2)[..., 0, :]
    x, y, z, w = np.moveaxis(q / np.linalg.norm(q, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def head_matrix(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """[R|t] (..., 4, 4) of Euler angles (..., 3) in degrees and translations (..., 3) in cm."""
    translation = np.asarray(translation, dtype=np.float64)
    matrix = np.zeros((*translation.shape[:-1], 4, 4))
    matrix[..., :3, :3] = euler_to_matrix(rotation)
    matrix[..., :3, 3] = translation
    matrix[..., 3, 3] = 1.0
    return matrix


def split_matrix(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Euler angles and translation of head matrices (..., 4, 4); a scale near 1 is dropped."""
    matrix = np.asarray(matrix, dtype=np.float64)
    return matrix_to_euler(nearest_rotation(matrix[..., :3, :3])), matrix[..., :3, 3].copy()


def perspective_matrix(aspect: float, camera: Camera | None = None) -> np.ndarray:
    """The projection (4, 4), float32, for row vectors (v P) and a picture `aspect` times as wide as high."""
    camera = camera or Camera()
    depth = camera.near - camera.far
    matrix = np.zeros((4, 4), dtype=np.float32)
    matrix[0, 0] = camera.focal / aspect
    matrix[1, 1] = -camera.focal
    matrix[2, 2] = (camera.near + camera.far) / depth
    matrix[2, 3] = camera.far * camera.near / depth
    matrix[3, 2] = -1.0
    return matrix


def project(
    vertices: np.ndarray, matrix: np.ndarray, image_size: tuple[int, int], camera: Camera | None = None
) -> np.ndarray:
    """Pixels (..., N, 2), x right and y down, of `vertices` (..., N, 3) in cm under head matrices (..., 4, 4).

    `image_size` is (height, width). The published matrix is stored transposed, so the divisor is not
    the depth but 1.0001 times it (far * near / (far - near)): 0.03 pixels at 512, kept because networks learned it.
    """
    height, width = image_size
    matrix = np.asarray(matrix, dtype=np.float64)
    in_camera = vertices @ np.swapaxes(matrix[..., :3, :3], -1, -2) + matrix[..., None, :3, 3]
    perspective = perspective_matrix(width / height, camera).astype(np.float64)
    ndc = in_camera[..., :2] * np.diag(perspective)[:2] / (in_camera[..., 2:] * perspective[2, 3])
    return (ndc + 1) / 2 * np.array([width, height])


def smooth_poses(poses: np.ndarray, window: int) -> np.ndarray:
    """Centred moving average over the first axis; at the ends the window is cut, not padded.

    `poses` (F, ...) may hold Euler angles next to translations: angles are averaged as numbers, without unwrapping,
    as AniPortrait does. `window` frames; an even one reaches as far ahead as back.
    """
    poses = np.asarray(poses, dtype=np.float64)
    half = window // 2
    total = np.concatenate([np.zeros_like(poses[:1]), np.cumsum(poses, axis=0)])
    index = np.arange(len(poses))
    first, last = np.maximum(index - half, 0), np.minimum(index + half + 1, len(poses))
    counts = (last - first).reshape(-1, *[1] * (poses.ndim - 1))
    return (total[last] - total[first]) / counts


def pose_template(matrices: np.ndarray, fps: float | Fraction) -> np.ndarray:
    """A head-pose template (T, 6) at 30 frames a second, Euler degrees and cm, from a video's head matrices (F, 4, 4).

    Poses are relative to the first frame and act in the head's own frame (AniPortrait, scripts/generate_ref_pose.py).
    """
    # Detectors' matrices are kept in single precision in the published tool, and so are its templates.
    matrices = np.asarray(matrices, dtype=np.float32)
    if len(matrices) == 0:
        raise TalkingPortraitError("A head-pose template was requested for no frames; give a video with a face.")
    relative = np.linalg.inv(matrices[0]).astype(np.float32) @ matrices
    poses = np.concatenate(split_matrix(relative), axis=-1)
    seconds = len(poses) / float(fps)
    old = np.linspace(0, seconds, len(poses))
    new = np.linspace(0, seconds, max(1, int(len(poses) * TEMPLATE_FPS / float(fps))))
    resampled = np.stack([np.interp(new, old, column) for column in poses.T], axis=-1)
    return smooth_poses(resampled, 5)


def tile_template(template: np.ndarray, frames: int) -> np.ndarray:
    """`frames` poses from a template (T, 6), played forward and back again without a jump."""
    there_and_back = np.concatenate([template, template[-2:0:-1]])
    repeats = -(-frames // len(there_and_back))
    return np.tile(there_and_back, (repeats, 1))[:frames]


def about_neck(rotation: np.ndarray) -> np.ndarray:
    """The translation (..., 3) in cm that makes rotations (..., 3) in degrees turn about the neck."""
    return NECK - euler_to_matrix(rotation) @ NECK
