"""Where in a picture lips end and a mouth's inside begins, and how much of that inside the picture shows.

Landmarks of lips lie beside them by more than an edge may: the picture's own lines are searched around them.

Numbers that name no source were chosen by eye on portraits; the trials are not recorded.
"""

from __future__ import annotations

import numpy as np

from ....models.curves import smoothstep
from ...image.luma import LUMA
from .face_opening import Aperture, cheapest_path, colours_along, colours_at
from .picture_style import plain_brightness
from .portrait_mesh import PortraitMesh

LINE_REACH = 0.12
"""Mouth half widths around the landmarks in which the line of closed lips, or an edge of open ones, is searched."""
LIP_FROM, LIP_TO = 0.04, 0.14
"""Mouth half widths beyond the landmarks of an open mouth's edge between which all is lip."""
OWN_FROM = 0.035, 0.055
"""Opening of the portrait in eye distances from which some, and with which all, of its inside is kept."""
RESOLVED = 1.8, 3.2
"""Opening of the portrait over its blur from which some, and with which all, of its inside is not only blurred lips."""
WHOLLY = 0.85, 1.0
"""Product of these shares from which some, and with which all, of the inside is kept: half an inside over a painted one
looks like two rows of teeth. Chosen on six frames of two filmed people that had 0.27 to 0.87."""
LIT, WIDE = (0.36, 0.5), (0.4, 0.5)
"""Median brightness over the `plain_brightness`, and height in mouth half widths, from which on an inside is no shadow
alone."""
HANGING = 0.45, 0.6
"""Brightness just below an upper lip over an inside's brightest from which its row may, and from which it does, hang
from that lip: one with a dark gap above it is the lower row. Chosen on 20 frames of two filmed people, two pictures."""
RIM = 0.02
"""Mouth half widths by which the upper edge of open lips lies outside what was found, the lower twice as far: no rim of
teeth may stick to a lip."""
OVERLAP_MOST = 0.4
"""Part of an open mouth's height, up from its lower edge, that may turn out to be lower lip."""
LIP_ABOVE, MOST_ABOVE = 0.25, 0.5
"""Part of an opening that must be of the lower lip's colour all along the mouth to be that lip, and the largest opening
in mouth half widths of which that is believed: tongues are of that colour too."""
UNLIKE_INSIDE = 0.4
"""Part of the colour difference between a mouth's inside and its lower lip from which a pixel is no longer inside."""
SIDE_LIT = 0.8
"""Part of the mouth, from its middle to a corner, over which lips tell how their light changes."""
MOST_SIDE_LIGHT = 0.9
"""Largest change that is believed, per mouth half width."""
STEPS = 33
"""Places across the lips that are tried for each of a line's places along them."""


def inside_kept(picture: np.ndarray, mouth: Aperture, mesh: PortraitMesh, blur: float) -> float:
    """0..1: how far an open mouth's own inside is drawn.

    It is where the mouth is open enough, shows neither a shadow nor blurred lips, and its teeth go with the upper lip:
    lower teeth would float where those of a skull belong.
    """
    # Between edges that were found in the picture there may be less than between landmarks.
    found = float((mouth.lower - mouth.upper).max()) / mesh.eye_distance
    gap = min(mesh.mouth.lip_gap, found)
    kept = smoothstep(*OWN_FROM, np.float64(gap)) * smoothstep(*RESOLVED, np.float64(gap * mesh.eye_distance / blur))
    if kept <= WHOLLY[0]:
        return 0.0
    kept = kept * upper_row(picture, mouth)
    return float(smoothstep(*WHOLLY, kept * inside_shown(picture, mouth, plain_brightness(picture, mesh.points))))


def upper_row(picture: np.ndarray, mouth: Aperture) -> float:
    """0..1: how surely no dark gap parts an open mouth's upper lip from the brightest of what it shows."""
    light = _between(picture, mouth, np.linspace(0.15, 0.95, 9)) @ LUMA
    quarter = len(light) // 4
    light = np.median(light[quarter:-quarter], axis=0)
    return float(smoothstep(*HANGING, light[:3].mean() / max(float(light.max()), 1e-3)))


def inside_shown(picture: np.ndarray, mouth: Aperture, plain: float) -> float:
    """0..1: how far an open mouth shows its inside; between lips that hardly part there may be their shadow alone.

    `plain` is the `plain_brightness`.
    """
    along = np.linspace(-0.5, 0.5, 21) * mouth.half
    upper, lower = mouth.edges_at(along)
    across = upper[:, None] + (lower - upper)[:, None] * np.linspace(0.25, 0.75, 9)
    light = np.median(colours_at(picture, mouth.places(along[:, None], across)) @ LUMA) / max(plain, 1e-3)
    return float(np.maximum(smoothstep(*LIT, light), smoothstep(*WIDE, (lower - upper).max() / mouth.half)))


