"""Spectacles: finds where the upper rim of their frame lies over an eye, so that no moving lid distorts it.

A bar across the nose may be their bridge; it is a frown where no rims go with it.

Numbers that name no source were chosen by eye on portraits; the trials are not recorded.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .....models.face.face_mesh import CHEEKS, INNER_EYE_CORNERS
from ..face_opening import Aperture
from ..warp import Layer

BRIDGE_COLUMNS, BRIDGE_ROWS = (-0.22, 0.22, 23), (-0.75, 0.5, 125)
"""Where the bridge is looked for: first, last and count, in distances of the inner eye corners, from the middle between
them along their line, and down from it."""
HIGHEST_BRIDGE = -0.36
"""The highest row in which it may lie. Of what was tried, brows that meet and the brims of hats lie at -0.43 and above,
and nine spectacles have a bridge below."""
BRIDGE_BLUR = 1.5
"""Columns of that grid over which skin is evened out."""
BRIDGE_SHARE = 0.15
"""Part of the columns that may lack the bridge, behind a reflection."""
LEAST_BRIDGE = 0.102
"""Contrast to the skin from which on there is a bridge. Tried on portraits at 512 and 1024 pixels: up to 0.098 without
spectacles, from 0.106 with them."""
FRAME_SHARE, LEAST_FRAME, MOST_FRAME = 0.3, 0.05, 0.15
"""A pixel belongs to the frame from this part of the bridge's contrast on, within these limits (of white)."""
THICKEST = 0.5
"""Eye half widths over which a frame is thinner, and a lens is not."""
ROWS, REACH = 40, 1.15
"""Rows and columns in an eye half width in which the rim is looked for, and eye half widths to both sides."""
RIM_SHARE = 0.8
"""Part of the columns in which a rim is to be seen, at least."""
UNEVEN = 0.25
"""How far skin may differ from what is usual above an eye, over its brightness."""
LOWER_RIM = 0.7, 1.9
"""Eye half widths below the lower lid between which the lower rim of spectacles is looked for. Of 15 portraits with
spectacles and 13 with painted or wrinkled frowns it is found on ten and, in a helmet's mask, on one."""
IN_BROW = 0.1
"""Eye half widths below the brow within which what is taken for a rim may be the brow: another is looked for below."""
STANDS_OFF = 0.25
"""Eye half widths between the lid and what is a rim, and no lashes or brow that hangs over the eye: three of the five
that have no lower rim in sight have more on both eyes, and none of the 13."""
BESIDE = 0.25
"""Eye half widths to both sides of an obstacle in which nothing above it is free: a rim may go on among the lashes."""
EDGE = 0.1
"""Eye half widths of a frame's soft edge and its shadow."""
OPAQUE = 0.35
"""Brightness of the skin behind a lens as a part of the cheek's, below which lids are treated as invisible."""


def bridge_contrast(portrait: Layer, points: np.ndarray) -> float:
    """How much lighter (below 0: darker) than the skin a bar across the nose is, over the skin's brightness.

    `points` (P, 2) are the face's landmarks.
    """
    from scipy.ndimage import gaussian_filter1d, maximum_filter1d, median_filter

    right, left = points[list(INNER_EYE_CORNERS)]
    axis = left - right
    down = np.array([-axis[1], axis[0]])
    along, across = np.linspace(*BRIDGE_COLUMNS), np.linspace(*BRIDGE_ROWS)
    seen = portrait.colours_at((right + left) / 2 + along[:, None] * axis + across[:, None, None] * down)
    # Freckles and pores of a sharp picture are shorter than a bar.
    seen = gaussian_filter1d(seen, BRIDGE_BLUR, axis=1, mode="nearest")
    differs = seen - median_filter(seen, size=(45, 1, 1), mode="nearest")
    # A bar that is a little oblique is one, too.
    low_enough = across[:-5] >= HIGHEST_BRIDGE
    bars = (maximum_filter1d(sign * differs, 7, axis=0)[:-5][low_enough] for sign in (-1, 1))
    darker, lighter = (float(np.percentile(bar, 100 * BRIDGE_SHARE, axis=1).max()) for bar in bars)
    return max(lighter, -darker, key=abs) / max(float(np.median(seen)), 0.08)


