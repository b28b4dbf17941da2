"""The mouth: two lips that part along a line, and what is visible between them.

Numbers that name no source were chosen by eye on portraits; the trials are not recorded.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from ....models.curves import smoothstep
from .expression_field import ExpressionField
from .face_opening import Aperture, EdgeTables
from .mouth_interior import MouthInterior
from .portrait_mesh import LIP_EDGE, LOWER_INNER_LIP, LOWER_RIM, MOUTH_CORNERS, UPPER_INNER_LIP, UPPER_RIM, PortraitMesh
from .warp import Layer

LINE_REACH = 0.12
"""Mouth half widths around the landmarks in which the line of closed lips is searched."""


class Lips:
    """Paints the mouth of one portrait.

    Where the portrait's mouth is open, its own teeth are kept: they stay with the skull while the lips move over them,
    and the painted inside begins where the picture's ends.
    """

    def __init__(self, picture: np.ndarray, mesh: PortraitMesh, skin: ExpressionField, device: torch.device) -> None:
        self.skin = skin
        mouth = Aperture(mesh.points, MOUTH_CORNERS, UPPER_INNER_LIP, LOWER_INNER_LIP)
        if mesh.mouth_closed:
            mouth.upper = mouth.lower = _dark_line(picture, mouth)
        else:
            open_part = np.clip((mouth.lower - mouth.upper) / (0.2 * mouth.half), 0, 1)
            mouth.upper = mouth.upper - UPPER_RIM * mouth.half * open_part
            mouth.lower = mouth.lower + LOWER_RIM * mouth.half * open_part
        self.mouth = mouth
        self.closed = mesh.mouth_closed
        self.cm = mesh.pixels_per_cm
        self.feather = max(0.8, 0.02 * mouth.half)
        self.tables = EdgeTables(mouth, [mouth.upper, mouth.lower], device)
        self.interior = MouthInterior(picture, mesh, mouth, device)

    def box(self, expression: torch.Tensor) -> torch.Tensor:
        """Corners (4, 2) in the portrait of all that is painted anew when the lips move by `expression` (1, 468, 2)."""
        down = torch.as_tensor(self.mouth.down, dtype=torch.float32, device=expression.device)
        rise = float((expression[0, list(UPPER_INNER_LIP)] @ down).min())
        drop = float((expression[0, list(LOWER_INNER_LIP)] @ down).max())
        # Within four nodes of the lips both fields differ from the one used elsewhere, so this strip is painted too.
        around = 4 * self.skin.spacing + 2 * self.feather
        low = float(self.mouth.upper.min()) + min(rise, 0.0) - around
        high = float(self.mouth.lower.max()) + max(drop, 0.0) + around
        box = self.mouth.corners_of((-1.35 * self.mouth.half, 1.35 * self.mouth.half), (low, high))
        return torch.from_numpy(box).float().to(expression.device)

    def choose(self, upper: torch.Tensor, lower: torch.Tensor) -> torch.Tensor:
        """One backward field (B, 2, rows, columns) out of both, for everything but the mouth itself."""
        nodes = self.skin.nodes
        along, across = self.tables.local(nodes + upper.permute(0, 2, 3, 1))
        # Between the corners the mouth is painted anew; beyond them the two fields grow into one another.
        soft = self.feather + 0.5 * (along.abs() - 0.9 * self.mouth.half).clamp(min=0)
        part = smoothstep(-1.0, 1.0, (across - self.tables.at(along)[0]) / soft)
        return torch.lerp(upper, lower, part[:, None])

    def paint(
        self,
        picture: Layer,
        positions: torch.Tensor,
        upper_field: torch.Tensor,
        lower_field: torch.Tensor,
        jaw: torch.Tensor,
    ) -> torch.Tensor:
        """Colours and matte (B, 4, h, w) at `positions` (B, h, w, 2), where the head's motion is already undone.

        `picture` has 4 channels. The fields (B, 2, rows, columns) are backward, `jaw` (B, 2) pixels.
        """
        from_upper = positions + self.skin.sample(upper_field, positions)
        from_lower = positions + self.skin.sample(lower_field, positions)
        along, across = self.tables.local(from_upper)
        below_upper = across - self.tables.at(along)[0]
        inward = self.mouth.half - along.abs()
        along, across = self.tables.local(from_lower)
        above_lower = self.tables.at(along)[1] - across
        inward = torch.minimum(inward, self.mouth.half - along.abs())
        soft = self.feather + 0.5 * (along.abs() - 0.9 * self.mouth.half).clamp(min=0)
        blend = smoothstep(-1.0, 1.0, (below_upper - above_lower) / (2 * soft))
        colours = torch.lerp(picture.sample(from_upper), picture.sample(from_lower), blend[:, None])
        gap = torch.minimum(below_upper / _steepness(below_upper), above_lower / _steepness(above_lower))
        opened = smoothstep(0.0, LIP_EDGE, torch.minimum(gap, inward))
        part = _extent(opened > 0)
        if part is None:
            return colours
        rows, columns = part
        opened, positions, below_upper, above_lower = (
            values[:, rows, columns] for values in (opened, positions, below_upper, above_lower)
        )
        along, across = self.tables.local(positions)
        inside = self.interior.paint(along, across, jaw @ self.tables.basis, below_upper, above_lower)
        if not self.closed:
            inside = self._keep_teeth(picture, positions, along, across, below_upper, above_lower, inside)
        inside = torch.cat([inside, torch.ones_like(inside[:, :1])], dim=1)
        here = colours[:, :, rows, columns]
        here.copy_(torch.lerp(here, inside, opened[:, None]))
        return colours

    def _keep_teeth(
        self,
        picture: Layer,
        positions: torch.Tensor,
        along: torch.Tensor,
        across: torch.Tensor,
        below_upper: torch.Tensor,
        above_lower: torch.Tensor,
        painted: torch.Tensor,
    ) -> torch.Tensor:
        """The picture's own mouth inside, as far as it reaches, over the painted one."""
        upper, lower = self.tables.at(along)
        # The inside of the picture's mouth overlaps the lower lip a little; as the lip moves away, that is removed.
        parted = (above_lower - (lower - across)).clamp(0, LOWER_RIM * self.mouth.half + 2 * self.feather)
        own = smoothstep(-2 * self.feather, 0.0, lower - across - parted)
        # A raised lip shows more of the teeth than the picture has: their upper edge is continued.
        reach = torch.maximum(across, torch.minimum(upper + self.feather, (upper + lower) / 2)) - across
        colour = picture.sample(positions + self.tables.vector(reach))[:, :3]
        rest_gap = (lower - upper).clamp(min=0) / self.cm
        at_rest = self.interior.shade(across - upper, lower - across, rest_gap)
        now = self.interior.shade(below_upper, above_lower, (below_upper + above_lower) / self.cm)
        dimmed = (now / at_rest.clamp(min=1e-3)).clamp(max=1.0)
        return torch.lerp(painted, colour * self.interior.tinted(dimmed), own[:, None])


