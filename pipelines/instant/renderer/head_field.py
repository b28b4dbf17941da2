"""How the whole head moves in the picture: rigid 3-D motion with depth, easing off over neck, shoulders and air.

Shoulders and chest rise with the breath.

Numbers that name no source were chosen by eye on portraits; the trials are not recorded.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from ....models.curves import smoothstep
from ....models.face.face_mesh import FACE_OVAL, NOSE_TIP, OUTER_EYE_CORNERS, OUTER_MOUTH_CORNERS
from .portrait_mesh import PortraitMesh
from .warp import Grid, between_sites, invert, sample_field, without_folds

SKULL_CENTRE = (0.0, 1.5, -2.0)
"""Middle of the head in the canonical frame, cm: between the ears, behind the nose bridge."""
SKULL_RADII = (11.0, 13.5)
"""Half width and half height in cm, hair included."""
RIGID, REACH = 1.1, 1.9
"""Skull radii up to which the head's motion is whole, and at which it has faded out sideways and above."""
NECK_RIGID, NECK_REACH, SHOULDER_HEIGHTS = 0.4, 1.1, (-9.0, -17.0)
"""The same between these heights in cm and below: shoulders keep still while a neck turns."""
NECK_TOP, NECK_END = -8.5, -25.0
"""Heights in cm, canonical frame, between which the motion eases off down the neck."""
CHEST, SHOULDERS = -11.0, -18.0
"""Heights in cm, canonical frame, between which a breath's lift sets in, from the neck down."""
BREATH_LIFT = 0.4
"""Centimetres that the shoulders rise in a quiet breath in."""
BREATH_FADE = 0.12
"""Part of the moving box over which the lift ends at those of its sides that lie inside the picture."""
CAMERA_DISTANCE = 90.0
"""Centimetres from which the turning head is drawn. The metric camera may be 30 cm from a large face, from where a nod
would enlarge the forehead."""
DEPTH_FLOOR = -0.5
"""Canonical depth in cm of hair and ears, where there are no landmarks; nothing lies further back. Steeper cheeks would
fold over when the head turns: what they hide is not in the picture."""


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
        centre = mesh.matrix[:3, 3]
        self.distance = max(CAMERA_DISTANCE, -float(centre[2]))
        self.pixels_per_cm = mesh.camera.focal * height / 2 / -float(centre[2])
        relief = self._depth_at(nodes) - centre[2]
        flat = (nodes - mesh.project(np.zeros(3))) * [1, -1]
        across = flat / self.pixels_per_cm * (1 - relief[:, None] / self.distance)
        self.nodes = torch.from_numpy(nodes).float().view(self.grid.rows, self.grid.columns, 2).to(device)
        self.centre = torch.from_numpy(centre.copy()).float().to(device)
        self.flat = torch.from_numpy(flat).float().to(device)
        """Nodes in pixels from the head's origin, y up."""
        self.points = torch.from_numpy(np.concatenate([across, relief[:, None]], axis=1)).float().to(device)
        """Nodes in cm from the head's origin, along the camera's axes."""
        self.weight = torch.from_numpy(self._weight_at(nodes)).float().to(device)
        self.lift = torch.from_numpy(self._lift_at(nodes)).float().to(device)
        """Pixels (nodes,) that a quiet breath in raises the picture."""

    def hold_at_edges(self, alpha: torch.Tensor) -> None:
        """Keeps the head in place where the picture's border cuts it off: there is no more of it to move in.

        `alpha` (1, h, w) is the head's matte in the box. The bottom is left out: the neck eases off by itself.
        """
        height, width = self.mesh.image_size
        left, top, right, bottom = self.box
        solid = alpha[0].cpu().numpy() > 0.3
        x, y = np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5
        cuts = []
        if top == 0:
            cuts.append(np.stack([x[solid[0]], np.zeros(solid[0].sum())], axis=-1))
        for edge, column in ((0, solid[:, 0]), (width, solid[:, -1])):
            if edge in (left, right):
                cuts.append(np.stack([np.full(column.sum(), float(edge)), y[column]], axis=-1))
        cut = np.concatenate([np.zeros((0, 2)), *cuts])
        if len(cut) == 0:
            return
        from scipy.spatial import cKDTree

        tree = cKDTree(cut)
        inner = self.mesh.points[[105, 334, NOSE_TIP, *OUTER_MOUTH_CORNERS, *OUTER_EYE_CORNERS]]
        room = min(0.9 * float(tree.query(inner)[0].min()), SKULL_RADII[1] * self.pixels_per_cm)
        distance = tree.query(self.nodes.view(-1, 2).cpu().numpy())[0]
        self.weight *= torch.from_numpy(_smootherstep(distance / max(room, 1.0))).float().to(self.weight.device)

    def backward(self, forward: torch.Tensor) -> torch.Tensor:
        """Displacement (B, 2, rows, columns) from output positions to the portrait that `forward` moves there."""
        return invert(forward, self.grid, self.nodes)

    def forward(self, camera_motion: torch.Tensor, breath: torch.Tensor) -> torch.Tensor:
        """Displacement (B, 2, rows, columns) of the portrait's pixels for motions (B, 4, 4) and breath (B,)."""
        turn = camera_motion[:, :3, :3].transpose(1, 2)
        shift = (self.centre @ turn + camera_motion[:, :3, 3] - self.centre)[:, None]
        seen = self.points @ turn + shift
        # Coming nearer magnifies as it does for the metric camera, however far the drawing camera stands.
        nearer = seen[..., 2] + shift[..., 2] * (self.distance / -float(self.centre[2]) - 1)
        scale = self.pixels_per_cm * self.distance / (self.distance - nearer).clamp(min=1.0)
        moved = (seen[..., :2] * scale[..., None] - self.flat) * self.weight[:, None]
        moved = moved * moved.new_tensor([1.0, -1.0])
        moved[..., 1] -= breath[:, None] * self.lift
        moved = moved.view(len(camera_motion), self.grid.rows, self.grid.columns, 2).permute(0, 3, 1, 2)
        return without_folds(moved, self.grid)

    def grown_weight(self, size: tuple[int, ...]) -> torch.Tensor:
        """Above 0 for every pixel (h, w) of the box that head or breath can move."""
        weight = torch.maximum(self.weight, self.lift).view(1, 1, self.grid.rows, self.grid.columns)
        return F.interpolate(weight, size=size, mode="bilinear", align_corners=True)[0, 0]

    def travel(self, corners: torch.Tensor, forward: torch.Tensor) -> torch.Tensor:
        """Where (B, N, 2) a displacement takes the portrait's positions `corners` (N, 2)."""
        where = corners.view(1, 1, -1, 2).expand(len(forward), -1, -1, -1)
        return corners + sample_field(forward, self.grid, where)[:, 0]

    def _depth_at(self, nodes: np.ndarray) -> np.ndarray:
        """Camera depth of every node: the mesh's inside the face, going back to the ears around it."""
        mesh = self.mesh
        back = float((mesh.matrix @ np.array([0.0, 0.0, DEPTH_FLOOR, 1.0]))[2])
        oval = mesh.points[list(FACE_OVAL)]
        centre = oval.mean(axis=0)
        ring = centre + (oval - centre) * 1.45
        sites = np.concatenate([mesh.points, ring])
        depth = np.concatenate([np.maximum(mesh.depth(), back), np.full(len(ring), back)])
        return between_sites(sites, depth[:, None], nodes, 0.2 * mesh.eye_distance, ridge=0.02)[:, 0]

    def _lift_at(self, nodes: np.ndarray) -> np.ndarray:
        """Pixels that shoulders and chest rise, 0 on the neck and at the sides of the box inside the picture."""
        grid, (height, width) = self.grid, self.mesh.image_size
        _, above = skull_position(nodes, self.mesh)
        lift = BREATH_LIFT * self.mesh.pixels_per_cm * _smootherstep((CHEST - above) / (CHEST - SHOULDERS))
        fade = BREATH_FADE * np.array([grid.right - grid.left, grid.bottom - grid.top])
        for edge, side, axis in ((grid.left, 1, 0), (grid.right, -1, 0), (grid.bottom, -1, 1)):
            if 1 < edge < (width, height)[axis] - 1:
                lift *= _smootherstep(side * (nodes[:, axis] - edge) / fade[axis])
        return lift

    def _weight_at(self, nodes: np.ndarray) -> np.ndarray:
        """1 on the head, easing to 0 with distance from it and down the neck."""
        radius, height = skull_position(nodes, self.mesh)
        low = smoothstep(*SHOULDER_HEIGHTS, height)
        rigid, reach = RIGID + low * (NECK_RIGID - RIGID), REACH + low * (NECK_REACH - REACH)
        near, above_neck = (reach - radius) / (reach - rigid), (height - NECK_END) / (NECK_TOP - NECK_END)
        return _smootherstep(near) * _smootherstep(above_neck)


