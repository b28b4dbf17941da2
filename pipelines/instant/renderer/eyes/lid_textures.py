"""What lids are drawn of: the skin above an eye, the fold in it, and the lashes.

Numbers that name no source were chosen by eye on portraits; the trials are not recorded.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from .....models.curves import smoothstep
from ....image.luma import LUMA
from ....progress import check_interrupted
from ..face_opening import SPAN, Aperture
from ..warp import Layer

WING = 0.9
"""How much higher that strip is at the outer corner."""
LEAST_STRAND = 0.03
"""Least factor of a lash on the skin's colour that is told from black."""
SOFT_FOLD = 0.12
"""Eye half widths over which the fold of a shut eye is softened."""
STRUCTURE = 1.0
"""Height in eye half widths up to which dark lines on the lid are folds or lashes, and no skin."""
GRAIN = 1.5
"""Most grain of a lid's skin over its median."""
DARKEST_LID = 0.75
"""Least brightness of a lid's skin over its median: darker parts are hair of the brow."""
LIT_LID, LIT_SHARE = 0.85, 0.75
"""Light of a shut lid's edge beside the skin below the eye, and the share by which darker skin comes near it."""
EVEN_HUE = 0.8
"""Part of a shut lid's own hue, with its whites and highlights, that gives way to the usual one of its brightness."""
TINTS = 0.6, 1.6
"""Least and largest exponent of a shade's brightness in one colour."""


class LidTextures:
    """The skin above an eye (R, C, 3) without lashes and fold, and these two as factors of its colour.

    Their product is the picture. All are in the frame of the eye, `TEXELS` to a pixel.
    """

    TEXELS = 2

    def __init__(self, portrait: Layer, eye: Aperture, room: np.ndarray, lashes: float) -> None:
        """`room` (ENTRIES,) is how far above the edge the skin is free, `lashes` the height of lashes, in pixels."""
        from scipy.ndimage import gaussian_filter

        low = float((eye.upper - room).min()) - 1
        high = float(eye.lower.max()) + lashes
        self.start, self.size = (-SPAN * eye.half, low), (2 * SPAN * eye.half, high - low)
        columns, rows = (max(8, round(self.TEXELS * side)) for side in self.size)
        along = self.start[0] + (np.arange(columns) + 0.5) / columns * self.size[0]
        across = (self.start[1] + (np.arange(rows) + 0.5) / rows * self.size[1])[:, None]
        places = eye.places(along, across)
        colours = portrait.colours_at(places).astype(np.float64)
        edge, free = (np.interp(along, eye.table_along, curve) for curve in (eye.upper, room))
        above = edge - across
        texel = self.size[0] / columns
        below = _skin_below(portrait, eye)
        skin = _plain_skin(colours, (above > 0) & (above < free), eye.half / texel, below)
        structure = colours / skin
        # At the outer corner, where the frame of the eye begins, lashes are longest.
        height = np.minimum(lashes * (1 + WING * smoothstep(-0.3, -0.9, along / eye.half)), free / 1.15)
        strand = smoothstep(1.15 * height, 0.75 * height, above) * (above > 0)
        # Lashes are dark: what is brighter in the strip is the eye's white, which lids that shut leave behind.
        strands = 1 + (structure.clip(max=1) - 1) * strand[..., None]
        # Black lashes have no hue that could be divided by theirs.
        folds = np.maximum(structure, LEAST_STRAND) / np.maximum(strands, LEAST_STRAND)
        folds = np.where((above > 0)[..., None], folds, 1)
        # The skin of a shut lid is stretched: no line in it is sharp.
        soft = gaussian_filter(np.log(folds.clip(LEAST_STRAND, 2).mean(axis=-1)), SOFT_FOLD * eye.half / texel)
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
    return np.quantile(portrait.colours_at(places).reshape(-1, 3).astype(np.float64), 0.75, axis=0)


def _tint_of_shade(dark: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Exponents (3,) of a shade's brightness as each colour has it, from skin (3,) in the dark and in the light."""
    depth = np.log(max(float(light @ LUMA), 0.02) / max(float(dark @ LUMA), 0.02))
    own = np.log(light.clip(min=0.02) / dark.clip(min=0.02)) / max(depth, 0.05)
    # Skin that is nearly as light tells little.
    return 1 + smoothstep(0.05, 0.25, depth) * (own.clip(*TINTS) - 1)


def _plain_skin(colours: np.ndarray, lid: np.ndarray, half: float, below: np.ndarray) -> np.ndarray:
    """The skin (h, w, 3) of a lid in `colours` (h, w, 3) without dark lines, continued around `lid` (h, w).

    `half` is half the eye's width in texels. Fine grain stays. `below` (3,) is the skin below the eye, which a lid
    that does not show has.
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
        return np.maximum(below * np.ones_like(calm), 0.02)
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
