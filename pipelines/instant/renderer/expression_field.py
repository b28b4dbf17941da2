"""How the skin moves with the expression, in the portrait's own pose: two fields, separated along the lips.

The upper field carries everything above the line where the lips meet, the lower field everything below. Each is
smooth across that line, where it continues as if the other lip moved along; `lips` chooses the field of each pixel.

Numbers that name no source were chosen by eye on portraits; the trials are not recorded.
"""

from __future__ import annotations

import numpy as np
import torch

from ....models.curves import smoothstep
from ....models.face.face_mesh import FACE_OVAL, LEFT_EYE, RIGHT_EYE, VERTICES, face_mesh
from ....models.face.mouth_regions import LOWER_INNER_LIP, MOUTH_CORNERS, UPPER_INNER_LIP
from .portrait_mesh import PortraitMesh
from .warp import Grid, between_sites, invert, sample_field, without_folds

NODES_PER_EYE_DISTANCE = 40
"""Field nodes along the distance of the outer eye corners; the lips' landmarks lie about two nodes apart."""

HIDDEN = 0.03
"""Cosine to the view below which a vertex lies on or behind the silhouette; the skin visible there moves otherwise."""

FOLLOWING = 5.0
"""Distance from the line of the lips in cm at which a field no longer follows the other side's lip."""

FADING = ((0.1, 0.7), (0.24, 0.3), (0.42, 0.05), (0.7, 0.0))
"""Rings around the face oval, by how much wider they are, and the share of the oval's movement they take."""


