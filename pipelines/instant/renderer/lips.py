"""The mouth: two lips that part along a line, and what is visible between them.

Numbers that name no source were chosen by eye on portraits; the trials are not recorded.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from ....models.curves import smoothstep
from ....models.face.mouth_regions import LOWER_INNER_LIP, MOUTH_CORNERS, UPPER_INNER_LIP
from .expression_field import ExpressionField
from .face_opening import Aperture, EdgeTables
from .lip_edges import RIM, dark_line, inside_kept, line_width, lip_above, lip_edge, lip_in_opening
from .mouth_interior import MouthInterior
from .mouth_shape import LIP_EDGE, trimmed_part
from .picture_style import PictureStyle
from .portrait_mesh import PortraitMesh
from .warp import Layer, as_opaque_as, extent

LIP_OVERLAP = 0.02
"""Mouth half widths by which an open mouth's lips go on beyond the meeting of their edges to shut."""
TOOTHLESS = 0.04
"""Mouth half widths by which a lip is its own colour up to its edge where the other one comes nearer."""
HIDING = 0.25, 0.65
"""Pucker from which some, and from which all, of the picture's own teeth are behind the lips."""
RIM_WIDTH, RIM_OPENING = 0.09, 0.25
"""Mouth half widths of the lower lip's rim, and of the opening at which all of its shade has come."""
RIM_SHADE, OPEN_RIM_SHADE = 0.5, 0.3
"""Most of the light that the rim lacks, but in drawings; lips that are open in the picture have some shade already."""
MEETING_WIDTH, MEETING_SHADE = 0.025, 0.45
"""Mouth half widths of the line where lips meet, and the light that is lost there."""
CORNER_WIDTH, CORNER_SHADE = 0.2, 0.85
"""Mouth half widths beyond the corners of the skin that lips draw out as they part there, and the light it loses."""
REACH = 1.35
"""Mouth half widths to either side within which the mouth is painted."""


