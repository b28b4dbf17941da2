"""How the whole head moves in the picture: rigid 3-D motion with depth, easing off over neck, shoulders and air."""

from __future__ import annotations

import numpy as np
import torch

from ...models.face_mesh import FACE_OVAL
from .portrait_mesh import PortraitMesh
from .warp import Grid, invert, sample_field, scattered_operator

SKULL_CENTRE = (0.0, 1.5, -2.0)
"""Middle of the head in the canonical frame, cm: between the ears, behind the nose bridge."""
SKULL_RADII = (11.0, 13.5)
"""Half width and half height in cm, hair included."""
REACH = 1.75
"""Skull radii at which the head's motion has faded out sideways and above."""
NECK_TOP, NECK_END = -8.5, -25.0
"""Heights in cm, canonical frame, between which the motion eases off down the neck."""
HAIR_DEPTH = -3.0
"""Canonical depth in cm of hair and ears, where there are no landmarks."""


class HeadField:
    """The head's rigid motion as a displacement field over the moving box of the picture.

    `box` (left, top, right, bottom) integer pixels: nothing outside it ever moves.
    """

    def __init__(self, mesh: PortraitMesh, device: torch.device, nodes_per_head: int = 40) -> None:
        self.mesh = mesh
        height, width = mesh.image_size
        reach = max(SKULL_RADII) * REACH * mesh.pixels_per_cm
        centre = mesh.project(np.array([SKULL_CENTRE]))[0]
        foot = mesh.project(np.array([[0.0, NECK_END, SKULL_CENTRE[2]]]))[0]
        side = SKULL_RADII[0] * REACH * mesh.pixels_per_cm
        lows = np.minimum(np.minimum(centre - reach, foot - side), foot)
        highs = np.maximum(np.maximum(centre + reach, foot + [side, 0]), foot)
        left, top = np.floor(np.clip(lows, 0, [width - 1, height - 1])).astype(int)
        right, bottom = np.ceil(np.clip(highs, [left + 1, top + 1], [width, height])).astype(int)
        self.box = (int(left), int(top), int(right), int(bottom))
        step = 2 * SKULL_RADII[1] * mesh.pixels_per_cm / nodes_per_head
        # Nodes sit on the centres of the outermost pixels, so that growing the field to pixels is a plain resize.
        self.grid = Grid.over(left + 0.5, top + 0.5, max(right - 0.5, left + 1.0), max(bottom - 0.5, top + 1.0), step)
        nodes = self.grid.nodes()
        depth = self._depth_at(nodes)
        self.nodes = torch.from_numpy(nodes).float().view(self.grid.rows, self.grid.columns, 2).to(device)
        self.points = torch.from_numpy(self._unproject(nodes, depth)).float().to(device)
        self.weight = torch.from_numpy(self._weight_at(nodes)).float().to(device)

    def backward(self, camera_motion: torch.Tensor) -> torch.Tensor:
        """Displacement (B, 2, rows, columns) from output positions to the portrait, for motions (B, 4, 4)."""
        return invert(self.forward(camera_motion), self.grid, self.nodes)

    def forward(self, camera_motion: torch.Tensor) -> torch.Tensor:
        """Displacement (B, 2, rows, columns) of the portrait's pixels."""
        seen = self._project(self.points @ camera_motion[:, :3, :3].transpose(1, 2) + camera_motion[:, None, :3, 3])
        moved = (seen - self.nodes.view(1, -1, 2)) * self.weight[:, None]
        return moved.view(len(camera_motion), self.grid.rows, self.grid.columns, 2).permute(0, 3, 1, 2)

    def travel(self, corners: torch.Tensor, camera_motion: torch.Tensor) -> torch.Tensor:
        """Where (B, N, 2) the portrait's positions `corners` (N, 2) go."""
        where = corners.view(1, 1, -1, 2).expand(len(camera_motion), -1, -1, -1)
        return corners + sample_field(self.forward(camera_motion), self.grid, where)[:, 0]

    def _project(self, seen: torch.Tensor) -> torch.Tensor:
        height, width = self.mesh.image_size
        focal = self.mesh.camera.focal * height / 2
        depth = -seen[..., 2].clamp(max=-1e-3)
        return torch.stack([width / 2 + focal * seen[..., 0] / depth, height / 2 - focal * seen[..., 1] / depth], -1)

    def _unproject(self, pixels: np.ndarray, depth: np.ndarray) -> np.ndarray:
        height, width = self.mesh.image_size
        focal = self.mesh.camera.focal * height / 2
        x = (pixels[:, 0] - width / 2) * -depth / focal
        y = (height / 2 - pixels[:, 1]) * -depth / focal
        return np.stack([x, y, depth], axis=-1)

    def _depth_at(self, nodes: np.ndarray) -> np.ndarray:
        """Camera depth of every node: the mesh's inside the face, going back to the ears around it."""
        mesh = self.mesh
        back = float((mesh.matrix @ np.array([0.0, 0.0, HAIR_DEPTH, 1.0]))[2])
        oval = mesh.points[list(FACE_OVAL)]
        centre = oval.mean(axis=0)
        ring = centre + (oval - centre) * 1.45
        soft = 0.2 * mesh.eye_distance
        operator = scattered_operator(mesh.points, nodes, soft, ridge=0.02, anchors=ring)
        return operator @ (mesh.depth() - back) + back

    def _weight_at(self, nodes: np.ndarray) -> np.ndarray:
        """1 on the head, easing to 0 with distance from it and down the neck."""
        mesh = self.mesh
        centre = np.array(SKULL_CENTRE)
        origin, right, up = mesh.project(np.stack([centre, centre + [1, 0, 0], centre + [0, 1, 0]]))
        axes = np.stack([right - origin, up - origin], axis=1)
        # A turned head is as wide as a frontal one, so the sideways axis keeps its length and only its direction.
        axes[:, 0] *= np.linalg.norm(axes[:, 1]) / max(np.linalg.norm(axes[:, 0]), 1e-6)
        local = (nodes - origin) @ np.linalg.inv(axes).T
        radius = np.hypot(local[:, 0] / SKULL_RADII[0], np.clip(local[:, 1], 0, None) / SKULL_RADII[1])
        around = _ease((REACH - radius) / (REACH - 1.0))
        down = _ease((local[:, 1] + centre[1] - NECK_END) / (NECK_TOP - NECK_END))
        return around * down


def _ease(t: np.ndarray) -> np.ndarray:
    """A smooth step with flat ends in slope and curvature."""
    t = np.clip(t, 0, 1)
    return t**3 * (10 - 15 * t + 6 * t * t)
