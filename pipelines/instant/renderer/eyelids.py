"""Blinking: lids that carry their skin and lashes over an eyeball that stays where it is.

Numbers that name no source were chosen by eye on portraits; the trials are not recorded.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from ....models.curves import smoothstep
from ....models.face.face_mesh import LEFT_BROW, LEFT_EYE, RIGHT_BROW, RIGHT_EYE
from .face_opening import SPAN, Aperture, EdgeTables
from .portrait_mesh import PortraitMesh
from .spectacles import LEAST_BRIDGE, bridge_contrast, lowest_of_rim
from .warp import Layer

MEETING_LINE = 0.07
"""Where the lids meet, as a part of the opening above the lower lid, which rises by it; the upper lid does the rest.

The mesh's is another: models/face/eyelid_shapes.py.
"""
RIM = 0.05
"""Eye half widths by which the lids' edges lie outside the landmarks."""
SPREAD = 0.3
"""Eye half widths over which the skin far above the lid is evened out."""
BROW_MARGIN, LEAST_ROOM = 0.1, 0.3
"""Eye half widths: how far below the brow's landmarks its hair ends; how much skin is drawn out at least."""
LEAST_BEHIND = 0.1
"""Eye half widths between lashes and the rim of spectacles without which no lid is drawn."""
LASHES = 0.28
"""Height in eye half widths of the strip of lashes that travels with the lid's edge unstretched."""


class Eyelid:
    """One eye of the portrait, which may lie behind spectacles whose bridge stands out by `bridge` from the skin."""

    def __init__(
        self, mesh: PortraitMesh, portrait: Layer, ring: tuple[int, ...], brow: tuple[int, ...], bridge: float
    ) -> None:
        from scipy.ndimage import gaussian_filter1d

        upper, lower = ring[1:8], ring[15:8:-1]
        eye = Aperture(mesh.points, (ring[0], ring[8]), upper, lower)
        self.eye = eye
        opening = eye.lower - eye.upper
        # Landmarks run along the inside of the lids: a rim of eyeball on a shut lid would shine through.
        inset = RIM * eye.half * np.clip(opening / (0.3 * eye.half), 0, 1)
        eye.upper, eye.lower = eye.upper - inset, eye.lower + inset
        self.lashes = LASHES * eye.half
        edge = eye.local(mesh.points[list(brow[:5])])
        order = edge[:, 0].argsort()
        below_brow = np.interp(eye.table_along, edge[order, 0], edge[order, 1]) + BROW_MARGIN * eye.half
        room = np.maximum(eye.upper - self.lashes - below_brow, LEAST_ROOM * eye.half)
        self.hidden = False
        """Whether spectacles hide a blink entirely."""
        if abs(bridge) > LEAST_BRIDGE:
            room = self._below_rim(room, lowest_of_rim(portrait, mesh.points, eye, below_brow, self.lashes, bridge))
        self.lower_room = float(max(0.9 * eye.half, 1.0))
        self.feather = max(0.8, 0.025 * eye.half)
        # High above the eye the skin is drawn down evenly, past the corners, too.
        reach = gaussian_filter1d(eye.lower - eye.upper, SPREAD * eye.half / (eye.table_along[1] - eye.table_along[0]))
        self.tables = EdgeTables(eye, [eye.upper, eye.lower, reach, room], portrait.values.device)
        box = eye.corners_of(
            (-1.5 * eye.half, 1.5 * eye.half),
            ((eye.upper - room).min() - self.lashes - 2, eye.lower.max() + self.lower_room + 2),
        )
        self.box = torch.from_numpy(box).float().to(portrait.values.device)
        """Corners (4, 2) of all that a blink can touch, in the portrait."""

    def _below_rim(self, room: np.ndarray, rim: np.ndarray | None) -> np.ndarray:
        """What is left of the skin that is drawn out, each (ENTRIES,), below the rim of spectacles."""
        eye = self.eye
        free = None if rim is None else eye.upper - self.lashes - rim
        middle = np.abs(eye.table_along) < 0.8 * eye.half
        self.hidden = free is None or float(np.median(free[middle])) < LEAST_BEHIND * eye.half
        return room if free is None else np.clip(free, 0.02 * eye.half, room)

    def paint(
        self, picture: Layer, positions: torch.Tensor, closure: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Colours (B, C, h, w) with the lids at `closure` (B,), of portrait positions (B, h, w, 2).

        Also where (B, h, w) the eye's lids are: the colours hold there alone.
        """
        along, across = self.tables.local(positions)
        upper, lower, reach, room = self.tables.at(along)
        shut = closure[:, None, None]
        closing = shut * (lower - upper)
        upper_travel = closing * (1 - MEETING_LINE)
        lower_travel = closing * MEETING_LINE
        below_upper = across - (upper + upper_travel)
        above_lower = (lower - lower_travel) - across
        # The skin between lashes and brow is drawn out over the eye; the brow stays.
        away = ((-below_upper - self.lashes) / (room + upper_travel)).clamp(0, 1)
        upper_shift = -torch.lerp(upper_travel, shut * (1 - MEETING_LINE) * reach, away) * (1 - away)
        lower_shift = lower_travel * _fade((-above_lower - 0.5 * self.lashes) / self.lower_room)
        upper_lid = picture.sample(positions + self.tables.vector(upper_shift))
        lower_lid = picture.sample(positions + self.tables.vector(lower_shift))
        lower_part = smoothstep(-1.0, 1.0, (below_upper - above_lower) / (2 * self.feather))
        lid = torch.lerp(upper_lid, lower_lid, lower_part[:, None])
        # A widening eye shows more eyeball than the picture has: its edge pixel is continued.
        inside = torch.maximum(torch.minimum(across, lower - self.feather), upper + self.feather) - across
        widened = torch.where(closing < 0, inside, torch.zeros_like(inside))
        ball = picture.sample(positions + self.tables.vector(widened))
        open_part = smoothstep(0.0, self.feather, torch.minimum(below_upper, above_lower))
        return torch.lerp(lid, ball, open_part[:, None]), along.abs() < SPAN * self.eye.half


def eyelids(mesh: PortraitMesh, portrait: Layer) -> tuple[Eyelid, ...]:
    """The right and the left eye of a portrait; none where spectacles hide the lids."""
    bridge = bridge_contrast(portrait, mesh.points)
    right = Eyelid(mesh, portrait, RIGHT_EYE, RIGHT_BROW, bridge)
    left = Eyelid(mesh, portrait, LEFT_EYE, LEFT_BROW, bridge)
    # One eye that blinks beside one that can't would wink.
    return () if right.hidden or left.hidden else (right, left)


def _fade(t: torch.Tensor) -> torch.Tensor:
    """1 up to 0, then falling almost evenly to 0 at 1, with soft ends: an even stretch of the skin."""
    t = t.clamp(0, 1)
    return 1 - t + 0.06 * torch.sin(2 * math.pi * t)
