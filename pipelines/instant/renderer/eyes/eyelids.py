"""Blinking: lids whose skin is drawn out over an eyeball that stays where it is, and lashes that turn with the edge.

The skin between brow and eye is separated once into smooth skin, the fold in it, and the lashes. The skin is stretched
down over the eye; the fold stays near its place and fades; the lashes swing from above the edge to below it.

Numbers that name no source were chosen by eye on portraits; the trials are not recorded.
"""

from __future__ import annotations

import numpy as np
import torch

from .....models.curves import smoothstep
from .....models.face.face_mesh import LEFT_BROW, LEFT_EYE, RIGHT_BROW, RIGHT_EYE
from ..face_opening import SPAN, Aperture, EdgeTables, eye_opening
from ..portrait_mesh import PortraitMesh
from ..warp import Layer, as_opaque_as
from .drawn_eyes import with_drawn_eyes
from .lid_textures import LidTextures
from .spectacles import LEAST_BRIDGE, Surroundings, are_spectacles, bridge_contrast

MEETING_LINE = 0.1
"""Where the lids meet, as a part of the opening above the lower lid, which rises by it; the upper lid does the rest.

The mesh's is another: models/face/eyelid_shapes.py.
"""
RIM = 0.05
"""Eye half widths by which the lids' edges lie outside the landmarks."""
OVERLAP = 0.09
"""Eye half widths by which the shut upper lid covers the lower one, whose moist edge is bright."""
SPREAD = 0.3
"""Eye half widths over which the skin far above the lid is evened out."""
BROW_MARGIN, LEAST_ROOM = 0.1, 0.3
"""Eye half widths: how far below the brow's landmarks its hair ends; how much skin is drawn out at least."""
LEAST_BEHIND = 0.02
"""Eye half widths of skin that are drawn out, at least, however near the rim of spectacles lies."""
LASHES = 0.26
"""Height in eye half widths of the strip above the lid's edge whose dark parts are lashes."""
TURNED_LASHES, FLAT_LASHES = -0.6, 0.2
"""Height of a shut eye's lashes over an open one's, below 0 as they point down, and the least on the way there."""
LASH_LINE = 0.06
"""Width in eye half widths over which the line of the lashes of a shut eye ends softly on its lid."""
FADED_FOLD, FOLD_TRAVEL = 0.5, 0.4
"""Share of the fold above the lid that a shut eye loses, and the share of the skin's travel that it takes part in."""
BRIGHTEST_LID = 1.5
"""Most brightness of a lid's skin, its median, over the skin below the eye: of 182 pictures with open eyes one has more
than 1.3, the brim of a hat (2.3)."""
FARTHEST_GAZE = 0.35
"""Eye half widths that an iris moves to either side, at most: so far its white can be stretched."""
INNER_RIM = 0.06
"""Eye half widths between the lids' edges and the eyeball whose colour is continued under them."""
SOFT_TOP = 0.15
"""Eye half widths over which drawn-out skin begins, or all of it where there is less."""
FADE_SIDES, FADE_AT_CORNERS = (1.55, 1.25), (1.2, 0.95)
"""Eye half widths from the middle at which lids no longer change the picture, and up to which they do in full: usually,
and beside the frame of spectacles or within an outline that was found in the picture."""
FADE_LID = 1.35, 0.85
"""Eye half widths from the middle between which a shut lid's own light and smoothness begin."""
SLIGHT_CLOSURE = 0.08
"""Closure up to which the picture's own lids turn into those that are put together of skin, fold and lashes."""
LEAST_CONTRAST, LEAST_LIKENESS = 0.3, 0.35
"""Difference of an eye's light and dark parts over the light ones without which it has no iris (blank eyes of statues,
eyes behind hair), and the light parts of one eye over the other's without which one is hidden."""
LEAST_OPENING, LEAST_WIDTH = 0.1, 0.3
"""Height of an eye over its width below which it is shut in the picture, and width of one eye over the other's below
which a turned head hides it."""


