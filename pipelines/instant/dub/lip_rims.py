"""Where the edges of a film's open lips lie beside their landmarks, from its pixels.

Landmarkers put the inner edges of lips too far in or out, by much the same in all frames of a film, so that colours,
which change at an edge, tell it from many frames together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....models.curves import smoothstep
from ....models.face.face_mesh import VERTICES, mouth_opening
from ....models.face.mouth_regions import LOWER_INNER_LIP, MOUTH_CORNERS, UPPER_INNER_LIP
from ...image.luma import LUMA
from ..renderer.face_opening import Aperture, colours_at

USUAL_RIMS, SPREAD = (0.02, 0.05), 0.04
"""Mouth half widths by which the edges of open lips usually lie outside the landmarks, the upper and the lower one, and
the standard deviation by which they do in single films: edges of teeth are not to be taken for them."""
OPEN_FROM = 0.07
"""Opening in eye distances from which on both edges are apart."""
REACH, STEPS = (-0.2, 0.25), 91
"""Mouth half widths from the landmarks into the lip over which colours are compared, and at how many places."""
COLUMNS, COLUMN_REACH = 15, 0.45
"""Columns that are looked at, and mouth half widths from the middle within."""
BLUR = 2.0
"""Places; standard deviation of the blur of what all frames tell."""
CLEAR = (1.4, 2.0)
"""The largest change over their mean from which on an edge tells something, and from which on all."""
PLAIN = 0.3
"""Part of the places where colours change no more than beside an edge."""
ROUNDS, BESIDE, PEAK = 6, 0.1, (1.2, 1.8)
"""In each of these rounds a clear edge is expected where it was found before; mouth half widths to either side within
which colours change less, and how many times as much they change at what is an edge perhaps, and surely."""
RIM_OPENING = 0.2
"""Mouth half widths of an opening from which on the rims are whole."""
CONTACT_COLUMNS, CONTACT_SIDE, CONTACT_STEPS, CONTACT_REACH = 25, 0.92, 25, 0.2
"""Columns that are looked at where lips touch, and how many places in each: mouth half widths from the middle."""
CONTACT_WIDTH, CONTACT_SPREAD, CONTACT_SLOPE, CONTACT_BLUR = 0.08, 0.08, 0.03, 1.0
"""Mouth half widths on either side that are brighter, and from the landmarks' middle, as a standard deviation; what the
square of the line's slope costs, in the light on the cheeks, and columns by which it is smoothed."""
CONTACT_CLEAR = (0.01, 0.04)
"""Of the light on the cheeks, by how much darker a line tells something, and all."""


def edge_steps(frame: np.ndarray, points: np.ndarray) -> np.ndarray | None:
    """How much (2, STEPS) colours change across the upper and the lower lip's edge, or None for a mouth that is shut.

    From a frame (H, W, 3), bytes or floats in 0..1, and landmarks (468 or more, 2 or 3) in its pixels.
    """
    points = points[:VERTICES, :2].astype(np.float64)
    if mouth_opening(points) < OPEN_FROM:
        return None
    lips = Aperture(points, MOUTH_CORNERS, UPPER_INNER_LIP, LOWER_INNER_LIP)
    along = np.linspace(-COLUMN_REACH, COLUMN_REACH, COLUMNS) * lips.half
    into = np.linspace(*REACH, STEPS)[:, None] * lips.half
    steps = []
    for edge, way in zip(lips.edges_at(along), (-1, 1), strict=True):
        colours = colours_at(frame, lips.places(along, edge + way * into)).astype(np.float32)
        change = np.abs(np.gradient(colours, axis=0)).sum(axis=2).mean(axis=1)
        steps.append(change / max(float(change.sum()), 1e-6))
    return np.stack(steps)


def lip_rims(steps: Sequence[np.ndarray]) -> tuple[float, float]:
    """Mouth half widths by which the edges of open lips lie outside the upper and the lower landmarks.

    From `edge_steps` of a film's frames; without any, as usual.
    """
    if not steps:
        return USUAL_RIMS
    rims = []
    for change, usual in zip(np.mean(steps, axis=0), USUAL_RIMS, strict=True):
        clear = np.clip((change.max() / max(float(change.mean()), 1e-12) - CLEAR[0]) / (CLEAR[1] - CLEAR[0]), 0, 1)
        rims.append(usual + float(clear) * (_edge_near(_blurred(change), usual) - usual))
    return rims[0], rims[1]