def _dark_line(picture: np.ndarray, mouth: Aperture) -> np.ndarray:
    """The line where closed lips meet, over `mouth.table_along`: the darkest smooth path near the landmarks' line.

    A cut beside it would leave a rim of one lip on the other.
    """
    from scipy.ndimage import gaussian_filter1d, map_coordinates

    middle = (mouth.upper + mouth.lower) / 2
    inner = np.abs(mouth.table_along) < mouth.half
    offsets = np.linspace(-LINE_REACH, LINE_REACH, 33) * mouth.half
    along, across = np.broadcast_arrays(mouth.table_along[inner][:, None], middle[inner][:, None] + offsets)
    places = mouth.middle + np.stack([along, across], axis=-1) @ np.stack([mouth.axis, mouth.down])
    light = map_coordinates(
        picture.mean(axis=-1), [places[..., 1] - 0.5, places[..., 0] - 0.5], order=1, mode="nearest"
    )
    # At the corners the line is the landmarks'; towards the middle the picture counts for more.
    freedom = np.clip((1 - np.abs(along / mouth.half)) / 0.15, 0.05, 1)
    contrast = max(float(np.ptp(light)), 1e-3)
    cost = light / contrast + 0.5 * (offsets / (LINE_REACH * mouth.half)) ** 2 / freedom
    bend = 0.02 * (np.arange(len(offsets))[:, None] - np.arange(len(offsets))) ** 2
    total, came = cost[0], []
    for column in cost[1:]:
        paths = total[None] + bend
        came.append(paths.argmin(axis=1))
        total = paths.min(axis=1) + column
    path = [int(total.argmin())]
    for step in reversed(came):
        path.append(int(step[path[-1]]))
    line = middle.copy()
    line[inner] += gaussian_filter1d(offsets[path[::-1]], 4.0, mode="nearest")
    return line


def _extent(mask: torch.Tensor) -> tuple[slice, slice] | None:
    """Rows and columns of the smallest box around what is set in `mask` (B, h, w); None where nothing is."""
    rows, columns = mask.any(dim=0).any(dim=1).nonzero(), mask.any(dim=0).any(dim=0).nonzero()
    if len(rows) == 0:
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _steepness(values: torch.Tensor) -> torch.Tensor:
    """Length of the gradient (B, h, w) per pixel of `values` (B, h, w), at least a fifth."""
    across = F.pad(values[..., 2:] - values[..., :-2], (1, 1), mode="replicate") / 2
    down = F.pad(values[..., 2:, :] - values[..., :-2, :], (0, 0, 1, 1), mode="replicate") / 2
    return torch.hypot(across, down).clamp(min=0.2)