class Eyelid:
    """One eye of the portrait, which may lie behind spectacles."""

    def __init__(
        self,
        portrait: Layer,
        eye: Aperture,
        below_brow: np.ndarray,
        free: np.ndarray | None,
        ball: Aperture | None,
    ) -> None:
        """`eye` and `below_brow` as from `_eye_and_brow`.

        `free` (ENTRIES,) is where the skin begins that may be drawn out, below the rim of spectacles, else None.
        `ball` is what is within the line around a drawn eye, else None.
        """
        from scipy.ndimage import gaussian_filter1d

        self.eye = eye
        lashes = LASHES * eye.half
        room = np.maximum(eye.upper - lashes - below_brow, LEAST_ROOM * eye.half)
        self.sides = FADE_SIDES if free is None and ball is None else FADE_AT_CORNERS
        self.lower_room = float(max(0.9 * eye.half, 1.0))
        self.feather = max(0.8, 0.025 * eye.half)
        meeting = _meeting_arc(eye)
        # High above the eye the skin is drawn down evenly, past the corners, too.
        step = eye.table_along[1] - eye.table_along[0]
        reach = gaussian_filter1d(meeting - eye.upper, SPREAD * eye.half / step)
        room = np.minimum(room, gaussian_filter1d(room, 0.1 * eye.half / step, mode="nearest")) + lashes
        if free is not None:
            room = np.minimum(eye.upper - free, room)
        self.tables = EdgeTables(eye, [eye.upper, eye.lower, meeting, reach, room], portrait.values.device)
        box = eye.corners_of(
            (-1.5 * eye.half, 1.5 * eye.half),
            ((eye.upper - room).min() - 2, eye.lower.max() + self.lower_room + 2),
        )
        self.box = torch.from_numpy(box).float().to(portrait.values.device)
        """Corners (4, 2) of all that a blink can touch, in the portrait."""
        self.widens = ball is None
        """Whether the eye can open wider: the line around a drawn one stays."""
        self.ball = ball or eye
        self.ball_tables = EdgeTables(self.ball, [self.ball.upper, self.ball.lower], portrait.values.device)
        corners = self.ball.corners_of(
            (-self.ball.half, self.ball.half), (self.ball.upper.min() - 1, self.ball.lower.max() + 1)
        )
        self.ball_box = torch.from_numpy(corners).float().to(portrait.values.device)
        """Corners (4, 2) of all that a turning eyeball can touch."""
        self.textures = LidTextures(portrait, eye, np.maximum(room, LEAST_BEHIND * eye.half), lashes)

    def paint(
        self, picture: Layer, positions: torch.Tensor, closure: torch.Tensor, gaze: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Colours (B, C, h, w) with the lids at `closure` (B,) and the iris moved by `gaze` (B, 2) pixels.

        `positions` (B, h, w, 2) are those in the portrait.

        Also where (B, h, w) the eye's lids are: the colours hold there alone.
        """
        own = picture.sample(positions)
        closure = closure if self.widens else closure.clamp(min=0)
        along, across = self.tables.local(positions)
        lids = along.abs() < SPAN * self.eye.half
        upper, lower, meeting, reach, room = self.tables.at(along)
        shut = closure[:, None, None]
        closed, widened = shut.clamp(min=0), shut.clamp(max=0)
        seen, ball = self._eyeball(picture, positions, own, widened, gaze)
        if not closure.any():
            return seen, lids
        travel = closed * (meeting - upper) + widened * (lower - upper)
        above_edge = upper + travel - across
        # The skin between the edge and the brow is drawn out over the eye; the brow stays.
        least = LEAST_BEHIND * self.eye.half
        away = (above_edge / (room + travel).clamp(min=least)).clamp(0, 1)
        shift = torch.lerp(travel, shut * reach, away) * (1 - away)
        skin = self.textures.skin(along, across - shift)
        fold = self.textures.fold(along, across - FOLD_TRAVEL * shift)
        # Towards the brow and beside the eye the lid is the picture's own again.
        inner = smoothstep(*FADE_LID, along.abs() / self.eye.half)
        # What comes out from under the brow comes out of its shadow.
        skin = self.textures.in_light(skin, closed * inner * smoothstep(1.0, 0.2, away))
        softer = (closed * inner * smoothstep(1.0, 0.5, away))[:, None]
        fold = torch.lerp(fold[:, :3], torch.lerp(fold[:, 3:], torch.ones_like(fold[:, 3:]), FADED_FOLD), softer)
        lid = as_opaque_as(own, skin * fold)

        lower_travel = closed * (lower - meeting).clamp(min=0)
        below_lower = across - (lower - lower_travel)
        lower_shift = lower_travel * smoothstep(1.0, 0.0, below_lower / self.lower_room)
        lower_lid = picture.sample(positions + self.tables.vector(lower_shift))
        under = torch.lerp(ball, lower_lid, smoothstep(-self.feather, self.feather, below_lower)[:, None])
        covered = smoothstep(0.0, self.feather, above_edge + OVERLAP * self.eye.half * closed**4)
        colours = torch.lerp(under[:, :-1], lid, covered[:, None])

        turned = 1 + (TURNED_LASHES - 1) * smoothstep(0.1, 0.95, closed)
        turned = torch.where(turned >= 0, turned.clamp(min=FLAT_LASHES), turned.clamp(max=-FLAT_LASHES))
        height, line = above_edge * turned.sign(), LASH_LINE * self.eye.half
        strands = self.textures.lashes(along, upper - (height / turned.abs()).clamp(min=0.5 * line))
        # The line of the lashes has no hard edge on the side where they do not point.
        strength = smoothstep(-line * closed.clamp(min=1e-3), torch.zeros_like(closed), height)
        colours[:, :3] *= torch.lerp(torch.ones_like(strands), strands, strength[:, None])
        top = ((room + travel - above_edge) / room.clamp(least, SOFT_TOP * self.eye.half)).clamp(0, 1)
        top = top * top * (3 - 2 * top)
        side = smoothstep(*self.sides, along.abs() / self.eye.half)
        colours = torch.cat([colours, torch.ones_like(colours[:, :1])], dim=1)
        # Lids that begin to move are still the picture's own.
        colours = torch.lerp(seen, colours, (top * side * smoothstep(0.0, SLIGHT_CLOSURE, shut.abs()))[:, None])
        return colours, lids

    def _eyeball(
        self, picture: Layer, positions: torch.Tensor, own: torch.Tensor, widened: torch.Tensor, gaze: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Colours (B, C, h, w) of the picture with the eyeball moved, whose white is stretched beside the iris.

        Also the same with the eyeball continued under the lids, for an eye that opens wider.

        `own` are the picture's, `widened` (B, 1, 1) is the closure of an eye that opens wider, else 0.
        """
        if not widened.any() and not gaze.any():
            return own, own
        tables, half = self.ball_tables, self.ball.half
        along, across = tables.local(positions)
        upper, lower = tables.at(along)
        right, down = (gaze @ tables.basis)[:, :, None, None].unbind(1)
        right, down = right.clamp(-FARTHEST_GAZE * half, FARTHEST_GAZE * half), down.clamp(-0.5 * half, 0.5 * half)
        there = along - right * (1 - (along / half) ** 2).clamp(min=0)
        # Lids and a widening eye hide more eyeball than the picture has: its edge pixel is continued.
        depth = self.feather + torch.minimum(INNER_RIM * half * torch.ones_like(upper), (lower - upper) / 4)
        inside = torch.maximum(torch.minimum(across - down, lower - depth), upper + depth) - across
        moved = picture.sample(positions + (there - along)[..., None] * tables.basis[:, 0] + tables.vector(inside))
        edge = torch.minimum(across - upper, lower - across)
        part = smoothstep(0.0, 2 * self.feather, edge - self.feather)
        continued = torch.where(widened < 0, torch.ones_like(edge), part)
        return torch.lerp(own, moved, part[:, None]), torch.lerp(own, moved, continued[:, None])


def _meeting_arc(eye: Aperture) -> np.ndarray:
    """The smooth curve (ENTRIES,) over `eye.table_along` on which the lids meet: near the lower one, from corner to
    corner."""
    place = np.clip(eye.table_along / eye.half, -1, 1)
    inner = np.abs(place) < 0.9
    arch = 1 - place**2
    wanted = eye.lower - MEETING_LINE * (eye.lower - eye.upper)
    terms = np.stack([arch, arch * place], axis=1)
    weights = np.linalg.lstsq(terms[inner], wanted[inner], rcond=None)[0]
    return np.maximum(terms @ weights, eye.upper)


def eyelids(mesh: PortraitMesh, portrait: Layer, stone: float) -> tuple[Eyelid, ...]:
    """The right and the left eye of a portrait; none where one of them can't blink, as the other would wink.

    `stone` as in `PictureStyle`: statues don't blink.
    """
    rings = (RIGHT_EYE, LEFT_EYE)
    points, within = with_drawn_eyes(portrait, mesh.points, mesh.eye_distance)
    # A dark lens has light around it, but none in the middle.
    if stone > 0.5 or not all(_both_visible(where, portrait, rings) for where in (mesh.points, points)):
        return ()
    shapes = [
        _eye_and_brow(points, ring, brow, RIM if within is None else 0.0)
        for ring, brow in zip(rings, (RIGHT_BROW, LEFT_BROW), strict=True)
    ]
    free: list[np.ndarray | None] = [None, None]
    bridge = bridge_contrast(portrait, mesh.points)
    if abs(bridge) > LEAST_BRIDGE:
        # What looks like the outline of a drawn eye may be a rim or a dark lens.
        if within is not None:
            return ()
        around = [Surroundings(portrait, points, *shape, LASHES * shape[0].half, bridge) for shape in shapes]
        if any(eye.opaque for eye in around):
            return ()
        if are_spectacles(around):
            free = [eye.free_skin() for eye in around]
    balls = [None if within is None else eye_opening(within, ring) for ring in rings]
    eyes = tuple(
        Eyelid(portrait, *shape, begins, ball) for shape, begins, ball in zip(shapes, free, balls, strict=True)
    )
    # Where the skin above an eye is a hat, no blink can be drawn.
    return () if any(eye.textures.brighter > BRIGHTEST_LID for eye in eyes) else eyes


def _eye_and_brow(
    points: np.ndarray, ring: tuple[int, ...], brow: tuple[int, ...], rim: float
) -> tuple[Aperture, np.ndarray]:
    """An eye with its lids' edges in a blink, and where (ENTRIES,) over it the skin below the brow begins.

    The edges lie `rim` half widths outside the landmarks.
    """
    eye = eye_opening(points, ring)
    # Landmarks run along the inside of the lids: a rim of eyeball on a shut lid would shine through.
    inset = rim * eye.half * np.clip((eye.lower - eye.upper) / (0.3 * eye.half), 0, 1)
    eye.upper, eye.lower = eye.upper - inset, eye.lower + inset
    edge = eye.local(points[list(brow[:5])])
    order = edge[:, 0].argsort()
    return eye, np.interp(eye.table_along, edge[order, 0], edge[order, 1]) + BROW_MARGIN * eye.half


def _both_visible(points: np.ndarray, portrait: Layer, rings: tuple[tuple[int, ...], ...]) -> bool:
    """Whether the picture shows two open eyes with irises."""
    widths, light = [], []
    for ring in rings:
        eye = eye_opening(points, ring)
        opening = eye.lower - eye.upper
        if opening.max() < LEAST_OPENING * 2 * eye.half:
            return False
        inner = np.flatnonzero(np.abs(eye.table_along) < 0.9 * eye.half)[::2]
        down = np.linspace(0.1, 0.9, 17)[:, None]
        across = eye.upper[inner] + down * opening[inner]
        places = eye.places(eye.table_along[inner], across)
        dark, bright = np.quantile(portrait.colours_at(places).mean(axis=-1), [0.1, 0.9])
        if bright - dark < LEAST_CONTRAST * bright:
            return False
        widths.append(eye.half)
        light.append(bright)
    return min(widths) > LEAST_WIDTH * max(widths) and min(light) > LEAST_LIKENESS * max(light)
