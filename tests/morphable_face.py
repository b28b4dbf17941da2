"""A small morphable face model of MediaPipe's vertices."""

from __future__ import annotations

import numpy as np
import torch
from talking_portrait.models.audiodvp.face_model import FaceModel
from talking_portrait.models.face.face_mesh import face_mesh
from talking_portrait.pipelines.audiodvp.morphable.coefficients import LANDMARKS_68


def morphable_face(expressions: int, seed: int = 0, *, identities: int = 0) -> FaceModel:
    """A face model of MediaPipe's vertices, in decimetres and mirrored, with smooth random expressions.

    With `identities` their bases are likewise random, three more make the face wider, higher and deeper, and the
    expressions move the lower face alone.
    """
    points = torch.from_numpy(face_mesh().vertices.copy()).float() * torch.tensor([-0.1, 0.1, 0.1])
    generator = torch.Generator().manual_seed(seed)
    waves = torch.randn(expressions, 3, 3, generator=generator)
    bases = 0.03 * torch.sin(torch.einsum("vc,kcd->vdk", points * 3, waves))
    mean = points.reshape(-1, 1)
    own = torch.zeros(len(mean), 1)
    if identities:
        waves = torch.randn(identities, 3, 3, generator=generator)
        smooth = 0.03 * torch.sin(torch.einsum("vc,kcd->vdk", points * 2, waves))
        own = torch.cat([smooth, 0.06 * torch.diag_embed(points)], 2).flatten(0, 1)
        bases *= torch.sigmoid(-20 * points[:, 1] - 5)[:, None, None]
    triangles = torch.from_numpy(face_mesh().triangles.astype(np.int32))
    return FaceModel(
        geo_mean=mean,
        id_base=own,
        exp_base=bases.flatten(0, 1),
        tex_mean=torch.zeros(len(mean), 1),
        tex_base=torch.zeros(len(mean), 1),
        triangles=triangles,
        lower_triangles=triangles.clone(),
        point_buf=torch.zeros(len(points), 8, dtype=torch.long),
        landmark_index=torch.tensor(LANDMARKS_68),
    )
