"""Inside of an opening mouth: teeth, tongue and a dark cavity, painted once in the portrait's own light and style.

Numbers that name no source were chosen by eye on portraits; the trials are not recorded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ....models.curves import smoothstep
from ....models.face.face_mesh import INNER_LOWER_LIP, INNER_UPPER_LIP, LEFT_EYE, RIGHT_EYE
from ...image.luma import LUMA
from .face_opening import Aperture, colours_at
from .lip_edges import side_light
from .mouth_shape import TUCK_DOWN, TUCK_GAP
from .picture_style import (
    LIPS,
    TEETH_BETWEEN,
    PictureStyle,
    blue_of_whites,
    median_colour,
    pixels_inside,
    plain_brightness,
    skin_colour,
    teeth_brightness,
)
from .portrait_mesh import PortraitMesh

TOOTH_WIDTHS = (0.86, 0.68, 0.78, 0.70, 0.68, 0.95)
"""Upper teeth from the middle outwards along the arch, cm (Wheeler's Dental Anatomy, rounded)."""
LOWER_TOOTH_WIDTHS = (0.53, 0.58, 0.69, 0.70, 0.70, 1.0)
UPPER_LIFT = np.array([0.0, 0.05, 0.01, 0.06, 0.09, 0.11])
"""How much higher than the middle incisors the other upper teeth end, cm."""
ARCH_RADIUS = 2.6
"""Radius of the front of the dental arch, cm."""
LIGHT_SKIN, TEETH, TONGUE, GUM, CAVITY = (
    np.array(c)
    for c in ((0.80, 0.62, 0.54), (0.86, 0.81, 0.74), (0.66, 0.36, 0.35), (0.68, 0.41, 0.39), (0.25, 0.09, 0.08))
)
"""sRGB colours of a light-skinned mouth in plain daylight, to be adapted to the portrait's brightness and tint."""
DRAWN = {"teeth": (0.96, 0.94, 0.91), "tongue": (0.80, 0.42, 0.40), "cavity": (0.34, 0.11, 0.11)}
"""The same as drawings have them."""
STONE = {"teeth": 0.96, "tongue": 0.50, "gum": 0.55, "cavity": 0.22}
"""Brightness beside the skin in a mouth of stone, all of it the stone's colour."""
RED_LIPS = 0.42
"""Saturation of plain lips: as much of it as they have, a mouth's flesh has too, however pale the skin is."""
MANY_HUES, MANY_HUES_FLESH = (0.04, 0.09), 0.85
"""`hues` of a picture from which some, and from which all, of that saturation is a mouth's at least."""
YELLOWEST, YELLOW_LIGHT = 0.86, 0.62
"""Least blue of teeth beside their green; as little as YELLOW_LIGHT where a picture's light makes eyes as yellow."""
BLUEST = 0.2, 0.6, 0.19
"""Most blue beside their green: parts of the skin's and of the eyes' whites, and the rest; fitted to 23 pictures that
show teeth, which are off by 0.024 (mean, each by the others' fit)."""
REDDER = 0.8
"""How much redder than green teeth are, at least, for each part of blue that they lack."""
UPPER_SHOW = 0.4
"""How far below the line of closed lips the upper middle teeth end, cm."""
BARING = 0.03, 0.08
"""Opening of a portrait in eye distances from which some, and with which all, of its lower lip's way is a smile's."""
TONGUE_FOLLOWS = 0.62
"""Part of the jaw's drop that the tongue follows."""
SHADOW, SHADOW_DEPTH = 0.45, 0.09
"""How much light the upper teeth take from what is behind them, and how far below their edges, cm."""
TEETH_LIT = 0.6
"""Part of the lips' shadow that upper teeth on a lower lip are without."""
ROW_REACH, ROW_FROM = 0.6, (0.2, 0.5)
"""Mouth half widths over which a row of teeth is even, and the parts of it that must be bright for some and for all of
it to reach a lower lip."""
PUCKER_HIDES = 0.55
"""How far the teeth go behind fully puckered lips, cm."""


@dataclass(frozen=True)
class Palette:
    """sRGB colours (3,) for this portrait."""

    teeth: np.ndarray
    tongue: np.ndarray
    gum: np.ndarray
    cavity: np.ndarray


def palette_of(picture: np.ndarray, mesh: PortraitMesh, style: PictureStyle) -> Palette:
    """Colours from the skin, lips and eyes of a picture (H, W, 3) in 0..1."""
    points = mesh.points
    skin = skin_colour(picture, points)
    lips = median_colour(picture, points[list(LIPS)])
    eyes = np.concatenate([pixels_inside(picture, points[list(ring)]) for ring in (RIGHT_EYE, LEFT_EYE)])
    of_skin = float(skin @ LUMA)
    white = max(float(np.percentile(eyes @ LUMA, 85)) if len(eyes) else 0.0, 0.8 * of_skin)
    light = 0.5 * of_skin / float(LIGHT_SKIN @ LUMA) + 0.5 * white / 0.72
    light = float(np.clip(light, 0.25, 1.12))
    teeth_light = teeth_brightness(picture, points) / float(TEETH @ LUMA)
    plain = np.ptp(LIGHT_SKIN) / LIGHT_SKIN.max()
    saturation = float(np.clip(np.ptp(skin) / max(skin.max(), 1e-3) / plain, 0, 1.3))
    # Drawn lips may be a stroke on nearly white skin; a face of many hues has a red mouth all the same.
    least = MANY_HUES_FLESH * float(smoothstep(*MANY_HUES, np.float64(style.hues)))
    red = float(np.clip(np.ptp(lips) / max(lips.max(), 1e-3) / RED_LIPS, 0, 1))
    flesh, like_its_lips = max(saturation, least, red), red / max(least, red, 1e-3)
    tint = (skin / max(of_skin, 1e-3)) / (LIGHT_SKIN / float(LIGHT_SKIN @ LUMA))
    tint = np.clip(tint, 0.6, 1.6) ** 0.6
    lip_hue = lips / max(float(lips @ LUMA), 1e-3)

    def fit(name: str, colour: np.ndarray, like_lips: float, saturation: float) -> np.ndarray:
        if name in DRAWN:
            colour = colour + style.drawn * (np.array(DRAWN[name]) - colour)
        grey = float(colour @ LUMA)
        lit = grey * (teeth_light if name == "teeth" else light)
        own = np.clip(lit * (colour / grey * tint) ** min(saturation, 1.15), 0, 1)
        own = own + like_lips * like_its_lips * (np.clip(lip_hue * grey * light, 0, 1) - own)
        return own + style.stone * (STONE[name] * skin - own)

    teeth = fit("teeth", TEETH, 0, saturation)
    if skin[0] > skin[1]:
        # Yellow light makes teeth cream, neither green nor as yellow as skin, and pale skin in it no whiter than eyes.
        # Shaded eyes, and lenses before them, may be yellower than skin, but nothing white is.
        whites = max(blue_of_whites(eyes), min(skin[2] / skin[1], 1.0))
        bluest = float(np.dot(BLUEST, (skin[2] / skin[1], whites, 1)))
        blue = np.clip(teeth[2] / teeth[1], np.clip(whites, YELLOW_LIGHT, YELLOWEST), max(bluest, YELLOW_LIGHT))
        hue = np.array([max(teeth[0] / teeth[1], 1 + REDDER * (1 - blue)), 1, blue])
        teeth = hue * (float(teeth @ LUMA) / float(hue @ LUMA))
    return Palette(
        teeth,
        fit("tongue", TONGUE, 0.5, flesh),
        fit("gum", GUM, 0.5, flesh),
        fit("cavity", CAVITY, 0.25, flesh),
    )


class MouthInterior:
    """Textures in the mouth's own frame: upper teeth fixed to the skull, lower teeth to the jaw, and a tongue.

    They are as sharp and as grainy as the picture. Where the picture shows teeth, those continue in their own colour.
    """

    def __init__(
        self,
        picture: np.ndarray,
        mesh: PortraitMesh,
        mouth: Aperture,
        style: PictureStyle,
        rest: tuple[float, float],
        kept: float,
        device: torch.device,
    ) -> None:
        """`rest`: heights of both lips' edges in the middle, without a shadow between them; teeth are placed by them.

        `kept` in 0..1: how much of the portrait's own open mouth stays.
        """
        self.cm = mesh.pixels_per_cm
        self.mouth = mouth
        self.detail = 1 - 0.8 * style.drawn
        self.blur = style.more_blur / self.cm
        palette = palette_of(picture, mesh, style)
        black = (1 - style.drawn) * style.black
        self.black = torch.tensor(black, dtype=torch.float32, device=device)[None, :, None, None]
        self.half_width, self.half_height = 1.5 * mouth.half, 2.2 * self.cm
        columns = int(np.clip(3.0 * mouth.half * 1.5, 48, 640))
        rows = int(np.clip(columns * self.half_height / self.half_width, 32, 640))
        along, across = np.meshgrid(
            np.linspace(-self.half_width, self.half_width, columns),
            np.linspace(-self.half_height, self.half_height, rows),
        )
        arc, turn = self._arch(mesh, along[0])
        # A smile draws the lower lip down from its teeth, and its curve follows their row.
        baring = float(smoothstep(*BARING, np.float64(mesh.mouth.lip_gap)))
        bare, follow = 0.28 * baring, 0.8 * baring
        # Lips that hardly part hide their upper teeth like shut ones; the lower teeth go with their lip.
        upper_rest, lower_rest = rest
        upper_rest += (1 - baring) * (1 - kept) * (lower_rest - upper_rest) / 2
        bend = np.interp(along[0], mouth.table_along, mouth.lower - mouth.middle_gap()[1]) * follow
        row = (lower_rest + bend) / self.cm - bare
        edge = np.full(columns, upper_rest / self.cm + UPPER_SHOW)
        # A face that is lit from one side is so within its mouth, too.
        rise = (1 - style.drawn) * side_light(picture, mouth)
        side = np.exp(rise * np.clip(along[0] / mouth.half, -1, 1))[:, None]
        teeth = palette.teeth * np.minimum(side, TEETH_BETWEEN[1] / float(palette.teeth @ LUMA))
        if not mesh.mouth.closed:
            own, bright = _own_teeth(picture, mouth, along[0], plain_brightness(picture, mesh.points))
            bright = bright * kept
            teeth = teeth + bright[:, None] * (own - teeth)
            # Teeth that reach down to the lower lip end a little behind it; others end within the picture.
            behind = np.interp(along[0], mouth.table_along, mouth.lower) / self.cm + 0.10
            ends = bright * np.maximum(edge, behind) + (1 - bright) * np.minimum(edge, behind - 0.3)
            edge = edge + kept * (ends - edge)
        self.lit = TEETH_LIT * kept
        # Teeth that end higher come down to a lower lip that is under them, or it would be dark there.
        middle, low = edge[columns // 2], TUCK_DOWN * (lower_rest - upper_rest) / self.cm + TUCK_GAP
        self.meets = kept * max(upper_rest / self.cm + low - middle, 0.0) * self.cm
        from scipy.ndimage import gaussian_filter

        texels = columns / (2 * self.half_width)
        layers = [
            self._upper_teeth(across / self.cm, arc, turn, edge, teeth, palette.gum * side),
            self._lower_teeth(across / self.cm, arc, turn, row + 0.02, teeth),
            self._tongue(across / self.cm, arc, row - 0.40, palette.tongue * side),
        ]
        blurred = gaussian_filter(np.stack(layers), (0, *2 * [texels * np.sqrt(max(style.blur**2 - 0.25, 0))], 0))
        blurred[..., :3] += _tiled(style.grain, texels, rows, columns)[..., None]
        self.layers = torch.from_numpy(blurred.astype(np.float32)).permute(0, 3, 1, 2).to(device)
        flesh = palette.tongue / palette.tongue.mean()
        self.warmth = torch.tensor(2 - np.clip(flesh, 0.6, 1.4), dtype=torch.float32, device=device)
        self.cavity = torch.tensor(np.hypot(black, palette.cavity), dtype=torch.float32, device=device)

    def paint(
        self, along: torch.Tensor, across: torch.Tensor, jaw: torch.Tensor, lips: torch.Tensor, light: torch.Tensor
    ) -> torch.Tensor:
        """Colours (B, 3, h, w) at local positions (B, h, w) in a `light` (B, h, w).

        `jaw` (B, 2) is how far the lower teeth moved, along and across; `lips` (B, 3) as in `PoseAndShape`.
        """
        shift, hidden = jaw[:, :, None, None], PUCKER_HIDES * self.cm * lips[:, 0, None, None]
        above = hidden - self.meets * lips[:, 1, None, None]
        upper = self._sample(0, along, across + above)
        lower = self._sample(1, along - shift[:, 0], across - shift[:, 1] - hidden)
        # The tongue lies lower than its teeth; raised, it comes up behind the upper ones.
        raised = lips[:, 2, None, None]
        drop = TONGUE_FOLLOWS * shift[:, 1]
        tongue = self._sample(2, along - shift[:, 0], across - drop + raised * (0.8 * drop + 0.25 * self.cm))
        colour = self.cavity[None, :, None, None]
        for layer in (tongue, lower):
            colour = torch.lerp(colour, layer[:, :3], layer[:, 3:])
        # The upper teeth stand in front of the rest and throw a shadow on it.
        shadow = SHADOW * self._sample(0, along, across + above - SHADOW_DEPTH * self.cm)[:, 3:]
        colour = torch.lerp(colour, self.black, shadow)
        colour = torch.lerp(colour, upper[:, :3], upper[:, 3:])
        return self.shaded(colour, light).clamp(0, 1)

    def light(
        self,
        below_upper: torch.Tensor,
        above_lower: torch.Tensor,
        gap: torch.Tensor,
        inward: torch.Tensor,
        lips: torch.Tensor,
    ) -> torch.Tensor:
        """Light (B, h, w) in 0..1 that lips let in; what takes some away adds up.

        Distances (B, h, w) in pixels from the upper and the lower lip's edge, between them, and from the nearer corner.
        `lips` (B, 3): what puckers lets in less; teeth on a lower lip stand in front.
        """
        dark = self._shade(0.26, 0.40, -0.05, below_upper) + self._shade(0.18, 0.35, -0.05, above_lower)
        dark = (dark + self._shade(0.22, 0.45, 0.05, gap)) * (1 - self.lit * lips[:, 1, None, None])
        dark = dark + self._shade(0.30, 0.6, 0.0, inward)
        return (1 - dark - 0.2 * lips[:, 0, None, None]).clamp(min=0.2)

    def _shade(self, dark: float, far: float, near: float, distance: torch.Tensor) -> torch.Tensor:
        """Light (B, h, w) that is lost between `near` and `far` cm, as wide and as faint as the picture is blurred."""
        width = math.hypot(far - near, 2 * self.blur)
        middle = (near + far) / 2
        return dark * (far - near) / width * smoothstep(middle + width / 2, middle - width / 2, distance / self.cm)

    def shaded(self, colour: torch.Tensor, light: torch.Tensor) -> torch.Tensor:
        """Colours (B, 3 or 4, h, w), premultiplied, in a light (B, h, w): the least is the picture's black."""
        alpha = colour[:, 3:]
        black = self.black * alpha if alpha.shape[1] else self.black
        return torch.cat([torch.lerp(black.expand_as(colour[:, :3]), colour[:, :3], self.tinted(light)), alpha], dim=1)

    def tinted(self, light: torch.Tensor) -> torch.Tensor:
        """Light (B, 3, h, w): what reaches the inside of a mouth has been coloured by its walls."""
        return light[:, None] ** self.warmth[None, :, None, None]

    def _sample(self, layer: int, along: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
        where = torch.stack([along / self.half_width, across / self.half_height], dim=-1)
        texture = self.layers[layer : layer + 1].expand(len(along), -1, -1, -1)
        return F.grid_sample(texture, where, mode="bilinear", padding_mode="border", align_corners=True)

    def _arch(self, mesh: PortraitMesh, along: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Arc length in cm from the midline, and the arch's angle, for each column; the far side is foreshortened."""
        front = (mesh.vertices[INNER_UPPER_LIP] + mesh.vertices[INNER_LOWER_LIP]) / 2 - [0, 0, 0.7]
        angles = np.radians(np.linspace(-85, 85, 171))
        arch = front + ARCH_RADIUS * np.stack([np.sin(angles), 0 * angles, 0.9 * (np.cos(angles) - 1)], axis=-1)
        arch_x = self.mouth.local(mesh.project(arch))[:, 0]
        # On a turned head the far end of the row hides behind its own curve: follow it only while it moves outwards,
        # then let it run on to the mouth's corner.
        middle, slow = len(arch_x) // 2, 0.25 * self.cm * ARCH_RADIUS * np.radians(1)
        last = middle + int(np.argmax(np.append(np.diff(arch_x[middle:]) < slow, True)))
        first = middle - int(np.argmax(np.append(np.diff(arch_x[middle::-1]) > -slow, True)))
        visible, turned = arch_x[first : last + 1], angles[first : last + 1]
        beyond = np.clip(along - visible[-1], 0, None) + np.clip(along - visible[0], None, 0)
        angle = np.interp(along, visible, turned) + 2.5 * beyond / (self.cm * ARCH_RADIUS)
        return angle * ARCH_RADIUS, np.clip(angle, -np.pi / 2, np.pi / 2)

    def _upper_teeth(
        self,
        height: np.ndarray,
        arc: np.ndarray,
        turn: np.ndarray,
        edge: np.ndarray,
        teeth: np.ndarray,
        gum: np.ndarray,
    ) -> np.ndarray:
        place, number, gap = _tooth_of(arc, TOOTH_WIDTHS)
        lift = UPPER_LIFT[number] + 0.10 * (arc / 2.2) ** 2
        line = edge - lift - 0.06 * np.abs(place) ** 3 - 0.03 * np.abs(place) ** 12
        above = line[None] - height
        soft = max(0.05, 0.8 / self.cm)
        alpha = smoothstep(-soft / 2, soft / 2, above)
        colour = teeth * self._enamel(above, place, number, gap, turn, soft)[..., None]
        gum_line = above - (0.95 - 0.06 * number[None]) * (1 - 0.12 * np.abs(place[None]) ** 2)
        bare = smoothstep(-0.04, 0.04, gum_line)[..., None]
        colour = colour * (1 - bare) + gum * _arch_light(turn)[None, :, None] * bare
        return np.concatenate([colour, (alpha * self._row_end(arc)[None])[..., None]], axis=-1)

    def _lower_teeth(
        self, height: np.ndarray, arc: np.ndarray, turn: np.ndarray, edge: np.ndarray, teeth: np.ndarray
    ) -> np.ndarray:
        place, number, gap = _tooth_of(arc, LOWER_TOOTH_WIDTHS)
        line = edge + 0.01 * number + 0.10 * (arc / 2.2) ** 2 + 0.04 * np.abs(place) ** 4
        below = height - line[None]
        soft = max(0.06, 0.9 / self.cm)
        alpha = smoothstep(-soft / 2, soft / 2, below) * self._row_end(1.15 * arc)[None]
        # Lower teeth stand behind the upper ones and deeper in the lips' shadow.
        colour = teeth * 0.86 * self._enamel(below, place, number, gap, turn, soft)[..., None]
        return np.concatenate([colour, alpha[..., None]], axis=-1)

    def _row_end(self, arc: np.ndarray) -> np.ndarray:
        return smoothstep(3.6, 2.6, np.abs(arc))

    def _enamel(
        self, inward: np.ndarray, place: np.ndarray, number: np.ndarray, gap: np.ndarray, turn: np.ndarray, soft: float
    ) -> np.ndarray:
        """Brightness: rounded teeth, a thin shade between them, darker at the back and at the biting edge."""
        rounded = 0.09 * np.abs(place) ** 2.5 + 0.02 * (number % 2)
        between = min(0.22, 0.010 / soft) * np.exp(-((gap / max(0.04, 0.6 * soft)) ** 2))
        edge = 0.12 * np.exp(-((inward / 0.08) ** 2)) - 0.03 * np.exp(-(((inward - 0.35) / 0.2) ** 2))
        return _arch_light(turn)[None] - self.detail * (rounded + between + edge)

    def _tongue(self, height: np.ndarray, arc: np.ndarray, top: np.ndarray, colour: np.ndarray) -> np.ndarray:
        crown = top + 0.45 * (np.abs(arc) / 2.0) ** 2.5
        inside = height - crown[None]
        alpha = smoothstep(-0.15, 0.3, inside)
        groove = 0.10 * np.exp(-((arc / 0.12) ** 2)) * self.detail
        # Its back lies in the dark, its front catches the light.
        sides = 0.7 * (1 - _arch_light(arc / ARCH_RADIUS))
        light = 0.62 + 0.43 * smoothstep(-0.1, 0.8, inside) - (groove + sides)[None]
        return np.concatenate([colour * light[..., None], alpha[..., None]], axis=-1)


def _own_teeth(picture: np.ndarray, mouth: Aperture, along: np.ndarray, plain: float) -> tuple[np.ndarray, np.ndarray]:
    """Colours (C, 3) of an open mouth's own teeth at `along` (C,), and how surely (C,) teeth reach its lower lip there.

    `plain` is the `plain_brightness`.
    """
    from scipy.ndimage import gaussian_filter1d

    upper, lower = mouth.edges_at(along)
    shares = np.linspace(0.35, 0.85, 9)
    across = upper[:, None] + (lower - upper)[:, None] * shares
    colours = colours_at(picture, mouth.places(along[:, None], across))
    light = colours @ LUMA
    bright = smoothstep(0.55, 0.75, light[:, 5:].mean(axis=1) / max(plain, 1e-3))
    # Where lips all but touch, nothing is visible between them: there the row goes on as it is beside.
    visible = smoothstep(0.04, 0.12, (lower - upper) / mouth.half)
    bright = bright * visible
    # Columns without teeth take the colour of those nearest to them.
    width = 0.12 * mouth.half / (along[1] - along[0])
    weight = bright + 1e-3 * (np.abs(along) < 0.8 * mouth.half)
    brightest = np.take_along_axis(colours, light.argsort(axis=1)[:, 5, None, None], axis=1)[:, 0]
    total = gaussian_filter1d(weight, width, mode="nearest") + 1e-9
    own = gaussian_filter1d(brightest * weight[:, None], width, axis=0, mode="nearest") / total[:, None]
    reach = ROW_REACH * mouth.half / (along[1] - along[0])
    row = gaussian_filter1d(bright, reach, mode="nearest", truncate=6.0)
    row = row / (gaussian_filter1d(visible, reach, mode="nearest", truncate=6.0) + 1e-6)
    return own, smoothstep(*ROW_FROM, row)


def _tiled(grain: np.ndarray, texels: float, rows: int, columns: int) -> np.ndarray:
    """Grain of the picture's pixels as a texture (rows, columns), `texels` to a pixel, continued by mirror images."""
    from scipy.ndimage import map_coordinates

    y, x = np.meshgrid(np.arange(rows) / texels, np.arange(columns) / texels, indexing="ij")
    return map_coordinates(grain, [y, x], order=1, mode="mirror")


def _tooth_of(arc: np.ndarray, widths: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Place in -1..1 across its tooth, number of the tooth from the middle, distance in cm to the next gap."""
    borders = np.concatenate([[0.0], np.cumsum(widths)])
    distance = np.minimum(np.abs(arc), borders[-1] - 1e-6)
    number = np.searchsorted(borders, distance, side="right") - 1
    width = np.array(widths)[number]
    place = (distance - borders[number]) / width * 2 - 1
    return place, number, (1 - np.abs(place)) * width / 2


def _arch_light(turn: np.ndarray) -> np.ndarray:
    return 0.35 + 0.65 * np.cos(np.clip(np.abs(turn) * 1.15, 0, np.pi / 2))
