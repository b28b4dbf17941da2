"""Spectacles: finds where the upper rim of their frame lies over an eye, so that no moving lid distorts it.

Numbers that name no source were chosen by eye on portraits; the trials are not recorded.
"""

from __future__ import annotations

import numpy as np
import torch

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
UNEVEN, CLEAR_SHARE = 0.25, 0.2
"""How far skin may differ from what is usual above and below, over its brightness, and in which part of the columns it
may do so more."""
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
    seen = _colours_at(portrait, (right + left) / 2 + along[:, None] * axis + across[:, None, None] * down)
    # Freckles and pores of a sharp picture are shorter than a bar.
    seen = gaussian_filter1d(seen, BRIDGE_BLUR, axis=1, mode="nearest")
    differs = seen - median_filter(seen, size=(45, 1, 1), mode="nearest")
    # A bar that is a little oblique is one, too.
    low_enough = across[:-5] >= HIGHEST_BRIDGE
    bars = (maximum_filter1d(sign * differs, 7, axis=0)[:-5][low_enough] for sign in (-1, 1))
    darker, lighter = (float(np.percentile(bar, 100 * BRIDGE_SHARE, axis=1).max()) for bar in bars)
    return max(lighter, -darker, key=abs) / max(float(np.median(seen)), 0.08)


def lowest_of_rim(
    portrait: Layer, points: np.ndarray, eye: Aperture, brow: np.ndarray, lashes: float, contrast: float
) -> np.ndarray | None:
    """Where the skin begins (ENTRIES,) that is free of spectacles above an eye: `brow`, or below the rim.

    `brow` is where the brow ends and the result are heights `across` over `eye.table_along`; `lashes` is how far
    lashes reach above the lid, all in pixels; `contrast` is that of the bridge. None where the lens hides the lids, and
    where frame and lid cannot be distinguished.
    """
    brightness = float(np.median(_colours_at(portrait, points[list(CHEEKS)])))
    least = float(np.clip(FRAME_SHARE * abs(contrast) * brightness, LEAST_FRAME, MOST_FRAME))
    step = eye.half / ROWS
    along = np.arange(-REACH * eye.half, REACH * eye.half + step, step)
    first, lid = (np.interp(along, eye.table_along, edge) for edge in (brow, eye.upper))
    heights = np.arange(first.min() - THICKEST * eye.half, lid.max() + THICKEST * eye.half, step)
    places = eye.places(along, heights[:, None])
    colours = _colours_at(portrait, places)
    strength = _thin_structures(colours, lighter=contrast > 0)
    rows, over_eye = heights[:, None], np.abs(along) < 0.8 * eye.half

    above_lid = (rows > first) & (rows < lid - lashes) & over_eye
    skin = colours[above_lid & (strength < least)]
    behind = colours[(rows > lid - 0.1 * eye.half) & over_eye]
    if not len(skin) or min(np.median(skin), np.percentile(behind, 80)) < OPAQUE * brightness:
        return None
    path = _rim(
        np.where((rows > first - 0.4 * eye.half) & (rows < lid - lashes), strength / least, 0), along / eye.half
    )
    edge = first if path is None else np.maximum(first, _lower_edge(strength > least, path, heights, eye.half))
    among_lashes = _rim(np.where((rows > first) & (rows < lid - 0.2 * lashes), strength / least, 0), along / eye.half)
    if (path is None and among_lashes is not None) or _is_uneven(colours, above_lid & (rows > edge)):
        return None
    return np.maximum(brow, np.interp(eye.table_along, along, edge))


def _is_uneven(colours: np.ndarray, drawn_out: np.ndarray) -> bool:
    """Whether something else than skin lies among the pixels (rows, columns) that a lid would draw out."""
    differs = 0
    columns = np.flatnonzero(drawn_out.any(axis=0))
    for column in columns:
        skin = colours[drawn_out[:, column], column]
        usual = np.median(skin, axis=0)
        differs += bool((np.abs(skin - usual).max(axis=1) > max(UNEVEN * usual.max(), LEAST_FRAME)).any())
    return differs > CLEAR_SHARE * len(columns)


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


def _colours_at(portrait: Layer, places: np.ndarray) -> np.ndarray:
    """Colours (..., 3) of a layer at places (..., 2)."""
    flat = torch.from_numpy(places.reshape(1, 1, -1, 2)).to(portrait.values)
    return portrait.sample(flat)[0, :3, 0].T.cpu().numpy().reshape(*places.shape[:-1], 3)
