"""Colours and light of a person's face model, from the crops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from ...models.audiodvp.camera import rotation_matrix, to_pixels, to_world
from ...models.audiodvp.face_model import Coefficients, FaceModel
from ...models.audiodvp.lighting import AMBIENT, BANDS, harmonics
from ..face.smoothing import average_over_time

FACING = 0.25
"""Cosine of the angle between a vertex's normal and the line to the camera from which on its colour is taken."""
LIGHT_SECONDS = 0.1
"""Light is smoothed over about this time."""
RIDGE = 0.3
"""Weight, over that of the mean vertex, by which light is drawn to that of the whole video."""


def face_colours(model: FaceModel, face: Coefficients, crops: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Colours (n, V, 3) in 0..1 of the vertices in crops (n, S, S, 3) uint8, and their unit normals (n, V, 3).

    Colours are NaN where a vertex is turned away or lies outside.
    """
    size = crops.shape[1]
    geometry, rotation = model.geometry(face.alpha, face.delta), rotation_matrix(face.rotation)
    world = to_world(geometry, rotation, face.translation)
    normals = model.normals(geometry) @ rotation.transpose(1, 2)
    to_camera = F.normalize(world.new_tensor([0, 0, model.camera.eye_z]) - world, dim=-1)
    places = to_pixels(model.camera.project(world), (size, size)) * (2 / size) - 1
    pictures = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255
    colours = F.grid_sample(pictures, places[:, None], align_corners=False, padding_mode="border")
    shown = ((normals * to_camera).sum(-1) > FACING) & (places.abs() < 1).all(-1)
    return torch.where(shown[..., None], colours[:, :, 0].transpose(1, 2), torch.nan), normals


def median_albedo(colours: torch.Tensor, triangles: torch.Tensor) -> torch.Tensor:
    """Albedo (V, 3) of vertices with colours (n, V, 3), NaN where unseen: under no light but the ambient their median.

    A vertex that no frame shows gets the mean of its neighbours.
    """
    albedo = colours.nanmedian(0).values / ambient_shade()
    edges = torch.cat([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]).long()
    one, other = torch.cat([edges, edges.flip(1)]).unbind(1)
    while (unknown := albedo.isnan().any(1)).any() and not unknown.all():
        known = (~unknown[other]).float()[:, None]
        total = torch.zeros_like(albedo).index_add(0, one, albedo[other].nan_to_num() * known)
        count = torch.zeros_like(albedo[:, :1]).index_add(0, one, known)
        reached = unknown & (count[:, 0] > 0)
        if not reached.any():
            break
        albedo[reached] = (total / count)[reached]
    return albedo.nan_to_num(0.5)


def ambient_shade() -> float:
    """What the light of a face model without coefficients multiplies an albedo by."""
    return AMBIENT * float(harmonics(torch.zeros(1, 1, 3))[0, 0, 0])


def fit_light(albedo: torch.Tensor, normals: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    """Light (n, 27) under which vertices of an albedo (V, 3) and unit normals (n, V, 3) have the colours (n, V, 3).

    The least-squares solution over the vertices that are shown, which are not NaN.
    """
    basis = harmonics(normals)
    shown = (~colours.isnan().any(-1))[..., None].float()
    rows = albedo[:, :, None] * basis[:, :, None] * shown[..., None]  # (n, V, 3, 9)
    missing = (colours.nan_to_num() - albedo * ambient_shade()) * shown
    products = torch.einsum("nvci,nvcj->ncij", rows, rows).double()
    wanted = torch.einsum("nvci,nvc->nci", rows, missing).double()
    ridge = RIDGE * products.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=1e-6)
    products = products + ridge[..., None, None] * torch.eye(BANDS, dtype=torch.float64)
    light = torch.linalg.solve(products, wanted[..., None])[..., 0]
    return light.transpose(1, 2).flatten(1).float()  # band-major


def smooth_light(light: np.ndarray, shots: Sequence[tuple[int, int]], fps: float) -> np.ndarray:
    """Light (N, 27) averaged over neighbouring frames of the same shot."""
    smooth = light.copy()
    for start, stop in shots:
        if stop - start > 1:
            smooth[start:stop] = average_over_time(light[start:stop], LIGHT_SECONDS * fps)
    return smooth
