"""The morphable face model: a mean face with linear bases of identity, expression and texture, and its triangles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from ..checkpoints import State, check_kind, read_checkpoint
from ..errors import TalkingPortraitError, one_line
from ..torch_file import DAMAGE
from ..weight_files import save_tensors
from .camera import Camera, rotation_matrix, to_pixels, to_world
from .lighting import illuminate
from .rasterizer import coverage, rasterize, shade

MAX_ADJACENT = 8
"""Triangles around a vertex that its normal is computed from."""


@dataclass(frozen=True)
class Coefficients:
    """A face in one or more frames. What is the same in all frames may have a batch of 1.

    `alpha` (B, identities, 1), `delta` (B, expressions, 1), `beta` (B, textures, 1), `gamma` (B, 27, 1),
    `rotation` (B, 3, 1) in radians about x, y and z, `translation` (B, 3, 1) in the model's unit.
    """

    alpha: torch.Tensor
    delta: torch.Tensor
    beta: torch.Tensor
    gamma: torch.Tensor
    rotation: torch.Tensor
    translation: torch.Tensor


@dataclass(frozen=True)
class RenderedFace:
    """`image` (B, 3, H, W) RGB in 0..1 on black, `alpha` (B, 1, H, W), `landmarks` (B, L, 2) x and y in pixels."""

    image: torch.Tensor
    alpha: torch.Tensor
    landmarks: torch.Tensor


@dataclass(frozen=True)
class FaceModel:
    """The tensors of a morphable face model with V vertices and F triangles.

    `geo_mean` (3V, 1) and `tex_mean` (3V, 1), RGB in 0..1, are interleaved: x0, y0, z0, x1 and so on; so are the rows
    of `id_base` (3V, identities), `exp_base` (3V, expressions) and `tex_base` (3V, textures). `triangles` (F, 3) and
    `lower_triangles` (L, 3) int32 are vertex numbers from 0; `point_buf` (V, 8) int64 the triangles around each vertex,
    filled up with F; `landmark_index` int64 the vertices of the 68 landmarks. `mirrored` says that with the camera's
    roll the model's left is the image's left.
    """

    geo_mean: torch.Tensor
    id_base: torch.Tensor
    exp_base: torch.Tensor
    tex_mean: torch.Tensor
    tex_base: torch.Tensor
    triangles: torch.Tensor
    lower_triangles: torch.Tensor
    point_buf: torch.Tensor
    landmark_index: torch.Tensor
    camera: Camera = field(default_factory=Camera)
    mirrored: bool = True

    @property
    def vertices(self) -> int:
        return len(self.geo_mean) // 3

    def tensors(self) -> State:
        """Name to tensor."""
        return {name: getattr(self, name) for name in TENSORS}

    def to(self, device: torch.device) -> FaceModel:
        moved = {name: tensor.to(device) for name, tensor in self.tensors().items()}
        return FaceModel(**moved, camera=self.camera, mirrored=self.mirrored)

    def geometry(self, alpha: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        """Vertices (B, V, 3) in model space of identities (B or 1, n, 1) and expressions (B, n, 1)."""
        return (self.geo_mean + self.id_base @ alpha + self.exp_base @ delta).unflatten(1, (-1, 3))[..., 0]

    def albedo(self, beta: torch.Tensor) -> torch.Tensor:
        """Colours (B, V, 3) without light, about 0..1, of textures (B, n, 1)."""
        return (self.tex_mean + self.tex_base @ beta).unflatten(1, (-1, 3))[..., 0]

    def normals(self, geometry: torch.Tensor) -> torch.Tensor:
        """Unit normals (B, V, 3) of vertices (B, V, 3): the sum of those of the triangles around, weighted by area."""
        first, second, third = geometry[:, self.triangles.long()].unbind(2)
        # The published program gives no dimension, so that old PyTorch takes the batch where it has three meshes.
        faces = torch.linalg.cross(first - second, second - third, dim=-1)
        faces = F.pad(faces, (0, 0, 0, 1))  # one of zeros, for the places without a triangle
        return F.normalize(faces[:, self.point_buf].sum(2), dim=-1, eps=1e-12)

    def pixels(self, face: Coefficients, size: tuple[int, int]) -> torch.Tensor:
        """Places (B, V, 2) of the vertices, x and y in pixels of an image of (height, width)."""
        return to_pixels(self._clip(face), size)

    def render(self, face: Coefficients, size: tuple[int, int], *, lower: bool = False) -> RenderedFace:
        """An image of (height, width) pixels; `lower` draws the triangles of the lower face only.

        Raises TalkingPortraitError for coefficients that are NaN or infinite.
        """
        geometry, rotation = self.geometry(face.alpha, face.delta), rotation_matrix(face.rotation)
        clip = self.camera.project(to_world(geometry, rotation, face.translation))
        normals = self.normals(geometry) @ rotation.transpose(1, 2)
        colours = illuminate(self.albedo(face.beta), normals, face.gamma)
        batch = max(len(clip), len(colours))  # light may change where the pose does not
        clip, colours = clip.expand(batch, -1, -1), colours.expand(batch, -1, -1)
        triangles = self.lower_triangles if lower else self.triangles
        image, alpha = shade(rasterize(clip, triangles, size), triangles, colours)
        return RenderedFace(image, alpha, to_pixels(clip[:, self.landmark_index], size))

    def coverage(self, face: Coefficients, size: tuple[int, int], *, lower: bool = False) -> torch.Tensor:
        """What `render` gives as alpha (B, 1, H, W), without colours and light."""
        return coverage(rasterize(self._clip(face), self.lower_triangles if lower else self.triangles, size))

    def _clip(self, face: Coefficients) -> torch.Tensor:
        """Homogeneous places (B, V, 4) of the vertices before the camera."""
        world = to_world(self.geometry(face.alpha, face.delta), rotation_matrix(face.rotation), face.translation)
        return self.camera.project(world)

    def save(self, path: str | Path) -> None:
        """Writes one .safetensors, with the camera and `mirrored` in its metadata."""
        metadata = {"camera": json.dumps(asdict(self.camera)), "mirrored": json.dumps(self.mirrored)}
        save_tensors({name: tensor.contiguous() for name, tensor in self.tensors().items()}, path, metadata)


TENSORS = tuple(entry.name for entry in fields(FaceModel) if entry.name not in ("camera", "mirrored"))


def lower_triangles(geo_mean: torch.Tensor, triangles: torch.Tensor) -> torch.Tensor:
    """The triangles (L, 3) that have a vertex below the centre of the vertices of the mean face (3V, 1).

    Published as "mouth triangles", though it is all of the lower face.
    """
    height = geo_mean.reshape(-1, 3)[:, 1]
    below = height - height.mean() < 0
    return triangles[below[triangles.long()].any(1)]


def adjacent_triangles(triangles: torch.Tensor, vertices: int) -> torch.Tensor:
    """(V, 8) int64: for each vertex the numbers of its first eight triangles in ascending order, filled up with F."""
    count = len(triangles)
    vertex = triangles.long().flatten()
    order = vertex.argsort(stable=True)
    per_vertex = torch.bincount(vertex, minlength=vertices)
    place = torch.arange(len(vertex)) - (per_vertex.cumsum(0) - per_vertex)[vertex[order]]
    first = place < MAX_ADJACENT
    table = torch.full((vertices, MAX_ADJACENT), count)
    table[vertex[order][first], place[first]] = order[first] // 3
    return table


def load_face_model(path: str | Path) -> FaceModel:
    """The file that `FaceModel.save` writes. Raises TalkingPortraitError for another one, or one that is damaged."""
    from safetensors import SafetensorError, safe_open

    state = read_checkpoint(path)
    check_kind(state, ("face_model",), "a face model (.safetensors)", path)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError:
        metadata = {}
    return build_face_model(state, metadata, path=path)


def build_face_model(state: Mapping[str, torch.Tensor], metadata: Mapping[str, str], *, path: str | Path) -> FaceModel:
    """From named tensors and metadata; `path` names them in errors."""
    title = Path(path).name
    missing, unknown = [name for name in TENSORS if name not in state], sorted(set(state) - set(TENSORS))
    if missing or unknown:
        problem = f"lacks {', '.join(missing)}" if missing else f"also holds {', '.join(map(one_line, unknown[:3]))}"
        raise _unfit(title, f"it {problem}")
    vertices, faces = len(state["geo_mean"]) // 3, len(state["triangles"])
    shapes: dict[str, tuple[int | None, ...]] = {
        **dict.fromkeys(("geo_mean", "tex_mean"), (3 * vertices, 1)),
        **dict.fromkeys(("id_base", "exp_base", "tex_base"), (3 * vertices, None)),
        **dict.fromkeys(("triangles", "lower_triangles"), (None, 3)),
        "point_buf": (vertices, None),
        "landmark_index": (None,),
    }
    tensors: State = {}
    for name, shape in shapes.items():
        tensor = state[name]
        if len(shape) != tensor.ndim or any(w not in (None, s) for w, s in zip(shape, tensor.shape, strict=True)):
            raise _unfit(title, f"{name} has the shape {tuple(tensor.shape)} in a mesh of {vertices} vertices")
        if name in ("geo_mean", "tex_mean", "id_base", "exp_base", "tex_base"):
            tensors[name] = tensor.float()
            if not tensor.is_floating_point() or not tensors[name].isfinite().all():
                raise _unfit(title, f"{name} holds values that are no finite numbers")
        else:
            limit = faces + 1 if name == "point_buf" else vertices
            tensors[name] = tensor.to(torch.int32 if "triangles" in name else torch.int64)
            if not torch.equal(tensors[name].clamp(0, limit - 1).double(), tensor.double()):
                raise _unfit(title, f"{name} holds other values than whole numbers from 0 to {limit - 1}")
    try:
        camera = Camera(**{name: float(value) for name, value in _parsed(metadata, "camera", {}).items()})
        mirrored = bool(_parsed(metadata, "mirrored", True))
        if not (camera.matrix().isfinite().all() and camera.up_y and camera.near < camera.far):
            raise ValueError
    except DAMAGE:
        raise _unfit(title, "its camera can't be read") from None
    return FaceModel(**tensors, camera=camera, mirrored=mirrored)


def _parsed(metadata: Mapping[str, str], name: str, default: Any) -> Any:
    return json.loads(metadata[name]) if name in metadata else default


def _unfit(title: str, problem: str) -> TalkingPortraitError:
    return TalkingPortraitError(f"{title} is no face model that can be used: {problem}; make or download it again.")