class ExpressionField:
    """Vertex displacements to backward fields over the face, by two matrices computed once."""

    def __init__(self, mesh: PortraitMesh, device: torch.device) -> None:
        self.mesh = mesh
        oval = mesh.points[list(FACE_OVAL)]
        low, high = oval.min(axis=0), oval.max(axis=0)
        size = high - low
        left, top = low - size * [0.4, 0.15]
        right, bottom = high + size * [0.4, 0.7]
        self.spacing = mesh.eye_distance / NODES_PER_EYE_DISTANCE
        self.grid = Grid.over(left, top, right, bottom, self.spacing)
        nodes = self.grid.nodes()
        spread = self._spreading(nodes) * self._falloff(nodes)[:, None].astype(np.float32)
        # Beyond the mouth corners both fields grow into the one without a parting.
        apart = self._apart(nodes)
        parting = apart > 0
        fields = []
        for mix in parted_lips():
            field = spread.copy()
            change = (mix - np.eye(VERTICES)).astype(np.float32)
            changed = change.any(axis=1)
            field[parting] += apart[parting, None].astype(np.float32) * (spread[parting][:, changed] @ change[changed])
            fields.append(torch.from_numpy(field).to(device))
        self.upper, lower = fields
        self.parting = torch.from_numpy(np.flatnonzero(parting)).to(device)
        self.lower = lower[self.parting]
        """The lower field's rows where it differs from the upper one's, which it is elsewhere."""
        middle = mesh.points[list(MOUTH_CORNERS)]
        down = np.array([middle[0, 1] - middle[1, 1], middle[1, 0] - middle[0, 0]])
        self.below = torch.from_numpy((nodes - middle.mean(axis=0)) @ down > 0).to(device)[:, None]
        """(nodes, 1): which lie below the mouth's corners."""
        self.nodes = torch.from_numpy(nodes).float().to(device).view(self.grid.rows, self.grid.columns, 2)

    def backward(self, expression: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Upper and lower fields (B, 2, rows, columns) from moved to portrait positions; `expression` (B, 468, 2)."""
        upper, lower = self.forward(expression)
        return invert(upper, self.grid, self.nodes), invert(lower, self.grid, self.nodes)

    def forward(self, expression: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The fields as they move the portrait's pixels."""
        # One (nodes x 468) (468 x 2B) product for the batch.
        batch, (rows, columns) = len(expression), (self.grid.rows, self.grid.columns)
        flat = self._both(expression.permute(1, 0, 2).reshape(VERTICES, batch * 2))
        upper, lower = (field.view(rows, columns, batch, 2).permute(2, 3, 0, 1) for field in flat)
        return without_folds(upper, self.grid), without_folds(lower, self.grid)

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """A field (B, 1, rows, columns) of `values` (B, 468) at the landmarks, 0 beside the face."""
        upper, lower = self._both(values.T)
        flat = torch.where(self.below, lower, upper)
        return flat.T.reshape(len(values), 1, self.grid.rows, self.grid.columns)

    def sample(self, field: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return sample_field(field, self.grid, positions)

    def _both(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both fields (nodes, K) of `values` (468, K)."""
        upper = self.upper @ values
        return upper, upper.index_copy(0, self.parting, self.lower @ values)

    def _spreading(self, nodes: np.ndarray) -> np.ndarray:
        """The matrix (N, 468) from displacements of the vertices to those of the nodes (N, 2), without a parting.

        Eye corners and the outermost ring around the face are fixed; the rings within take the shares of FADING.
        """
        mesh = self.mesh
        sites = np.setdiff1d(np.flatnonzero(mesh.facing() > HIDDEN), _eye_region())
        # Around the oval the skin gives way step by step; soon, as collars and necklaces keep still while a chin drops.
        oval = list(FACE_OVAL)
        centre = mesh.points[oval].mean(axis=0)
        rings = [centre + (mesh.points[oval] - centre) * (1 + away) for away, _ in FADING]
        corners = mesh.points[[RIGHT_EYE[0], RIGHT_EYE[8], LEFT_EYE[0], LEFT_EYE[8]]]
        places = np.concatenate([mesh.points[sites], *rings, corners])
        each = np.eye(VERTICES)
        fading = [share * each[oval] for _, share in FADING]
        moved = np.concatenate([each[sites], *fading, np.zeros((len(corners), VERTICES))])
        return between_sites(places, moved, nodes, 0.05 * mesh.eye_distance, ridge=0.05)

    def _falloff(self, nodes: np.ndarray) -> np.ndarray:
        """1 on the face, 0 on the grid's border."""
        grid = self.grid
        sides = np.stack(
            [
                (nodes[:, 0] - grid.left) / (grid.right - grid.left),
                (grid.right - nodes[:, 0]) / (grid.right - grid.left),
                (nodes[:, 1] - grid.top) / (grid.bottom - grid.top),
                (grid.bottom - nodes[:, 1]) / (grid.bottom - grid.top),
            ]
        )
        return smoothstep(0, 0.12, sides.min(axis=0))

    def _apart(self, nodes: np.ndarray) -> np.ndarray:
        """1 where the two fields may differ, 0 beyond the mouth corners."""
        right, left = self.mesh.points[list(MOUTH_CORNERS)]
        axis = left - right
        along = (nodes - (left + right) / 2) @ axis / (axis @ axis) * 2
        return smoothstep(1.25, 0.95, np.abs(along))


def parted_lips() -> tuple[np.ndarray, np.ndarray]:
    """Matrices (468, 468): displacements with the lower face following the upper lip, and the other way round."""
    canonical = face_mesh().vertices
    half = abs(canonical[MOUTH_CORNERS[0], 0])
    mixes = []
    for lip, other in ((UPPER_INNER_LIP, LOWER_INNER_LIP), (LOWER_INNER_LIP, UPPER_INNER_LIP)):
        chain = [MOUTH_CORNERS[0], *lip, MOUTH_CORNERS[1]]
        xs = canonical[chain, 0]
        far_chain = [MOUTH_CORNERS[0], *other, MOUTH_CORNERS[1]]
        line = np.interp(canonical[:, 0], xs, (canonical[chain, 1] + canonical[far_chain, 1]) / 2)
        above = canonical[:, 1] > line
        replaced = ~above if lip is UPPER_INNER_LIP else above
        replaced[list(lip)] = False
        replaced[list(other)] = True
        replaced[list(MOUTH_CORNERS)] = False
        # Near the line only: far from it, nobody looks at this field, and it must not fold against what rests there.
        share = smoothstep(1.2, 0.75, np.abs(canonical[:, 0]) / half) * replaced
        share *= smoothstep(FOLLOWING, 0.8, np.abs(canonical[:, 1] - line))
        mix = np.eye(VERTICES) * (1 - share[:, None])
        for vertex in np.flatnonzero(share > 0):
            position = np.interp(canonical[vertex, 0], xs, np.arange(len(chain)))
            first = min(int(position), len(chain) - 2)
            part = position - first
            mix[vertex, chain[first]] += share[vertex] * (1 - part)
            mix[vertex, chain[first + 1]] += share[vertex] * part
        mixes.append(mix)
    return mixes[0], mixes[1]


def _eye_region() -> np.ndarray:
    """Vertices of both eyes' rims and lids: `eyelids` moves those by the closure alone."""
    triangles = face_mesh().triangles
    region = np.zeros(VERTICES, dtype=bool)
    region[[*RIGHT_EYE, *LEFT_EYE]] = True
    region[triangles[region[triangles].any(axis=1)]] = True
    return np.flatnonzero(region)
