"""Inside of an opening mouth: teeth, tongue and a dark cavity, painted once in the portrait's own light and style.

Numbers that name no source were chosen by eye on portraits; the trials are not recorded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ....models.curves import smoothstep
from ....models.face.face_mesh import LEFT_EYE, RIGHT_EYE
from .face_opening import Aperture
from .portrait_mesh import PortraitMesh

TOOTH_WIDTHS = (0.86, 0.68, 0.78, 0.70, 0.68, 0.95)
"""Upper teeth from the middle outwards along the arch, cm (Wheeler's Dental Anatomy, rounded)."""
LOWER_TOOTH_WIDTHS = (0.53, 0.58, 0.69, 0.70, 0.70, 1.0)
UPPER_LIFT = np.array([0.0, 0.05, 0.01, 0.06, 0.09, 0.11])
"""How much higher than the middle incisors the other upper teeth end, cm."""
ARCH_RADIUS = 2.6
"""Radius of the front of the dental arch, cm."""
SKIN, TEETH, TONGUE, GUM, CAVITY = (
    np.array(c)
    for c in ((0.80, 0.62, 0.54), (0.84, 0.79, 0.71), (0.60, 0.31, 0.30), (0.66, 0.38, 0.37), (0.22, 0.07, 0.06))
)
"""sRGB colours of a light-skinned mouth in plain daylight, to be adapted to the portrait's brightness and tint."""
LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Palette:
    """sRGB colours (3,) for this portrait."""

    teeth: np.ndarray
    tongue: np.ndarray
    gum: np.ndarray
    cavity: np.ndarray


def palette_of(picture: np.ndarray, mesh: PortraitMesh) -> Palette:
    """Colours from the skin, lips and eyes of a picture (H, W, 3) in 0..1."""
    points = mesh.points
    skin = _median_colour(picture, points[[205, 425, 50, 280, 187, 411, 199, 200, 18]])
    lips = _median_colour(picture, points[[0, 17, 37, 267, 84, 314, 16, 85, 315, 11]])
    eyes = np.concatenate([_inside(picture, points[list(ring)]) for ring in (RIGHT_EYE, LEFT_EYE)])
    white = np.percentile(eyes @ LUMA, 85) if len(eyes) else float(skin @ LUMA)
    skin_light = float(skin @ LUMA)
    light = 0.5 * skin_light / float(SKIN @ LUMA) + 0.5 * float(white) / 0.72
    light = float(np.clip(light, 0.25, 1.12))
    saturation = float(np.clip(np.ptp(skin) / max(skin.max(), 1e-3) / (np.ptp(SKIN) / SKIN.max()), 0, 1.3))
    tint = (skin / max(skin_light, 1e-3)) / (SKIN / float(SKIN @ LUMA))
    tint = np.clip(tint, 0.6, 1.6) ** 0.6

    def fit(colour: np.ndarray, brightness: float) -> np.ndarray:
        grey = float(colour @ LUMA)
        return np.clip(grey * brightness * (colour / grey * tint) ** min(saturation, 1.15), 0, 1)

    lip_hue = lips / max(float(lips @ LUMA), 1e-3)
    tongue = 0.5 * fit(TONGUE, light) + 0.5 * np.clip(lip_hue * float(TONGUE @ LUMA) * light, 0, 1)
    gum = 0.5 * fit(GUM, light) + 0.5 * np.clip(lip_hue * float(GUM @ LUMA) * light, 0, 1)
    cavity = 0.75 * fit(CAVITY, light) + 0.25 * np.clip(lip_hue * float(CAVITY @ LUMA) * light, 0, 1)
    return Palette(fit(TEETH, light), tongue, gum, cavity)


class MouthInterior:
    """Textures in the mouth's own frame: upper teeth fixed to the skull, lower teeth to the jaw.

    The tongue follows 85 % of the jaw's drop.
    """

    def __init__(self, picture: np.ndarray, mesh: PortraitMesh, mouth: Aperture, device: torch.device) -> None:
        self.cm = mesh.pixels_per_cm
        self.mouth = mouth
        palette = palette_of(picture, mesh)
        self.half_width, self.half_height = 1.5 * mouth.half, 2.2 * self.cm
        columns = int(np.clip(3.0 * mouth.half * 1.5, 48, 640))
        rows = int(np.clip(columns * self.half_height / self.half_width, 32, 640))
        along, across = np.meshgrid(
            np.linspace(-self.half_width, self.half_width, columns),
            np.linspace(-self.half_height, self.half_height, rows),
        )
        centre = len(mouth.upper) // 2
        upper_rest, lower_rest = float(mouth.upper[centre]), float(mouth.lower[centre])
        arc, turn = self._arch(mesh, along[0])
        # A smile draws the lower lip down from its teeth, and its curve follows their row.
        bare, follow = (0.0, 0.0) if mesh.mouth_closed else (0.28, 0.8)
        bend = np.interp(along[0], mouth.table_along, mouth.lower - lower_rest) * follow
        row = (lower_rest + bend) / self.cm - bare
        layers = [
            self._upper_teeth(across / self.cm, arc, turn, upper_rest / self.cm + 0.22, palette),
            self._lower_teeth(across / self.cm, arc, turn, row + 0.02, palette),
            self._tongue(across / self.cm, arc, row - 0.40, palette),
        ]
        self.layers = torch.from_numpy(np.stack(layers).astype(np.float32)).permute(0, 3, 1, 2).to(device)
        flesh = palette.tongue / palette.tongue.mean()
        self.warmth = torch.tensor(2 - np.clip(flesh, 0.6, 1.4), dtype=torch.float32, device=device)
        self.cavity = torch.tensor(palette.cavity, dtype=torch.float32, device=device)

    def paint(
        self,
        along: torch.Tensor,
        across: torch.Tensor,
        jaw: torch.Tensor,
        below_upper: torch.Tensor,
        above_lower: torch.Tensor,
    ) -> torch.Tensor:
        """Colours (B, 3, h, w) at local positions (B, h, w).

        `jaw` (B, 2) is how far the lower teeth moved, along and across. `below_upper` and `above_lower` (B, h, w) are
        distances in pixels from the lips' edges, for their shadow.
        """
        gap = (below_upper + above_lower) / self.cm
        upper = self._sample(0, along, across)
        shift = jaw[:, :, None, None]
        lower = self._sample(1, along - shift[:, 0], across - shift[:, 1])
        tongue = self._sample(2, along - shift[:, 0], across - 0.85 * shift[:, 1])
        # Light falls in from the front and below, so the floor of the mouth is brighter than its back.
        floor = smoothstep(1.2, 0.0, above_lower / self.cm)
        colour = self.cavity[None, :, None, None] * (0.6 + 0.9 * floor[:, None])
        for layer in (tongue, lower, upper):
            colour = torch.lerp(colour, layer[:, :3], layer[:, 3:])
        return colour * self.tinted(self.shade(below_upper, above_lower, gap))

    def shade(self, below_upper: torch.Tensor, above_lower: torch.Tensor, gap: torch.Tensor) -> torch.Tensor:
        """Light (B, h, w) in 0..1 that lips let in: dark in slits, under the upper lip and behind the lower one."""
        roof = 0.7 + 0.3 * smoothstep(-0.05, 0.40, below_upper / self.cm)
        floor = 0.2 + 0.8 * smoothstep(-0.05, 0.40, above_lower / self.cm)
        narrow = 0.15 + 0.85 * smoothstep(0.1, 0.45, gap)
        return roof * floor * narrow

    def tinted(self, shade: torch.Tensor) -> torch.Tensor:
        """Light (B, 3, h, w): what reaches the inside of a mouth has been coloured by its walls."""
        return shade[:, None] ** self.warmth[None, :, None, None]

    def _sample(self, layer: int, along: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
        where = torch.stack([along / self.half_width, across / self.half_height], dim=-1)
        texture = self.layers[layer : layer + 1].expand(len(along), -1, -1, -1)
        return F.grid_sample(texture, where, mode="bilinear", padding_mode="border", align_corners=True)

    def _arch(self, mesh: PortraitMesh, along: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Arc length in cm from the midline, and the arch's angle, for each column; the far side is foreshortened."""
        front = (mesh.vertices[13] + mesh.vertices[14]) / 2 - [0, 0, 0.7]
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
        self, height: np.ndarray, arc: np.ndarray, turn: np.ndarray, edge: float, palette: Palette
    ) -> np.ndarray:
        place, number, gap = _tooth_of(arc, TOOTH_WIDTHS)
        lift = UPPER_LIFT[number] + 0.10 * (arc / 2.2) ** 2
        line = edge - lift - 0.06 * np.abs(place) ** 3 - 0.03 * np.abs(place) ** 12
        above = line[None] - height
        soft = max(0.05, 0.8 / self.cm)
        alpha = smoothstep(-soft / 2, soft / 2, above)
        colour = palette.teeth * self._enamel(above, place, number, gap, turn, soft)[..., None]
        gum_line = above - (0.95 - 0.06 * number[None]) * (1 - 0.12 * np.abs(place[None]) ** 2)
        gum = smoothstep(-0.04, 0.04, gum_line)[..., None]
        colour = colour * (1 - gum) + palette.gum * _arch_light(turn)[None, :, None] * gum
        return np.concatenate([colour, (alpha * self._row_end(arc)[None])[..., None]], axis=-1)

    def _lower_teeth(
        self, height: np.ndarray, arc: np.ndarray, turn: np.ndarray, edge: np.ndarray, palette: Palette
    ) -> np.ndarray:
        place, number, gap = _tooth_of(arc, LOWER_TOOTH_WIDTHS)
        line = edge + 0.01 * number + 0.10 * (arc / 2.2) ** 2 + 0.04 * np.abs(place) ** 4
        below = height - line[None]
        soft = max(0.06, 0.9 / self.cm)
        alpha = smoothstep(-soft / 2, soft / 2, below) * self._row_end(1.15 * arc)[None]
        # Lower teeth stand behind the upper ones and deeper in the lips' shadow.
        colour = palette.teeth * 0.78 * self._enamel(below, place, number, gap, turn, soft)[..., None]
        return np.concatenate([colour, alpha[..., None]], axis=-1)

    def _row_end(self, arc: np.ndarray) -> np.ndarray:
        return smoothstep(3.6, 2.6, np.abs(arc))

    @staticmethod
    def _enamel(
        inward: np.ndarray, place: np.ndarray, number: np.ndarray, gap: np.ndarray, turn: np.ndarray, soft: float
    ) -> np.ndarray:
        """Brightness: rounded teeth, a thin shade between them, darker at the back and at the biting edge."""
        round_light = 1 - 0.09 * np.abs(place) ** 2.5 - 0.02 * (number % 2)
        between = 1 - min(0.22, 0.010 / soft) * np.exp(-((gap / max(0.04, 0.6 * soft)) ** 2))
        edge = 1 - 0.12 * np.exp(-((inward / 0.08) ** 2)) + 0.03 * np.exp(-(((inward - 0.35) / 0.2) ** 2))
        return (round_light * between * _arch_light(turn))[None] * edge

    def _tongue(self, height: np.ndarray, arc: np.ndarray, top: np.ndarray, palette: Palette) -> np.ndarray:
        crown = top + 0.45 * (np.abs(arc) / 2.0) ** 2.5
        inside = height - crown[None]
        alpha = smoothstep(-0.15, 0.35, inside)
        groove = 1 - 0.12 * np.exp(-((arc / 0.12) ** 2))
        light = (0.6 + 0.4 * smoothstep(0, 0.8, inside)) * groove[None]
        colour = palette.tongue * (light * _arch_light(arc / ARCH_RADIUS)[None])[..., None]
        return np.concatenate([colour, alpha[..., None]], axis=-1)


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


def _median_colour(picture: np.ndarray, points: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    x = np.clip(points[:, 0].astype(int), 0, width - 1)
    y = np.clip(points[:, 1].astype(int), 0, height - 1)
    return np.median(picture[y, x], axis=0).astype(np.float64)


def _inside(picture: np.ndarray, ring: np.ndarray) -> np.ndarray:
    """Colours (N, 3) of the pixels inside a convex-ish ring (R, 2)."""
    height, width = picture.shape[:2]
    low = np.clip(np.floor(ring.min(axis=0)).astype(int), 0, [width - 1, height - 1])
    high = np.clip(np.ceil(ring.max(axis=0)).astype(int), 1, [width, height])
    x, y = np.meshgrid(np.arange(low[0], high[0]) + 0.5, np.arange(low[1], high[1]) + 0.5)
    crossings = np.zeros(x.shape, dtype=int)
    for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        if y0 != y1:
            crossings += ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return picture[low[1] : high[1], low[0] : high[0]][crossings % 2 == 1].astype(np.float64)
