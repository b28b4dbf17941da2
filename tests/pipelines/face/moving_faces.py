"""Synthetic face motions for tests."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from talking_portrait.models.face.face_mesh import BLENDSHAPES
from talking_portrait.models.face.mouth_shapes import mouth_blendshapes, mouth_vertices, neutral_vertices
from talking_portrait.models.face.upper_face_shapes import upper_face_shapes
from talking_portrait.pipelines.face.head_pose import head_matrix
from talking_portrait.pipelines.types import Camera, FaceMotion, FaceTrack


def face_motion(
    frames: int = 20,
    seed: int = 0,
    fps: Fraction | int = 25,
    *,
    jaw: np.ndarray | None = None,
    closed: np.ndarray | None = None,
    pose: str = "head",
) -> FaceMotion:
    """Smooth random face motion; `jaw` and `closed` (F,) set the mouth and the eyelids instead."""
    random = np.random.default_rng(seed)
    phase = np.arange(frames)[:, None] / 7 + random.uniform(0, 6, 12)
    waves = np.sin(phase * random.uniform(0.5, 2, 12))
    controls = np.zeros((frames, 6))
    controls[:, :3] = 0.4 + 0.3 * waves[:, :3]
    if jaw is not None:
        controls[:] = 0
        controls[:, 0] = jaw
    lids = np.zeros(frames) if closed is None else np.asarray(closed, dtype=np.float64)
    shapes = upper_face_shapes()
    blendshapes = mouth_blendshapes(controls)
    vertices = neutral_vertices() + mouth_vertices(controls)
    for name, weight in (
        ("browInnerUp", 0.3 + 0.3 * waves[:, 3]),
        ("browDownLeft", 0.2 + 0.2 * waves[:, 4]),
        ("eyeBlinkLeft", lids),
        ("eyeBlinkRight", lids),
    ):
        weight = weight.astype(np.float32)
        vertices += weight[:, None, None] * shapes[name]
        blendshapes[:, BLENDSHAPES.index(name)] = weight
    translation = (0.5 * waves[:, 8:11]).astype(np.float32)
    if pose == "camera":
        translation += np.array([1, -2, -55], dtype=np.float32)
    return FaceMotion(
        vertices=vertices.astype(np.float32),
        neutral=neutral_vertices(),
        rotation=(6 * waves[:, 5:8]).astype(np.float32),
        translation=translation,
        fps=Fraction(fps),
        blendshapes=blendshapes,
        pose=pose,  # type: ignore[arg-type]
        tongue=(0.5 + 0.5 * waves[:, 11]).astype(np.float32),
        lip_press=controls[:, 3].astype(np.float32),
        pucker=controls[:, 2].astype(np.float32),
        gaze=(10 * waves[:, 1:3]).astype(np.float32),
        breath=(0.5 + 0.5 * waves[:, 0]).astype(np.float32),
    )


def same(a: FaceMotion, b: FaceMotion, tolerance: float = 1e-4) -> bool:
    """Whether two motions agree in everything."""
    close = [
        np.allclose(x, y, rtol=0, atol=tolerance)
        for x, y in ((a.vertices, b.vertices), (a.neutral, b.neutral), (a.blendshapes, b.blendshapes))
    ]
    close += [np.allclose(getattr(a, n), getattr(b, n), rtol=0, atol=tolerance) for n in ("rotation", "translation")]
    close += [np.allclose(a.curves[n], b.curves[n], rtol=0, atol=tolerance) for n in a.curves if n in b.curves]
    known = set(a.curves), set(b.curves)
    return all(close) and known[0] == known[1] and (a.fps, a.pose, a.camera) == (b.fps, b.pose, b.camera)


def in_camera_pose(
    vertices: np.ndarray, rotation: np.ndarray, translation: np.ndarray, size: tuple[int, int] = (512, 512)
) -> FaceTrack:
    """The landmarks that a perfect landmarker would find of metric faces (F, 468, 3) in camera poses (F, 3)."""
    height, width = size
    matrix = head_matrix(rotation, translation)
    in_camera = vertices @ matrix[:, :3, :3].transpose(0, 2, 1) + matrix[:, None, :3, 3]
    focal = Camera().focal * height / 2
    distance = -in_camera[..., 2]
    x, y = in_camera[..., 0] / distance * focal + width / 2, height / 2 - in_camera[..., 1] / distance * focal
    z = (distance / distance.mean(axis=1, keepdims=True) - 1) * focal
    points = np.stack([x, y, z], axis=-1)
    return FaceTrack(points, np.ones(len(points), dtype=bool), size, matrix)