class Lips:
    """Paints the mouth of one portrait.

    Where the portrait's mouth is open, its own teeth are kept: they stay with the skull while the lips move over them,
    and the painted inside begins where the picture's ends.
    """

    def __init__(
        self, picture: np.ndarray, mesh: PortraitMesh, skin: ExpressionField, style: PictureStyle, device: torch.device
    ) -> None:
        self.skin = skin
        mouth = Aperture(mesh.points, MOUTH_CORNERS, UPPER_INNER_LIP, LOWER_INNER_LIP)
        self.closed = mesh.mouth.closed
        self.kept = 0.0
        """Share that the picture's own inside has in the painted one."""
        self.rim_shade = (RIM_SHADE if self.closed else OPEN_RIM_SHADE) * (1 - style.drawn)
        self.blur = style.more_blur
        self.edge = max(LIP_EDGE, 2.5 * style.blur)
        """Pixels over which a lip's edge fades: as blurred as the picture."""
        if self.closed:
            mouth.upper = mouth.lower = dark_line(picture, mouth)
            self.trim = line_width(picture, mouth, style.blur)
            rest = mouth.middle_gap()
            # What is trimmed from open lips widens their opening, as soft edges narrow it.
            mesh.mouth.fit_edges(np.zeros(len(UPPER_INNER_LIP)), self.edge, sum(self.trim))
        else:
            self.trim = (0.0, 0.0)
            found = mouth.lower - mouth.upper
            open_part = np.clip(found / (0.1 * mouth.half), 0, 1)
            open_part = open_part * np.clip((1 - np.abs(mouth.table_along) / mouth.half) / 0.3, 0, 1)
            rim = max(RIM * mouth.half, 0.7 * style.blur) * open_part
            mouth.upper, mouth.lower = (lip_edge(picture, mouth, side) for side in (-1, 1))
            mouth.lower = np.maximum(mouth.lower, mouth.upper)
            lip = lip_above(picture, mouth)
            mouth.lower = mouth.lower - lip
            mesh.mouth.lip_gap -= float(np.interp(0, mouth.table_along, lip)) / mesh.eye_distance
            self.kept = inside_kept(picture, mouth, mesh, style.blur)
            # A shadow between lips ends beyond their landmarks, and stays on neither lip.
            above, below = ((1 - self.kept) * width * open_part for width in line_width(picture, mouth, style.blur))
            mouth.upper, mouth.lower = mouth.upper - rim, mouth.lower + 2 * rim
            rest = mouth.middle_gap()
            mouth.upper = mouth.upper - (above - rim).clip(min=0)
            mouth.lower = np.maximum(mouth.lower + (below - 2 * rim).clip(min=0), mouth.upper)
            further = mouth.lower - mouth.upper - found + LIP_OVERLAP * mouth.half * open_part
            at_lips = mouth.local(mesh.points[list(UPPER_INNER_LIP)])[:, 0]
            hidden = self.edge / 2 + LIP_OVERLAP * mouth.half
            mesh.mouth.fit_edges(np.interp(at_lips, mouth.table_along, further) / mesh.pixels_per_cm, hidden)
        self.mouth = mouth
        self.cm = mesh.pixels_per_cm
        self.feather = max(0.8, 0.02 * mouth.half, style.blur)
        along = (mouth.table_along / mouth.half).clip(-1, 1)
        roll = mesh.mouth.roll * self.cm * np.sqrt(1 - along**2)
        overlap = np.zeros_like(roll) if self.closed else lip_in_opening(picture, mouth)
        self.tables = EdgeTables(mouth, [mouth.upper, mouth.lower, roll, overlap + 2 * self.feather], device)
        self.interior = MouthInterior(picture, mesh, mouth, style, rest, self.kept, device)

    def box(self, heights: tuple[float, float]) -> torch.Tensor:
        """Corners (4, 2) in the portrait of all that is painted anew between these `heights`."""
        box = self.mouth.corners_of((-REACH * self.mouth.half, REACH * self.mouth.half), heights)
        return torch.from_numpy(box).to(self.tables.table)

    def around(self, positions: torch.Tensor, heights: tuple[float, float]) -> torch.Tensor:
        """Which (B, h, w) of `positions` (B, h, w, 2) lie between those corners; a tilted head has eyes near."""
        along, across = self.tables.local(positions)
        low, high = heights
        return (along.abs() <= REACH * self.mouth.half) & (across >= low) & (across <= high)

    def heights(self, expression: torch.Tensor) -> tuple[float, float]:
        """From where to where, across the mouth, is painted anew when the lips move by `expression` (1, 468, 2)."""
        down = torch.as_tensor(self.mouth.down, dtype=torch.float32, device=expression.device)
        rise = float((expression[0, list(UPPER_INNER_LIP)] @ down).min())
        drop = float((expression[0, list(LOWER_INNER_LIP)] @ down).max())
        # Within four nodes of the lips both fields differ from the one used elsewhere, so this strip is painted too.
        around = 4 * self.skin.spacing + 2 * self.feather
        low = float(self.mouth.upper.min()) + min(rise, 0.0) - around
        return low, float(self.mouth.lower.max()) + max(drop, 0.0) + around

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
        lips: torch.Tensor,
    ) -> torch.Tensor:
        """Samples (B, 4 or 5, h, w), as `picture` gives them, at `positions` (B, h, w, 2) without the head's motion.

        `picture` is the head's layer: colours, alpha where there is one, and the matte. The fields
        (B, 2, rows, columns) are backward, `jaw` (B, 2) pixels; `lips` (B, 3) as in `PoseAndShape`.
        """
        from_upper = positions + self.skin.sample(upper_field, positions)
        from_lower = positions + self.skin.sample(lower_field, positions)
        along, across = self.tables.local(from_upper)
        below_upper = across - self.tables.at(along)[0]
        inward = self.mouth.half - along.abs()
        along, across = self.tables.local(from_lower)
        upper, lower, roll, _ = self.tables.at(along)
        # A lower lip under the teeth rolls in: what lies inside its new edge disappears.
        above_lower = lower + lips[:, 1, None, None] * roll - across
        inward = torch.minimum(inward, self.mouth.half - along.abs())
        # The dark line between closed lips goes as they part: else both would keep half of it as an outline.
        parting = trimmed_part(below_upper + above_lower, sum(self.trim))
        below_upper = below_upper + self.trim[0] * parting
        above_lower = above_lower + self.trim[1] * parting
        soft = self.feather + 0.5 * (along.abs() - 0.9 * self.mouth.half).clamp(min=0)
        blend = smoothstep(-1.0, 1.0, (below_upper - above_lower) / (2 * soft))
        if not self.closed:
            self._leave_teeth(from_upper, from_lower, below_upper, above_lower, lower - upper)
        colours = torch.lerp(picture.sample(from_upper), picture.sample(from_lower), blend[:, None])
        if not self.closed:
            self._shade_meeting(colours, below_upper, above_lower, lower - upper)
        gap = torch.minimum(below_upper / _steepness(below_upper), above_lower / _steepness(above_lower))
        opened = smoothstep(0.0, self.edge, torch.minimum(gap, inward))
        part = extent(opened > 0)
        if part is None:
            return colours
        self._shade_corners(colours, gap, below_upper + above_lower - (lower - upper), inward)
        self._shade_rim(colours, above_lower, below_upper + above_lower, inward)
        rows, columns = part
        opened, positions, below_upper, above_lower, inward = (
            values[:, rows, columns] for values in (opened, positions, below_upper, above_lower, inward)
        )
        along, across = self.tables.local(positions)
        light = self.interior.light(below_upper, above_lower, below_upper + above_lower, inward, lips)
        here = colours[:, :, rows, columns]
        inside = as_opaque_as(here, self.interior.paint(along, across, jaw @ self.tables.basis, lips, light))
        if not self.closed:
            inside = self._keep_teeth(picture, positions, along, across, above_lower, lips, light, inside)
        inside = torch.cat([inside, torch.ones_like(inside[:, :1])], dim=1)
        here.copy_(torch.lerp(here, inside, opened[:, None]))
        return colours

    def _leave_teeth(
        self,
        from_upper: torch.Tensor,
        from_lower: torch.Tensor,
        below_upper: torch.Tensor,
        above_lower: torch.Tensor,
        open_by: torch.Tensor,
    ) -> None:
        """Moves sources (B, h, w, 2) between lips onto their own lip, where they are nearer than `open_by` pixels.

        Else soft edges would show the teeth that the picture has beside them.
        """
        bare = TOOTHLESS * self.mouth.half
        part = extent(torch.minimum(below_upper, above_lower) > -bare - 2 * self.feather)
        if part is None:
            return
        rows, columns = part
        below_upper, above_lower, open_by = (v[:, rows, columns] for v in (below_upper, above_lower, open_by))
        nearer = smoothstep(0.0, 2 * self.edge, open_by - below_upper - above_lower)
        from_upper[:, rows, columns] -= self.tables.vector(nearer * (below_upper + bare).clamp(min=0))
        from_lower[:, rows, columns] += self.tables.vector(nearer * (above_lower + bare).clamp(min=0))

    def _shade_meeting(
        self, colours: torch.Tensor, below_upper: torch.Tensor, above_lower: torch.Tensor, open_by: torch.Tensor
    ) -> None:
        """Shades the line in `colours` (B, 4, h, w) where lips meet that are `open_by` pixels apart in the picture.

        Between shut lips there is a dark line, where these have what is left of the light of teeth.
        """
        sharp = max(MEETING_WIDTH * self.mouth.half, LIP_EDGE / 2)
        width = math.hypot(sharp, self.blur)
        apart = below_upper + above_lower
        line = torch.exp(-(((below_upper - above_lower) / (2 * width)) ** 2)) * smoothstep(3 * width, 0.0, apart)
        line = MEETING_SHADE * sharp / width * line * smoothstep(0.0, 3 * width, open_by - apart)
        colours[:, :3] *= self.interior.tinted(1 - line)

    def _shade_corners(
        self, colours: torch.Tensor, inside: torch.Tensor, parted: torch.Tensor, inward: torch.Tensor
    ) -> None:
        """Shades the skin in `colours` (B, 4, h, w) that is drawn out between the lips at their corners.

        There a real mouth has a fold. `inside`, `parted` and `inward` (B, h, w) are pixels from the nearer lip's edge,
        by which lips are further apart than in the picture, and from the nearer corner.
        """
        web = smoothstep(0.0, 2 * self.edge, torch.minimum(inside, parted))
        web = web * smoothstep(-CORNER_WIDTH * self.mouth.half - self.edge, 0.0, inward)
        colours[:, :3] *= self.interior.tinted(1 - CORNER_SHADE * web)

    def _shade_rim(
        self, colours: torch.Tensor, above_lower: torch.Tensor, gap: torch.Tensor, inward: torch.Tensor
    ) -> None:
        """Shades the lower lip's rim in `colours` (B, 4, h, w), which curves in below the teeth as its mouth opens.

        `above_lower`, `gap` and `inward` (B, h, w) are pixels above that lip's edge, between both lips and from the
        nearer corner.
        """
        half = self.mouth.half
        width = math.hypot(RIM_WIDTH * half, 2 * self.blur)
        rim = smoothstep(-width, 0.0, above_lower) * smoothstep(2 * self.edge, self.edge, above_lower)
        rim = self.rim_shade * RIM_WIDTH * half / width * rim * smoothstep(0.0, RIM_OPENING * half, gap)
        rim = rim * smoothstep(0.0, width, inward)
        colours[:, :3] *= self.interior.tinted(1 - rim)

    def _keep_teeth(
        self,
        picture: Layer,
        positions: torch.Tensor,
        along: torch.Tensor,
        across: torch.Tensor,
        above_lower: torch.Tensor,
        lips: torch.Tensor,
        light: torch.Tensor,
        painted: torch.Tensor,
    ) -> torch.Tensor:
        """The picture's own mouth inside, as far as it reaches, over the painted one."""
        upper, lower, _, overlap = self.tables.at(along)
        # What of the lower lip lies in the picture's opening goes as the lip moves away.
        parted = (above_lower - (lower - across)).clamp(min=0).minimum(overlap)
        own = smoothstep(-2 * self.feather, 0.0, lower - across - parted)
        shown = (1 - smoothstep(*HIDING, lips[:, 0])) * (1 - lips[:, 1])
        own = own * self.kept * shown[:, None, None]
        # A raised lip shows more of the teeth than the picture has: their upper edge is continued.
        reach = torch.maximum(across, torch.minimum(upper + self.feather, (upper + lower) / 2)) - across
        colour = picture.sample(positions + self.tables.vector(reach))[:, :-1]
        gap, inward = (lower - upper).clamp(min=0), self.mouth.half - along.abs()
        rest = self.interior.light(across - upper, lower - across, gap, inward, torch.zeros_like(lips))
        dimmed = (light / rest).clamp(max=1.0)
        return torch.lerp(painted, self.interior.shaded(colour, dimmed), own[:, None])


def _steepness(values: torch.Tensor) -> torch.Tensor:
    """Length of the gradient (B, h, w) per pixel of `values` (B, h, w), at least a fifth."""
    across = F.pad(values[..., 2:] - values[..., :-2], (1, 1), mode="replicate") / 2
    down = F.pad(values[..., 2:, :] - values[..., :-2, :], (0, 0, 1, 1), mode="replicate") / 2
    return torch.hypot(across, down).clamp(min=0.2)
