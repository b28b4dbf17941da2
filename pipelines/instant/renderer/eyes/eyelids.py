"""Blinking: lids whose skin is drawn out over an eyeball that stays where it is, and lashes that turn with the edge.

The skin between brow and eye is separated once into smooth skin, the fold in it, and the lashes. The skin is stretched
down over the eye; the fold stays near its place and fades; the lashes swing from above the edge to below it.

Numbers that name no source were chosen by eye on portraits; the trials are not recorded.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from .....models.curves import smoothstep
from .....models.face.face_mesh import LEFT_BROW, LEFT_EYE, RIGHT_BROW, RIGHT_EYE
from ....image.luma import LUMA
from ....progress import check_interrupted
from ..face_opening import SPAN, Aperture, EdgeTables, eye_opening
from ..portrait_mesh import PortraitMesh
from ..warp import Layer, as_opaque_as
from .spectacles import LEAST_BRIDGE, bridge_contrast, lowest_of_rim

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
LEAST_BEHIND = 0.1
"""Eye half widths between lashes and the rim of spectacles without which no lid is drawn."""
LASHES = 0.26
"""Height in eye half widths of the strip above the lid's edge whose dark parts are lashes."""
WING = 0.9
"""How much higher that strip is at the outer corner."""
TURNED_LASHES, FLAT_LASHES = -0.6, 0.2
"""Height of a shut eye's lashes over an open one's, below 0 as they point down, and the least on the way there."""
LEAST_STRAND = 0.03
"""Least factor of a lash on the skin's colour that is told from black."""
LASH_LINE = 0.06
"""Width in eye half widths over which the line of the lashes of a shut eye ends softly on its lid."""
FADED_FOLD, SOFT_FOLD, FOLD_TRAVEL = 0.5, 0.12, 0.4
"""Share of the fold above the lid that a shut eye loses, eye half widths over which what is left is softened, and the
share of the skin's travel that it takes part in."""
STRUCTURE = 1.0
"""Height in eye half widths up to which dark lines on the lid are folds or lashes, and no skin."""
GRAIN = 1.5
"""Most grain of a lid's skin over its median."""
DARKEST_LID, BRIGHTEST_LID = 0.75, 1.5
"""Least brightness of a lid's skin over its median: darker parts are hair of the brow; and the most of that median over
the skin below the eye: of 182 pictures with open eyes one has more than 1.3, the brim of a hat (2.3)."""
LIT_LID, LIT_SHARE = 0.85, 0.75
"""Light of a shut lid's edge beside the skin below the eye, and the share by which darker skin comes near it."""
EVEN_HUE = 0.8
"""Part of a shut lid's own hue, with its whites and highlights, that gives way to the usual one of its brightness."""
TINTS = 0.6, 1.6
"""Least and largest exponent of a shade's brightness in one colour."""
FARTHEST_GAZE = 0.35
"""Eye half widths that an iris moves to either side, at most: so far its white can be stretched."""
INNER_RIM = 0.06
"""Eye half widths between the lids' edges and the eyeball whose colour is continued under them."""
FADE_SIDES, FADE_BEHIND_FRAME = (1.55, 1.25), (1.2, 0.95)
"""Eye half widths from the middle at which lids no longer change the picture, and up to which they do in full: usually,
and beside the frame of spectacles."""
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
    """One eye of the portrait, which may lie behind spectacles whose bridge stands out by `bridge` from the skin."""

    def __init__(
        self, mesh: PortraitMesh, portrait: Layer, ring: tuple[int, ...], brow: tuple[int, ...], bridge: float
    ) -> None:
        from scipy.ndimage import gaussian_filter1d

        eye = eye_opening(mesh.points, ring)
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
        """Whether a blink can't be drawn: spectacles hide it, or a hat hides the skin above the eye."""
        self.sides = FADE_SIDES
        if abs(bridge) > LEAST_BRIDGE:
            self.sides = FADE_BEHIND_FRAME
            room = self._below_rim(room, lowest_of_rim(portrait, mesh.points, eye, below_brow, self.lashes, bridge))
        self.lower_room = float(max(0.9 * eye.half, 1.0))
        self.feather = max(0.8, 0.025 * eye.half)
        meeting = _meeting_arc(eye)
        # High above the eye the skin is drawn down evenly, past the corners, too.
        step = eye.table_along[1] - eye.table_along[0]
        reach = gaussian_filter1d(meeting - eye.upper, SPREAD * eye.half / step)
        room = np.minimum(room, gaussian_filter1d(room, 0.1 * eye.half / step, mode="nearest")) + self.lashes
        self.tables = EdgeTables(eye, [eye.upper, eye.lower, meeting, reach, room], portrait.values.device)
        box = eye.corners_of(
            (-1.5 * eye.half, 1.5 * eye.half),
            ((eye.upper - room).min() - 2, eye.lower.max() + self.lower_room + 2),
        )
        self.box = torch.from_numpy(box).float().to(portrait.values.device)
        """Corners (4, 2) of all that a blink can touch, in the portrait."""
        ball = eye.corners_of((-eye.half, eye.half), (eye.upper.min() - 1, eye.lower.max() + 1))
        self.ball_box = torch.from_numpy(ball).float().to(portrait.values.device)
        """Corners (4, 2) of all that a turning eyeball can touch."""
        self.textures = _LidTextures(portrait, eye, room, self.lashes)
        self.hidden |= self.textures.brighter > BRIGHTEST_LID

    def _below_rim(self, room: np.ndarray, rim: np.ndarray | None) -> np.ndarray:
        """What is left of the skin that is drawn out, each (ENTRIES,), below the rim of spectacles."""
        eye = self.eye
        free = None if rim is None else eye.upper - self.lashes - rim
        middle = np.abs(eye.table_along) < 0.8 * eye.half
        self.hidden = free is None or float(np.median(free[middle])) < LEAST_BEHIND * eye.half
        return room if free is None else np.clip(free, 0.02 * eye.half, room)

    def paint(
        self, picture: Layer, positions: torch.Tensor, closure: torch.Tensor, gaze: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Colours (B, C, h, w) with the lids at `closure` (B,) and the iris moved by `gaze` (B, 2) pixels.

        `positions` (B, h, w, 2) are those in the portrait.

        Also where (B, h, w) the eye's lids are: the colours hold there alone.
        """
        own = picture.sample(positions)
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
        away = (above_edge / (room + travel)).clamp(0, 1)
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
        top = smoothstep(0.0, 0.15 * self.eye.half, room + travel - above_edge)
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
        along, across = self.tables.local(positions)
        upper, lower = self.tables.at(along)[:2]
        half = self.eye.half
        right, down = (gaze @ self.tables.basis)[:, :, None, None].unbind(1)
        right, down = right.clamp(-FARTHEST_GAZE * half, FARTHEST_GAZE * half), down.clamp(-0.5 * half, 0.5 * half)
        there = along - right * (1 - (along / half) ** 2).clamp(min=0)
        # Lids and a widening eye hide more eyeball than the picture has: its edge pixel is continued.
        depth = self.feather + torch.minimum(INNER_RIM * half * torch.ones_like(upper), (lower - upper) / 4)
        inside = torch.maximum(torch.minimum(across - down, lower - depth), upper + depth) - across
        moved = picture.sample(
            positions + (there - along)[..., None] * self.tables.basis[:, 0] + self.tables.vector(inside)
        )
        edge = torch.minimum(across - upper, lower - across)
        part = smoothstep(0.0, 2 * self.feather, edge - self.feather)
        continued = torch.where(widened < 0, torch.ones_like(edge), part)
        return torch.lerp(own, moved, part[:, None]), torch.lerp(own, moved, continued[:, None])


class _LidTextures:
    """The skin above an eye (R, C, 3) without lashes and fold, and these two as factors of its colour.

    Their product is the picture. All are in the frame of the eye, `TEXELS` to a pixel.
    """

    TEXELS = 2

    def __init__(self, portrait: Layer, eye: Aperture, room: np.ndarray, lashes: float) -> None:
        """`room` (ENTRIES,) is how far above the edge the skin is free, `lashes` the height of lashes, in pixels."""
        from scipy.ndimage import gaussian_filter

        low = float((eye.upper - room).min())
        high = float(eye.lower.max()) + lashes
        self.start, self.size = (-SPAN * eye.half, low), (2 * SPAN * eye.half, high - low)
        columns, rows = (max(8, round(self.TEXELS * side)) for side in self.size)
        along = self.start[0] + (np.arange(columns) + 0.5) / columns * self.size[0]
        across = (self.start[1] + (np.arange(rows) + 0.5) / rows * self.size[1])[:, None]
        places = eye.places(along, across)
        sampled = portrait.sample(torch.from_numpy(places[None]).to(portrait.values))[0, :3].permute(1, 2, 0)
        colours = sampled.cpu().numpy().astype(np.float64)
        edge, free = (np.interp(along, eye.table_along, curve) for curve in (eye.upper, room))
        above = edge - across
        texel = self.size[0] / columns
        skin = _plain_skin(colours, (above > 0) & (above < free), eye.half / texel)
        structure = colours / skin
        # At the outer corner, where the frame of the eye begins, lashes are longest.
        height = lashes * (1 + WING * smoothstep(-0.3, -0.9, along / eye.half))
        strand = smoothstep(1.15 * height, 0.75 * height, above) * (above > 0)
        # Lashes are dark: what is brighter in the strip is the eye's white, which lids that shut leave behind.
        strands = 1 + (structure.clip(max=1) - 1) * strand[..., None]
        # Black lashes have no hue that could be divided by theirs.
        folds = np.maximum(structure, LEAST_STRAND) / np.maximum(strands, LEAST_STRAND)
        folds = np.where((above > 0)[..., None], folds, 1)
        # The skin of a shut lid is stretched: no line in it is sharp.
        soft = gaussian_filter(np.log(folds.clip(LEAST_STRAND, 2).mean(axis=-1)), SOFT_FOLD * eye.half / texel)
        below = _skin_below(portrait, eye)
        self.lit = LIT_LID * float(below @ LUMA)
        """Brightness of a shut lid's skin in the light that the face has below the eye."""
        usual = np.median(skin, axis=(0, 1))
        self.brighter = float(usual @ LUMA) / max(float(below @ LUMA), 1e-3)
        tint = _tint_of_shade(usual, below)
        self.shade, self.tint = (
            torch.from_numpy(values.astype(np.float32))[None, :, None, None].to(portrait.values)
            for values in (usual / max(float(usual @ LUMA), 0.02) ** tint, tint)
        )
        lid = np.concatenate([skin, folds.clip(0, 2), np.exp(soft)[..., None] ** tint], axis=-1)
        self.base, self.strands = (
            torch.from_numpy(values.astype(np.float32)).permute(2, 0, 1)[None].to(portrait.values.device)
            for values in (lid, strands.clip(0))
        )

    def skin(self, along: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
        return self._sample(self.base[:, :3], along, across)

    def in_light(self, skin: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
        """Skin (B, 3, h, w) of a lid that a `part` (B, h, w) takes from the brow's shade into the light of the face.

        Its hue becomes that of the picture's skin where that is as bright: skin in the light is paler than in shade.
        """
        light = (skin * skin.new_tensor(LUMA)[None, :, None, None]).sum(dim=1, keepdim=True)
        lit = light + LIT_SHARE * part[:, None] * (self.lit - light).clamp(min=0)
        even = self.shade * lit**self.tint
        return torch.lerp(skin * (lit / light.clamp(min=1e-3)), even, EVEN_HUE * part[:, None])

    def fold(self, along: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
        """(B, 6, h, w): the fold of an open eye in three colours, and the softer one of a shut eye."""
        return self._sample(self.base[:, 3:], along, across)

    def lashes(self, along: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
        return self._sample(self.strands, along, across)

    def _sample(self, texture: torch.Tensor, along: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
        where = torch.stack(
            [
                (along - self.start[0]) / self.size[0] * 2 - 1,
                (across - self.start[1]) / self.size[1] * 2 - 1,
            ],
            dim=-1,
        )
        texture = texture.expand(len(where), -1, -1, -1)
        return F.grid_sample(texture, where, mode="bilinear", padding_mode="border", align_corners=False)


def _skin_below(portrait: Layer, eye: Aperture) -> np.ndarray:
    """Colour (3,) of the lighter skin below an eye."""
    along, down = np.meshgrid(np.linspace(-0.7, 0.7, 15) * eye.half, np.linspace(0.25, 0.7, 9) * eye.half)
    across = np.interp(along, eye.table_along, eye.lower) + down
    places = eye.places(along, across)
    colours = portrait.sample(torch.from_numpy(places[None]).to(portrait.values))[:, :3].flatten(2)
    return colours.quantile(0.75, dim=2)[0].double().cpu().numpy()


def _tint_of_shade(dark: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Exponents (3,) of a shade's brightness as each colour has it, from skin (3,) in the dark and in the light."""
    depth = np.log(max(float(light @ LUMA), 0.02) / max(float(dark @ LUMA), 0.02))
    own = np.log(light.clip(min=0.02) / dark.clip(min=0.02)) / max(depth, 0.05)
    # Skin that is nearly as light tells little.
    return 1 + smoothstep(0.05, 0.25, depth) * (own.clip(*TINTS) - 1)


def _plain_skin(colours: np.ndarray, lid: np.ndarray, half: float) -> np.ndarray:
    """The skin (h, w, 3) of a lid in `colours` (h, w, 3) without dark lines, continued around `lid` (h, w).

    `half` is half the eye's width in texels. Fine grain stays.
    """
    from scipy.ndimage import gaussian_filter, maximum_filter1d, minimum_filter1d

    calm = gaussian_filter(colours, (0.03 * half, 0.06 * half, 0))
    check_interrupted()
    length = 2 * int(0.5 * STRUCTURE * half) + 1
    inside = lid[..., None]
    bright = maximum_filter1d(np.where(inside, calm, -1.0), length, axis=0)
    bright = minimum_filter1d(np.where(inside & (bright >= 0), bright, 9.0), length, axis=0)
    known = (lid & (bright < 9.0).all(axis=-1)).astype(np.float64)
    if not known.any():
        return np.maximum(calm, 0.02)
    bright = np.where(known[..., None] > 0, bright, 0.0)
    usual = np.median(bright[known > 0], axis=0)
    bright = np.maximum(bright, DARKEST_LID * usual * known[..., None])
    plain, weight = usual * np.ones_like(bright), np.full(known.shape, 0.0)
    # From wide to narrow: what the narrow means do not reach goes on as the wide ones have it.
    for width in (1.0, 0.5, 0.2):
        check_interrupted()
        weight = gaussian_filter(known, width * half, truncate=3.0)[..., None]
        mean = gaussian_filter(bright * known[..., None], (width * half, width * half, 0), truncate=3.0)
        plain = plain + (mean / np.maximum(weight, 1e-6) - plain) * np.clip(4 * weight, 0, 1)
    # What is coarser than the picture's grain is a line or its shade, and no skin.
    fine = colours - calm
    grain = GRAIN * np.median(np.abs(fine[known > 0]))
    return np.maximum(plain + fine.clip(-grain, grain) * lid[..., None], 0.02)


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
    if stone > 0.5 or not _both_visible(mesh, portrait, rings):
        return ()
    bridge = bridge_contrast(portrait, mesh.points)
    eyes = tuple(
        Eyelid(mesh, portrait, ring, brow, bridge) for ring, brow in zip(rings, (RIGHT_BROW, LEFT_BROW), strict=True)
    )
    return () if any(eye.hidden for eye in eyes) else eyes


def _both_visible(mesh: PortraitMesh, portrait: Layer, rings: tuple[tuple[int, ...], ...]) -> bool:
    """Whether the picture shows two open eyes with irises."""
    widths, light = [], []
    for ring in rings:
        eye = eye_opening(mesh.points, ring)
        opening = eye.lower - eye.upper
        if opening.max() < LEAST_OPENING * 2 * eye.half:
            return False
        inner = np.flatnonzero(np.abs(eye.table_along) < 0.9 * eye.half)[::2]
        down = np.linspace(0.1, 0.9, 17)[:, None]
        across = eye.upper[inner] + down * opening[inner]
        places = eye.places(eye.table_along[inner], across)
        colours = portrait.sample(torch.from_numpy(places[None]).to(portrait.values))[0, :3]
        dark, bright = np.quantile(colours.mean(dim=0).cpu().numpy(), [0.1, 0.9])
        if bright - dark < LEAST_CONTRAST * bright:
            return False
        widths.append(eye.half)
        light.append(bright)
    return min(widths) > LEAST_WIDTH * max(widths) and min(light) > LEAST_LIKENESS * max(light)
