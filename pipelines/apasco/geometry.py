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
    """Of the portrait's points (P, 3) and those of the frames (F, P, 3), in any unit.

    Raises TalkingPortraitError for points that are no face.
    """
    right, left = OUTER_EYE_CORNERS
    distance = float(np.linalg.norm(portrait[right] - portrait[left])) if len(portrait) >= VERTICES else 0.0
    if not (np.isfinite(distance) and distance > 0) or meshes.ndim != 3 or meshes.shape[1:] != portrait.shape:
        raise TalkingPortraitError(
            f"The face geometry has points {meshes.shape} over a portrait of {portrait.shape}, but (frames, 468 or "
            "478, 3) of a face, and as many points in the portrait, are expected."
        )
    centre = portrait.mean(axis=0)

    def tensor(points: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(((points - centre) / distance).astype(np.float32))[None]

    return Geometry(tensor(portrait), tensor(meshes))


def as_geometry(source: Geometry | FaceTrack | FaceMotion) -> Geometry:
    """The geometry of landmarks or of a motion."""
    if isinstance(source, FaceTrack):
        return geometry_of_track(source)
    return geometry_of_motion(source) if isinstance(source, FaceMotion) else source


def geometry_of_track(track: FaceTrack, portrait: FaceTrack | None = None) -> Geometry:
    """The meshes of landmarks; one frame alone stands still. Without a `portrait` the first frame is it."""
    points = track.points[:, :VERTICES]
    rest = (portrait or track).points[0, :VERTICES]
    return normalised(np.asarray(rest, dtype=np.float64), np.asarray(points, dtype=np.float64))


def geometry_of_motion(motion: FaceMotion) -> Geometry:
    """The meshes of a motion, turned and moved as the head is; its shape at rest is the portrait."""
    meshes = np.einsum("fij,fpj->fpi", euler_to_matrix(motion.rotation), motion.vertices)
    meshes += motion.translation[:, None]
    to_picture = np.array([1.0, -1.0, -1.0])
    return normalised(motion.neutral * to_picture, meshes * to_picture)