def clear_edge(steps: Sequence[np.ndarray], lip: int) -> tuple[float, float]:
    """Where the edge of one `lip`, 0 the upper, lies outside its landmarks, in mouth half widths, however far it is.

    Also how clear it is, in 0..1: colours change more there than on either side. From `edge_steps` of some frames.
    """
    change = _blurred(np.mean(steps, axis=0)[lip])
    place = USUAL_RIMS[lip]
    for _ in range(ROUNDS):
        place = _edge_near(change, place)
    into = np.linspace(*REACH, STEPS)
    beside = [change[np.abs(into - place - way * BESIDE / 2) <= BESIDE / 2].min(initial=np.inf) for way in (-1, 1)]
    peak = float(np.interp(place, into, change))
    return place, float(smoothstep(*PEAK, np.float64(peak / max(*beside, 1e-12))))


def _blurred(change: np.ndarray) -> np.ndarray:
    from scipy.ndimage import gaussian_filter1d

    return gaussian_filter1d(change, BLUR)


def _edge_near(change: np.ndarray, usual: float) -> float:
    """The place of the largest change (STEPS,) about the `usual` one."""
    into = np.linspace(*REACH, STEPS)
    edge = np.clip(change - np.quantile(change, PLAIN), 0, None) * np.exp(-(((into - usual) / SPREAD) ** 2) / 2)
    return float((into * edge**2).sum() / max(float((edge**2).sum()), 1e-12))


def open_part(gap: np.ndarray | float, closed_gap: np.ndarray | float, half: np.ndarray | float) -> np.ndarray:
    """0..1: whether lips whose landmarks are `gap` apart touch or are open, with mouths of the half width `half`."""
    return np.clip((np.asarray(gap) - closed_gap) / (RIM_OPENING * half), 0, 1)


def contact_line(frame: np.ndarray, lips: Aperture, touching: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Pixels by which lips of a frame (H, W, 3) meet below the middle of their edges, over `lips.table_along`.

    That is the smoothest dark line near it. `touching` (ENTRIES,) in 0..1 says where they meet, and `light` (3,) is
    that on the cheeks. Landmarks of pursed lips lie on the lower one, of which a strip would open with the upper one.
    """
    from scipy.ndimage import gaussian_filter1d

    along = np.linspace(-CONTACT_SIDE, CONTACT_SIDE, CONTACT_COLUMNS)
    away = np.linspace(-CONTACT_REACH, CONTACT_REACH, CONTACT_STEPS)
    step = round(CONTACT_WIDTH / (away[1] - away[0]))
    beyond = np.concatenate([away[:step] - step * (away[1] - away[0]), away, away[-step:] + step * (away[1] - away[0])])
    edges = (np.interp(along * lips.half, lips.table_along, edge) for edge in (lips.upper, lips.lower))
    middle = sum(edges) / 2
    places = lips.places(along * lips.half, middle + beyond[:, None] * lips.half)
    brightness = colours_at(frame, places).astype(np.float32) @ LUMA / float(light @ LUMA)
    darker = (brightness[: -2 * step] + brightness[2 * step :]) / 2 - brightness[step:-step]
    value = np.maximum(darker, 0) * np.exp(-0.5 * (away / CONTACT_SPREAD) ** 2)[:, None]
    path = _smoothest(value, (away[1] - away[0]) * CONTACT_COLUMNS / (2 * CONTACT_SIDE))
    clear = smoothstep(*CONTACT_CLEAR, darker[path, np.arange(CONTACT_COLUMNS)])
    shift = gaussian_filter1d(away[path] * clear, CONTACT_BLUR, mode="nearest") * lips.half
    beside = np.clip((1 - np.abs(lips.table_along) / lips.half) / (1 - CONTACT_SIDE) + 1, 0, 1)
    return np.interp(lips.table_along, along * lips.half, shift) * beside * touching


def _smoothest(value: np.ndarray, slope: float) -> np.ndarray:
    """The row (n,) of each column of values (m, n) with the largest sum, less what changes of rows cost (Viterbi)."""
    rows = np.arange(len(value))
    cost = CONTACT_SLOPE * ((rows[:, None] - rows) * slope) ** 2
    total, before = value[:, 0], []
    for column in value.T[1:]:
        reached = total - cost
        before.append(reached.argmax(axis=1))
        total = reached.max(axis=1) + column
    path = [int(total.argmax())]
    for back in reversed(before):
        path.append(int(back[path[-1]]))
    return np.array(path[::-1])
