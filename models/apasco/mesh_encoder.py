"""The mesh encoder: how a dense face mesh moves, as tokens for each frame.

APasco describes a "mesh spatio-temporal encoder" in a figure, without code or sizes: a dense mesh, thinned out; each
vertex attends to those around it; a matrix over all vertices gives the features that condition the UNet. The sizes
here, and attention along time within it, are this pack's own. No weights are published.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from ..diffusion.motion_module import PositionTable
from ..face.face_mesh import face_mesh

VERTICES, NEIGHBOURS = 128, 8
CHANNELS, HEADS = 64, 4
POSITIONS = 32
_FIRST = 1
"""The tip of the nose, from which the thinning starts."""


def thinned_vertices(count: int = VERTICES) -> np.ndarray:
    """Numbers (count,) of canonical vertices, each as far as possible from those chosen before it."""
    vertices = face_mesh().vertices
    chosen = [_FIRST]
    distance = np.full(len(vertices), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, np.linalg.norm(vertices - vertices[chosen[-1]], axis=1))
        chosen.append(int(distance.argmax()))
    return np.array(chosen)


def nearest_vertices(chosen: np.ndarray, count: int = NEIGHBOURS) -> np.ndarray:
    """For each chosen vertex the places (n, count) within `chosen` of the nearest ones, itself first."""
    vertices = face_mesh().vertices[chosen]
    return np.linalg.norm(vertices[:, None] - vertices[None], axis=-1).argsort(axis=1, kind="stable")[:, :count]


class MeshAttention(nn.Module):
    """Multi-head attention of (rows, n, C) to (rows, m, C) tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.to_q = nn.Linear(CHANNELS, CHANNELS, bias=False)
        self.to_k = nn.Linear(CHANNELS, CHANNELS, bias=False)
        self.to_v = nn.Linear(CHANNELS, CHANNELS, bias=False)
        self.to_out = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, queries: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        def split(x: torch.Tensor) -> torch.Tensor:
            return rearrange(x, "... n (h d) -> ... h n d", h=HEADS)

        read = F.scaled_dot_product_attention(
            split(self.to_q(queries)), split(self.to_k(context)), split(self.to_v(context))
        )
        return self.to_out(rearrange(read, "... h n d -> ... n (h d)"))


class MeshBlock(nn.Module):
    """Each vertex attends to its neighbours, then along time, then feeds forward; on normed tokens, added."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.near = nn.LayerNorm(CHANNELS), MeshAttention()
        self.norm2, self.time = nn.LayerNorm(CHANNELS), MeshAttention()
        self.pos_encoder = PositionTable(POSITIONS, CHANNELS)
        self.norm3 = nn.LayerNorm(CHANNELS)
        self.ff = nn.Sequential(nn.Linear(CHANNELS, 4 * CHANNELS), nn.GELU(), nn.Linear(4 * CHANNELS, CHANNELS))

    def forward(self, tokens: torch.Tensor, neighbours: torch.Tensor) -> torch.Tensor:
        """(samples, frames, vertices, C) to the same."""
        normed = self.norm1(tokens)
        tokens = tokens + self.near(normed[..., None, :], normed[..., neighbours, :]).squeeze(-2)
        along = self.norm2(tokens).transpose(1, 2)
        along = self.pos_encoder(along.flatten(0, 1)).unflatten(0, along.shape[:2])
        tokens = tokens + self.time(along, along).transpose(1, 2)
        return tokens + self.ff(self.norm3(tokens))


class MeshEncoder(nn.Module):
    """A face mesh to tokens for each frame; `width` and `tokens` are those of its result."""

    vertex_ids: torch.Tensor
    neighbors: torch.Tensor

    def __init__(self, width: int = 768, tokens: int = 16) -> None:
        super().__init__()
        # Chosen when weights are made or loaded; a module on the meta device needs no numbers.
        self.register_buffer("vertex_ids", torch.zeros(VERTICES, dtype=torch.int64))
        self.register_buffer("neighbors", torch.zeros(VERTICES, NEIGHBOURS, dtype=torch.int64))
        if not self.vertex_ids.is_meta:
            chosen = thinned_vertices()
            self.vertex_ids.copy_(torch.from_numpy(chosen))
            self.neighbors.copy_(torch.from_numpy(nearest_vertices(chosen)))
        self.embed = nn.Linear(6, CHANNELS)
        self.codes = nn.Parameter(0.02 * torch.randn(VERTICES, CHANNELS))
        self.blocks = nn.ModuleList([MeshBlock(), MeshBlock()])
        self.w_n = nn.Linear(VERTICES, tokens, bias=False)
        self.proj = nn.Linear(CHANNELS, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, meshes: torch.Tensor, portrait: torch.Tensor) -> torch.Tensor:
        """Meshes (samples, frames, points, 3), the portrait's (samples, points, 3) to (samples, frames, tokens, width).

        Both are normalised alike: the portrait's centre is 0, its outer eye corners are 1 apart.
        """
        points, rest = meshes[:, :, self.vertex_ids], portrait[:, None, self.vertex_ids]
        tokens = self.embed(torch.cat([points, points - rest], dim=-1)) + self.codes
        for block in self.blocks:
            tokens = block(tokens, self.neighbors)
        return self.norm(self.proj(self.w_n(tokens.transpose(-1, -2)).transpose(-1, -2)))