class Surroundings:
    """What lies around one eye of a face with a bar across its nose, which may be spectacles or a frown.

    Heights are `across` in the frame of the eye, in pixels.
    """

    def __init__(
        self, portrait: Layer, points: np.ndarray, eye: Aperture, brow: np.ndarray, lashes: float, contrast: float
    ) -> None:
        """`brow` (ENTRIES,) is where the brow ends over `eye.table_along`; `lashes` is how far lashes reach above the
        lid; `contrast` is that of the bar."""
        self.eye, self.lashes = eye, lashes
        brightness = float(np.median(portrait.colours_at(points[list(CHEEKS)])))
        self.least = float(np.clip(FRAME_SHARE * abs(contrast) * brightness, LEAST_FRAME, MOST_FRAME))
        step = eye.half / ROWS
        self.along = np.arange(-REACH * eye.half, REACH * eye.half + step, step)
        self.brow, self.lid, self.lower = (
            np.interp(self.along, eye.table_along, edge) for edge in (brow, eye.upper, eye.lower)
        )
        lens = self.lower + np.array(LOWER_RIM)[:, None] * eye.half
        self.heights = np.arange(self.brow.min() - THICKEST * eye.half, lens.max() + THICKEST * eye.half, step)
        self.colours = portrait.colours_at(eye.places(self.along, self.heights[:, None]))
        rows = self.heights[:, None]
        near = (rows > self.lid - 0.1 * eye.half) & (rows < self.lower + 0.5 * eye.half) & self._over_eye
        self.opaque = bool(np.percentile(self.colours[near], 80) < OPAQUE * brightness)
        """Whether what lies before the eye hides it."""
        self.dark = _thin_structures(self.colours, lighter=False) / self.least
        self.light = _thin_structures(self.colours, lighter=True) / self.least
        above = (rows > self.brow - 0.4 * eye.half) & (rows < self.lid - 0.2 * lashes)
        below = (rows > lens[0]) & (rows < lens[1])
        # Skin between two dark lines is a light one: a light frame has a light bridge.
        kinds = (self.dark, self.light) if contrast > 0 else (self.dark,)
        rims = (self._rim_within(strength, above) for strength in kinds)
        self.upper_rim = next((rim for rim in rims if rim is not None), None)
        """Where the rim above the eye ends below (columns,)."""
        if self.upper_rim is not None and self._usual(self.upper_rim - self.brow) < IN_BROW:
            under = (self._rim_within(strength, above & (rows > self.brow)) for strength in kinds)
            self.upper_rim = next((rim for rim in under if rim is not None), self.upper_rim)
        self.lower_rim = any(self._rim_within(strength, below) is not None for strength in kinds)
        """Whether there is a rim below the eye."""

    @property
    def _over_eye(self) -> np.ndarray:
        return np.abs(self.along) < 0.8 * self.eye.half

    def _usual(self, heights: np.ndarray) -> float:
        """The median of heights (columns,) over the eye in its half widths."""
        return float(np.median(heights[self._over_eye])) / self.eye.half

    def _rim_within(self, strength: np.ndarray, place: np.ndarray) -> np.ndarray | None:
        """Where (columns,) a rim within a place (rows, columns) ends below."""
        path = _rim(np.where(place, strength, 0), self.along / self.eye.half)
        return None if path is None else _lower_edge(strength > 1, path, self.heights, self.eye.half)

    def rim_stands_off(self) -> bool:
        """Whether there is a rim above the eye that is neither its brow nor its lashes."""
        if self.upper_rim is None or self._usual(self.upper_rim - self.brow) < IN_BROW:
            return False
        return self._usual(self.lid - self.upper_rim) > STANDS_OFF

    def free_skin(self) -> np.ndarray:
        """Where the free skin above the eye begins (ENTRIES,): below the brow, the rim and what else is no skin.

        A rim may lie among the lashes, or before the eye; of what else there is, only what lies above them counts.
        """
        edge, rows = self.brow, self.heights[:, None]
        if self.upper_rim is not None:
            edge = np.maximum(edge, self.upper_rim)
        above_lashes = (rows > edge) & (rows < self.lid - self.lashes)
        obstacle = above_lashes & (np.maximum(self.dark, self.light) > 1)
        obstacle |= _uneven(self.colours, above_lashes & ~obstacle)
        edge = np.maximum(edge, _lowest(obstacle, self.heights, self.eye.half))
        return np.interp(
            self.eye.table_along, self.along, np.minimum(edge, np.minimum(self.lid + EDGE * self.eye.half, self.lower))
        )