def dark_line(picture: np.ndarray, mouth: Aperture) -> np.ndarray:
    """The line where closed lips meet, over `mouth.table_along`: the darkest smooth path near the landmarks' line.

    A cut beside it would leave a rim of one lip on the other.
    """
    middle = (mouth.upper + mouth.lower) / 2
    offsets = np.linspace(-LINE_REACH, LINE_REACH, STEPS) * mouth.half
    light = colours_along(picture, mouth, middle, offsets).mean(axis=-1)
    return _smooth_path(mouth, middle, offsets, light / max(float(np.ptp(light)), 1e-3), stiff=1.0)


def line_width(picture: np.ndarray, mouth: Aperture, blur: float) -> tuple[float, float]:
    """Pixels by which the dark line between closed lips, or a shadow, reaches into the upper and into the lower one."""
    offsets = np.linspace(0, LINE_REACH, STEPS // 2 + 1) * mouth.half
    widths = []
    for edge, outwards in ((mouth.upper, -offsets), (mouth.lower, offsets)):
        light = colours_along(picture, mouth, edge, outwards).mean(axis=-1)
        side = np.median(light[len(light) // 5 : -len(light) // 5], axis=0)
        brighter = side > side[0] + 0.6 * (side.max() - side[0])
        widths.append(min(float(np.argmax(brighter)) * (offsets[1] - offsets[0]), 1.2 * blur + 0.04 * mouth.half))
    return widths[0], widths[1]


def lip_edge(picture: np.ndarray, mouth: Aperture, side: int) -> np.ndarray:
    """The edge of an open mouth's upper (`side` -1) or lower lip (1), over `mouth.table_along`.

    It is where the colour of that lip ends, on a smooth path near the landmarks' edge.
    """
    edge, other = (mouth.upper, mouth.lower) if side < 0 else (mouth.lower, mouth.upper)
    offsets = np.linspace(-LINE_REACH, LINE_REACH, STEPS) * mouth.half
    step = offsets[1] - offsets[0]
    strip = max(2, round(0.07 * mouth.half / step))
    further = np.concatenate(
        [offsets[0] - step * np.arange(strip, 0, -1), offsets, offsets[-1] + step * np.arange(1, strip + 1)]
    )
    colours = colours_along(picture, mouth, edge, side * further)
    # Positive offsets lead into the lip, where its own colour is taken just beyond the landmarks.
    inside_lip = (further > LIP_FROM * mouth.half) & (further < LIP_TO * mouth.half)
    lip = np.median(colours[:, inside_lip], axis=1)
    lip = 0.5 * lip + 0.5 * np.median(lip, axis=0)
    unlike = np.linalg.norm(colours - lip[:, None], axis=-1)
    # Teeth are no less a mouth's inside than the dark between them.
    most = 0.7 * float(np.quantile(unlike, 0.95)) + 1e-6
    unlike = most * np.tanh(unlike / most)
    sums = np.cumsum(np.pad(unlike, ((0, 0), (1, 0))), axis=1)
    places = np.arange(strip, strip + STEPS)
    gain = (2 * sums[:, places] - sums[:, places - strip] - sums[:, places + strip]) / strip
    open_part = np.clip((side * (edge - other) / (0.06 * mouth.half))[np.abs(mouth.table_along) < mouth.half], 0, 1)
    cost = -gain / max(float(np.quantile(gain, 0.95)), 0.05) * open_part[:, None]
    return _smooth_path(mouth, edge, side * offsets, cost, stiff=12.0)


def lip_above(picture: np.ndarray, mouth: Aperture) -> np.ndarray:
    """Pixels, over `mouth.table_along`, by which a lower lip begins above the landmarks of its edge.

    These may lie in the middle of a full lip, between which and the upper one there is a dark line, or little more.
    """
    from scipy.ndimage import gaussian_filter1d, median_filter

    inner = np.abs(mouth.table_along) < mouth.half
    above = np.zeros(len(mouth.table_along))
    gap = (mouth.lower - mouth.upper)[inner]
    shares = np.linspace(0.0, 1.0, STEPS)
    lip = _lower_lip(picture, mouth)
    lip = 0.5 * lip + 0.5 * np.median(lip, axis=0)
    unlike = np.linalg.norm(_between(picture, mouth, shares) - lip[:, None], axis=-1)
    unlike = gaussian_filter1d(unlike, 3.0, axis=0, mode="nearest")
    most = unlike[:, 2:-2].max(axis=1)
    inside = unlike > UNLIKE_INSIDE * np.maximum(most, 0.5 * np.quantile(most, 0.8))[:, None]
    last = np.where(inside.any(axis=1), shares[STEPS - 1 - np.argmax(inside[:, ::-1], axis=1)], 0.0)
    middle = slice(len(gap) // 4, -len(gap) // 4)
    if np.quantile(1 - last[middle], 0.25) > LIP_ABOVE and gap.max() < MOST_ABOVE * mouth.half:
        above[inner] = gaussian_filter1d(median_filter((1 - last) * gap, 9, mode="nearest"), 3.0)
    return above


def _lower_lip(picture: np.ndarray, mouth: Aperture) -> np.ndarray:
    """Colours (columns between the corners, 3) of the lower lip just below its edge."""
    beyond = np.linspace(LIP_FROM, LIP_TO, 9) * mouth.half
    return np.median(colours_along(picture, mouth, mouth.lower, beyond), axis=1)


def lip_in_opening(picture: np.ndarray, mouth: Aperture) -> np.ndarray:
    """Pixels of an open mouth up from its lower edge, over `mouth.table_along`, that are of the lip or its shadow."""
    from scipy.ndimage import gaussian_filter1d, median_filter

    inner = np.abs(mouth.table_along) < mouth.half
    gap = (mouth.lower - mouth.upper)[inner]
    shares = np.linspace(OVERLAP_MOST, 0.0, STEPS)
    inside = np.median(_between(picture, mouth, np.linspace(0.35, 0.65, 9)), axis=1)
    lip = _lower_lip(picture, mouth)
    colours = _between(picture, mouth, 1 - shares)
    other = np.linalg.norm(colours - inside[:, None], axis=-1)
    other = other > UNLIKE_INSIDE * np.linalg.norm(lip - inside, axis=-1)[:, None]
    # From the edge upwards, as far as nothing is inside.
    share = np.where(other.all(axis=1), OVERLAP_MOST, shares[STEPS - 1 - np.argmin(other[:, ::-1], axis=1)])
    found = np.zeros(len(mouth.table_along))
    found[inner] = median_filter(share * gap, 9, mode="nearest")
    return np.maximum(gaussian_filter1d(found, 3.0), 2 * RIM * mouth.half)


def side_light(picture: np.ndarray, mouth: Aperture) -> float:
    """How much lighter a mouth's lips become from the first corner to the second.

    The rise of the logarithm of their brightness per half width: the lesser one of both lips, as far as these agree.
    """
    along = np.linspace(-SIDE_LIT, SIDE_LIT, STEPS) * mouth.half
    beyond = np.linspace(LIP_FROM, LIP_TO, 9) * mouth.half
    rises = []
    for edge, outwards in zip(mouth.edges_at(along), (-beyond, beyond), strict=True):
        light = np.median(colours_at(picture, mouth.places(along[:, None], edge[:, None] + outwards)) @ LUMA, axis=1)
        rises.append(float(np.polyfit(along / mouth.half, np.log(light.clip(min=0.02)), 1)[0]))
    lesser = min(rises, key=abs)
    return float(np.clip(lesser, -MOST_SIDE_LIGHT, MOST_SIDE_LIGHT)) if rises[0] * rises[1] > 0 else 0.0


def _between(picture: np.ndarray, mouth: Aperture, shares: np.ndarray) -> np.ndarray:
    """Colours (columns between the corners, shares, 3) from the upper edge (share 0) to the lower one (1)."""
    gap, here = mouth.lower - mouth.upper, np.zeros(1)
    lines = [colours_along(picture, mouth, mouth.upper + share * gap, here) for share in shares]
    return np.concatenate(lines, axis=1)


def _smooth_path(mouth: Aperture, line: np.ndarray, offsets: np.ndarray, cost: np.ndarray, stiff: float) -> np.ndarray:
    """`line` over `mouth.table_along`, moved between the corners along the smooth path with the least `cost`.

    `cost` (columns between the corners, offsets) is about 1 from the best place to the worst.
    """
    from scipy.ndimage import gaussian_filter1d

    inner = np.abs(mouth.table_along) < mouth.half
    # At the corners the line is the landmarks'; towards the middle the picture counts for more.
    freedom = np.clip((1 - np.abs(mouth.table_along[inner] / mouth.half)) / 0.15, 0.05, 1)
    cost = cost + 0.5 * (offsets / np.abs(offsets).max()) ** 2 / freedom[:, None]
    path = cheapest_path(cost, 0.02 * stiff)
    found = line.copy()
    found[inner] += gaussian_filter1d(offsets[path], 4.0 * stiff**0.3, mode="nearest")
    return found
