"""Landmarks in a picture to a face in space: MediaPipe's metric mesh and head matrix.

MediaPipe's landmarks are a weak-perspective picture of a face. Its face-geometry stage takes the canonical head as
the scale: weighted Procrustes fits give the size and the distance of the face, then the landmarks are converted to
centimetres under a camera with 63 degrees of vertical field of view.
"""

from __future__ import annotations

import math

import numpy as np

from ...models.face.face_mesh import VERTICES, face_mesh
from ..errors import TalkingPortraitError
from ..types import Camera


def metric_mesh(
    points: np.ndarray, image_size: tuple[int, int], camera: Camera | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The metric face of landmarks.

    `points` (P, 3) or (F, P, 3), P >= 468: x and y in pixels, z in the same pixel scale, as FaceTrack holds them;
    `image_size` (height, width). Returns the face's own shape in the canonical head frame, (..., 468, 3) in cm, and
    the matrix (..., 4, 4) from that frame to the camera (looking along -z, y up). The matrix is a similarity: its
    upper left 3 x 3 block is a rotation times a scale near 1. Only the picture's aspect matters, not its resolution.
    """
    points = np.asarray(points, dtype=np.float64)
    if points.ndim not in (2, 3) or points.shape[-2] < VERTICES or points.shape[-1] != 3:
        raise TalkingPortraitError(
            f"Face landmarks have the shape {points.shape}, but (frames, 468 or more, 3) is expected; "
            "make them with Detect Landmarks."
        )
    camera = camera or Camera()
    batch = points[None] if points.ndim == 2 else points
    on_screen = _to_near_plane(batch[:, :VERTICES], image_size, camera)
    depth = on_screen[..., 2].mean(axis=-1, keepdims=True)

    # Two rounds: the first size estimate ignores perspective, the second is made after undoing it.
    flat = on_screen * np.array([1.0, 1.0, -1.0])
    first = _scale(_similarity_from_canonical(flat))
    second = _scale(_similarity_from_canonical(_to_metric(on_screen, depth, first, camera)))
    metric = _to_metric(on_screen, depth, first * second, camera)
    matrix = _similarity_from_canonical(metric)

    inverse = np.linalg.inv(matrix)
    vertices = metric @ inverse[:, :3, :3].transpose(0, 2, 1) + inverse[:, None, :3, 3]
    if points.ndim == 2:
        return vertices[0], matrix[0]
    return vertices, matrix


def project(
    vertices: np.ndarray, matrix: np.ndarray, image_size: tuple[int, int], camera: Camera | None = None
) -> np.ndarray:
    """Pixels (..., N, 2) of vertices (..., N, 3) in the head frame under `matrix` (..., 4, 4), head to camera.

    It puts the vertices that `metric_mesh` returns where their landmarks are.
    """
    camera = camera or Camera()
    height, width = image_size
    in_camera = vertices @ np.swapaxes(matrix[..., :3, :3], -1, -2) + matrix[..., None, :3, 3]
    scale = camera.focal * height / 2 / -in_camera[..., 2]
    x = width / 2 + scale * in_camera[..., 0]
    return np.stack([x, height / 2 - scale * in_camera[..., 1]], axis=-1)


def _to_near_plane(points: np.ndarray, image_size: tuple[int, int], camera: Camera) -> np.ndarray:
    """Pixels to cm on the camera's near plane, centred, y up; z stays positive away from the camera."""
    height, width = image_size
    plane_height = 2 * camera.near * math.tan(math.radians(camera.vertical_fov / 2))
    plane_width = plane_height * width / height
    out = np.empty_like(points)
    out[..., 0] = (points[..., 0] / width - 0.5) * plane_width
    out[..., 1] = (0.5 - points[..., 1] / height) * plane_height
    out[..., 2] = points[..., 2] / width * plane_width
    return out


def _to_metric(on_screen: np.ndarray, depth: np.ndarray, scale: np.ndarray, camera: Camera) -> np.ndarray:
    """Undo the perspective for a face that is `scale` (F,) times the canonical head on the near plane."""
    out = np.empty_like(on_screen)
    distance = (on_screen[..., 2] - depth + camera.near) / scale[:, None]
    out[..., 0] = on_screen[..., 0] * distance / camera.near
    out[..., 1] = on_screen[..., 1] * distance / camera.near
    out[..., 2] = -distance
    return out


def _similarity_from_canonical(target: np.ndarray) -> np.ndarray:
    """The weighted least-squares similarity (F, 4, 4) that carries the canonical vertices to `target` (F, 468, 3)."""
    mesh = face_mesh()
    chosen = np.flatnonzero(mesh.procrustes)
    return similarity(mesh.vertices[chosen], target[:, chosen], mesh.procrustes[chosen])


def similarity(source: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The similarities (F, 4, 4) that carry points (N, 3) to `target` (F, N, 3) with the least weighted squares.

    `weight` (N,) is that of each point. A similarity is a rotation, a scale and a translation, never a reflection.
    """
    weight, source = weight.astype(np.float64), source.astype(np.float64)
    total = weight.sum()
    centred = source - (weight[:, None] * source).sum(axis=0) / total
    weighted = centred * weight[:, None]

    u, _, vt = np.linalg.svd(target.transpose(0, 2, 1) @ weighted)
    rotation = _proper(u, vt)
    scale = np.einsum("fij,nj,fni->f", rotation, weighted, target) / (weighted * source).sum()
    matrix = np.zeros((len(target), 4, 4))
    matrix[:, :3, :3] = rotation * scale[:, None, None]
    moved = source @ matrix[:, :3, :3].transpose(0, 2, 1)
    matrix[:, :3, 3] = ((target - moved) * weight[:, None]).sum(axis=1) / total
    matrix[:, 3, 3] = 1.0
    return matrix


def _proper(u: np.ndarray, vt: np.ndarray) -> np.ndarray:
    """U Vt with the weakest direction turned where the product would be a reflection."""
    u = u.copy()
    u[..., :, 2] *= np.where(np.linalg.det(u) * np.linalg.det(vt) < 0, -1.0, 1.0)[..., None]
    return u @ vt


def _scale(matrix: np.ndarray) -> np.ndarray:
    return np.linalg.norm(matrix[:, :3, 0], axis=-1)