def skull_position(pixels: np.ndarray, mesh: PortraitMesh) -> tuple[np.ndarray, np.ndarray]:
    """Distance (...) from the skull's centre in skull radii, and height (...) in cm in the head's own frame.

    `pixels` (..., 2). The distance counts only sideways below the centre, where the neck goes on.
    """
    centre = np.array(SKULL_CENTRE)
    origin, right, up = mesh.project(np.stack([centre, centre + [1, 0, 0], centre + [0, 1, 0]]))
    axes = np.stack([right - origin, up - origin], axis=1)
    # A turned head is as wide as a frontal one, so the sideways axis keeps its length and only its direction.
    axes[:, 0] *= np.linalg.norm(axes[:, 1]) / max(np.linalg.norm(axes[:, 0]), 1e-6)
    local = (pixels - origin) @ np.linalg.inv(axes).T
    radius = np.hypot(local[..., 0] / SKULL_RADII[0], np.clip(local[..., 1], 0, None) / SKULL_RADII[1])
    return radius, local[..., 1] + centre[1]


def _smootherstep(t: np.ndarray) -> np.ndarray:
    """0 up to 0, 1 from 1 on, between them a quintic with no slope or curvature at its ends."""
    t = np.clip(t, 0, 1)
    return t**3 * (10 - 15 * t + 6 * t * t)
