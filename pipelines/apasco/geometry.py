"""Dense face geometry: meshes of a portrait and of the frames, in units of the face itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ...models.face.face_mesh import OUTER_EYE_CORNERS, VERTICES
from ..errors import TalkingPortraitError
from ..face.head_pose import euler_to_matrix
from ..types import FaceMotion, FaceTrack


@dataclass(frozen=True)
class Geometry:
    """`portrait` (1, P, 3) and `meshes` (1, F, P, 3) float32: x right, y down, z away from the viewer.

    The portrait's centre is 0, its outer eye corners are 1 apart.
    """

    portrait: torch.Tensor
    meshes: torch.Tensor

    def frames(self, start: int, end: int) -> torch.Tensor:
        """(1, end - start, P, 3); before the first and after the last frame those stand still."""
        return self.meshes[:, torch.arange(start, end).clamp(0, self.meshes.shape[1] - 1)]


def normalised(portrait: np.ndarray, meshes: np.ndarray) -> Geometry:
    """Of the portrait's points (P, 3) and those of the frames (F, P, 3), in any unit, the same for both.

    Raises TalkingPortraitError for points that are no face.
    """
    if meshes.ndim != 3 or meshes.shape[1:] != portrait.shape:
        raise _no_face(meshes, portrait)
    return Geometry(_tensor(_in_units_of(portrait, portrait)), _tensor(_in_units_of(portrait, meshes)))


def as_geometry(source: Geometry | FaceTrack | FaceMotion, portrait: np.ndarray | None = None) -> Geometry:
    """The geometry of a motion or of landmarks, with the `portrait`'s own; see `geometry_of_track`."""
    if isinstance(source, FaceTrack):
        return geometry_of_track(source, portrait)
    return geometry_of_motion(source) if isinstance(source, FaceMotion) else source


def geometry_of_track(track: FaceTrack, portrait: np.ndarray | None = None) -> Geometry:
    """The meshes of landmarks, of the portrait alone, which stands still, or of a driving video.

    `portrait` (468 or 478, 3) are the portrait's own landmarks. They are the reference of a driving video, whatever its
    first frame does; that frame gives the size and place of the driving face, which may be of another picture. Without
    a portrait the first frame is the reference.
    """
    points = np.asarray(track.points[:, :VERTICES], dtype=np.float64)
    rest = points[0] if portrait is None else np.asarray(portrait, dtype=np.float64)[:VERTICES]
    if rest.shape != points.shape[1:]:
        raise _no_face(points, rest)
    return Geometry(_tensor(_in_units_of(rest, rest)), _tensor(_in_units_of(points[0], points)))


def geometry_of_motion(motion: FaceMotion) -> Geometry:
    """The meshes of a motion, turned and moved as the head is; its shape at rest is the portrait."""
    meshes = np.einsum("fij,fpj->fpi", euler_to_matrix(motion.rotation), motion.vertices)
    meshes += motion.translation[:, None]
    to_picture = np.array([1.0, -1.0, -1.0])
    return normalised(motion.neutral * to_picture, meshes * to_picture)


def _in_units_of(face: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (..., P, 3) with the centre of `face` (P, 3) at 0 and its outer eye corners 1 apart."""
    right, left = OUTER_EYE_CORNERS
    distance = float(np.linalg.norm(face[right] - face[left])) if face.ndim == 2 and len(face) >= VERTICES else 0.0
    if not (np.isfinite(distance) and distance > 0):
        raise _no_face(points, face)
    return (points - face.mean(axis=0)) / distance


def _no_face(meshes: np.ndarray, portrait: np.ndarray) -> TalkingPortraitError:
    return TalkingPortraitError(
        f"The face geometry has points {meshes.shape} over a portrait of {portrait.shape}, but (frames, 468 or 478, 3) "
        "of a face, and as many points in the portrait, are expected."
    )


def _tensor(points: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(points.astype(np.float32))[None]