def are_spectacles(eyes: Sequence[Surroundings]) -> bool:
    """Whether a bar across the nose is the bridge of spectacles, which have rims, and no frown between brows."""
    return any(eye.lower_rim for eye in eyes) or all(eye.rim_stands_off() for eye in eyes)


def _uneven(colours: np.ndarray, drawn_out: np.ndarray) -> np.ndarray:
    """Which of the pixels (rows, columns) that a lid would draw out are no skin: unlike the usual one."""
    if not drawn_out.any():
        return drawn_out
    usual = np.median(colours[drawn_out], axis=0)
    return drawn_out & (np.abs(colours - usual).max(axis=-1) > max(UNEVEN * usual.max(), LEAST_FRAME))


def _lowest(obstacle: np.ndarray, heights: np.ndarray, half: float) -> np.ndarray:
    """Heights (columns,) below which nothing of an obstacle (rows, columns) lies, nor close beside it."""
    from scipy.ndimage import maximum_filter1d, median_filter

    last = np.where(obstacle.any(axis=0), len(obstacle) - 1 - obstacle[::-1].argmax(axis=0), -1)
    last = maximum_filter1d(median_filter(last, 7, mode="nearest"), 2 * round(BESIDE * ROWS) + 1)
    return np.where(last >= 0, heights[last] + EDGE * half, -np.inf)


def _rim(strength: np.ndarray, along: np.ndarray) -> np.ndarray | None:
    """The row in each column of (rows, columns) in which a rim lies; it goes on to both sides, unlike lashes.

    `strength` is above 1 in a frame; `along` (columns,) is in eye half widths.
    """
    path = _best_path(np.clip(strength / 2, 0, 1))
    seen = strength[path, np.arange(len(path))] > 1
    sides = (seen[side].mean() for side in (along < -1.05, along > 1.05))
    return path if seen.mean() > RIM_SHARE and min(sides) > 0.5 else None


def _lower_edge(frame: np.ndarray, path: np.ndarray, heights: np.ndarray, half: float) -> np.ndarray:
    """Where the frame (rows, columns) ends below a path (columns,) through it, with its soft edge."""
    from scipy.ndimage import maximum_filter1d, median_filter

    bottom = path.copy()
    for column in range(len(path)):
        while bottom[column] < len(heights) - 1 and frame[bottom[column] + 1, column]:
            bottom[column] += 1
    # Where lashes touch the rim, it is as thick as elsewhere.
    thick = np.percentile(bottom - path, 60) + 1
    edge = np.minimum(bottom, path + thick)
    return heights[maximum_filter1d(median_filter(edge.astype(int), 7, mode="nearest"), 5)] + EDGE * half


def _thin_structures(colours: np.ndarray, *, lighter: bool) -> np.ndarray:
    """How much each pixel (h, w) of a picture (h, w, 3) is darker or lighter than what is around a thin structure."""
    from scipy.ndimage import grey_closing, grey_opening

    size = (2 * round(THICKEST * ROWS / 2) + 1, 1, 1)
    differs = colours - grey_opening(colours, size) if lighter else grey_closing(colours, size) - colours
    return differs.max(axis=-1)


def _best_path(good: np.ndarray) -> np.ndarray:
    """The row in each column of (rows, columns) of the best way across, which climbs two rows a column at most."""
    moves = np.array([0, -1, 1, -2, 2])
    rows, columns = good.shape
    total, came = good[:, 0].copy(), np.zeros(good.shape, dtype=int)
    for column in range(1, columns):
        padded = np.pad(total, 2, constant_values=-np.inf)
        # A level way is preferred.
        ways = np.stack([padded[2 + move : 2 + move + rows] - 0.05 * abs(move) for move in moves])
        came[:, column] = moves[ways.argmax(axis=0)]
        total = ways.max(axis=0) + good[:, column]
    path = np.empty(columns, dtype=int)
    path[-1] = int(total.argmax())
    for column in range(columns - 1, 0, -1):
        path[column - 1] = path[column] + came[path[column], column]
    return path
