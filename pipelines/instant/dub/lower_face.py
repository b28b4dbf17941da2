"""Draws the lower face of a filmed frame with another mouth: skin is moved, and the open mouth is filled.

Two backward fields carry the skin above and below the lips' meeting line, as in Instant's renderer; here they are made
for each frame, as the film's face moves. Outside the changed part a frame keeps its bytes.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from ....models.curves import smoothstep
from ....models.face.face_mesh import FACE_OVAL, INNER_LOWER_LIP, INNER_UPPER_LIP, LIPS_OUTER, face_mesh
from ...image.luma import LUMA
from ...packages import load_opencv
from ..renderer.expression_field import parted_lips
from ..renderer.face_opening import Aperture
from ..renderer.mouth_shape import distance
from .lip_rims import open_part
from .mouth_motion import MouthMotion
from .mouth_view import lip_edges, sampled
from .mouth_views import MouthViews
from .skin.sharpness import blurred

NODES_PER_EYE_DISTANCE = 26
SOFTNESS = 0.05
"""Of the radial basis functions, in eye distances."""
RIDGE = 0.05
RINGS = ((0.14, 0.6), (0.3, 0.2), (0.48, 0.0))
"""Rings around the lower face oval, by how much wider they are, and the part of the oval's movement that they take."""
LOWER_FROM, ANCHORS_TO = -0.6, 1.2
"""Heights in cm in the canonical head: landmarks below the first move, from there to the second some stay."""
BESIDE_MOUTH = 4.2
"""Cm from the middle line within which landmarks move, beside those of the face's oval."""
LEAST_MOVE = 0.02
"""Pixels; what moves less keeps its bytes."""
FADE = 0.25
"""Eye distances from the sides of the box over which movements fade."""
FEATHER = 0.8
"""Half the width in pixels over which one lip goes over into the other where they touch."""
LIP_MARGIN = 0.06
"""Eye distances around the lips in which the skin above and below them is drawn by both fields."""
TEETH_REACH, LIP_REACH = 0.1, 2.2
"""Mouth half widths from its edge into a lip in which filmed teeth may be seen, and how many times as far its own
colour is looked at."""
BRIGHTER = (0.05, 0.15)
"""Of the cheeks' brightness, by how much what is no lip at all and what surely is none exceed the lip's own."""
DARKER = (0.06, 0.14)
"""The same for the dark line between lips that touch or hardly part, which the lower lip leaves as it goes down."""
LINE_LEFT = (0.04, 0.12)
"""Mouth half widths that lips are apart from which on some, and from which on all, of that line is left."""
MIDDLE_OF_LIPS = INNER_UPPER_LIP, INNER_LOWER_LIP
LIP_COLUMNS, LIP_BLUR, LEAST_LIP = 24, 1.5, 0.5
"""Columns along a lip of which each has a colour, by how many they are smoothed, and the pixels that tell one."""
LIP_EDGE = (-0.3, 0.9)
"""Pixels from a lip's edge inwards over which it goes over into the inside."""
BLURRED = 2.0
"""Standard deviations by which an inside that is blurred reaches beyond its edge."""


def draw_mouth(
    frame: np.ndarray,
    box: tuple[slice, slice],
    motion: MouthMotion,
    inside: MouthViews,
    light: np.ndarray,
    amount: float,
) -> np.ndarray:
    """Moves the mouth in a frame (H, W, 3), bytes or floats in 0..1, and fills an open one from `inside`.

    `box` is the `changed_box`; other pixels keep their values. `light` (3,) is the colour of the cheeks now; by
    `amount` in 0..1 the frame goes over into the new one. Returns how much of each pixel of the box is new (h, w)
    float32 in 0..1.
    """
    cv2 = load_opencv()
    rows, columns = box
    upper, lower = _fields(motion, box)
    x = np.arange(columns.start, columns.stop, dtype=np.float32) + 0.5
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + 0.5
    strip = _around_lips(motion, box)
    # Above and below the strip around the lips each pixel has one field; within it both are drawn.
    field = upper.copy()
    below = (strip[0].start + strip[0].stop) // 2
    field[:, below:] = lower[:, below:]
    colours = sampled(frame, x + field[0], y + field[1])
    new = np.abs(field).max(axis=0) > LEAST_MOVE
    x, y, upper, lower = x[strip[1]], y[strip[0]], upper[:, strip[0], strip[1]], lower[:, strip[0], strip[1]]
    lips, opened = _lips(frame, motion, inside, light, (x, y), upper, lower)
    colours[strip] = lips if frame.dtype != np.uint8 else np.rint(lips).clip(0, 255)
    new[strip] = (np.maximum(np.abs(upper), np.abs(lower)).max(axis=0) > LEAST_MOVE) | opened
    here = frame[box]
    if amount < 1:
        colours = cv2.addWeighted(colours, amount, here, 1 - amount, 0)
    np.copyto(here, colours if frame.dtype == np.uint8 else colours.clip(0, 1), where=new[..., None])
    return new * np.float32(amount)


def _lips(
    frame: np.ndarray,
    motion: MouthMotion,
    inside: MouthViews,
    light: np.ndarray,
    pixels: tuple[np.ndarray, np.ndarray],
    upper: np.ndarray,
    lower: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Colours (h, w, 3) float32 of both lips and of what is seen between them, and where that is (h, w) bool.

    At `pixels`, x (w,) and y (h, 1), the skin is moved by the fields `upper` and `lower` (2, h, w).
    """
    x, y = pixels
    from_upper, from_lower = ((x + field[0], y + field[1]) for field in (upper, lower))
    lips = lip_edges(frame, motion, light)
    along_upper, across = _local(lips, *from_upper)
    below_upper = across - np.interp(along_upper, lips.table_along, lips.upper)
    inward = lips.half - np.abs(along_upper)
    along, across = _local(lips, *from_lower)
    above_lower = np.interp(along, lips.table_along, lips.lower) - across
    inward = np.minimum(inward, lips.half - np.abs(along))
    soft = FEATHER + 0.5 * np.maximum(np.abs(along) - 0.9 * lips.half, 0)
    part = smoothstep(-1.0, 1.0, (below_upper - above_lower) / (2 * soft)).astype(np.float32)[..., None]
    above, below = (sampled(frame, *places).astype(np.float32) for places in (from_upper, from_lower))
    _clear_edge(above, along_upper, -below_upper, lips.half, light)
    touched = 1 - float(open_part(distance(motion.points, *MIDDLE_OF_LIPS), motion.closed_gap, lips.half))
    _clear_edge(below, along, -above_lower, lips.half, light, below_upper + above_lower, touched)
    colours = above + part * (below - above)
    opened = smoothstep(*LIP_EDGE, np.minimum(np.minimum(below_upper, above_lower), inward)).astype(np.float32)
    high, wide = (np.flatnonzero((opened > 0).any(axis=axis)) for axis in (1, 0))
    if len(high):
        blur = inside.blur(frame, motion)
        beside = np.ceil(BLURRED * blur).astype(int)
        hole = tuple(
            slice(max(seen[0] - more, 0), seen[-1] + 1 + more)
            for seen, more in zip((high, wide), beside[::-1], strict=True)
        )
        places = np.stack(np.broadcast_arrays(x[hole[1]], y[hole[0]]), axis=-1)
        fill = inside.fill(places, below_upper[hole], above_lower[hole], motion, light)
        if blur.any():
            # Under the soft edge lips go on as they are beside it.
            lip = 1 - opened[hole][..., None]
            going_on = blurred(lip * colours[hole], blur) / np.maximum(blurred(lip, blur), 1e-3)[..., None]
            colours[hole] += (1 - lip) * (going_on - colours[hole])
            fill, opened[hole] = blurred(fill, blur), blurred(opened[hole], blur)
        colours[hole] += opened[hole][..., None] * (fill - colours[hole])
    return colours, opened > 0


def _clear_edge(
    lip: np.ndarray,
    along: np.ndarray,
    depth: np.ndarray,
    half: float,
    light: np.ndarray,
    gap: np.ndarray | None = None,
    touched: float = 1.0,
) -> None:
    """Gives filmed teeth that are seen at the edge of a lip, where none are to be seen, the lip's colour.

    `lip` (h, w, 3) float32 are its colours at `along` (h, w) the mouth and `depth` (h, w) pixels from its edge into
    it, `half` a mouth's width, in the `light` (3,) on the cheeks. Where lips are apart, by the pixels `gap` (h, w),
    the dark line along which it `touched` the other lip, in 0..1, gets that colour too: beside the edge of a lip that
    was apart already it would be a bright rim, as what is dark there goes on.
    """
    from scipy.ndimage import gaussian_filter1d

    deep = depth / (TEETH_REACH * half)
    mouth = np.abs(along) < half
    column = np.clip((along / half + 1) / 2 * LIP_COLUMNS, 0, LIP_COLUMNS - 1).astype(int)
    inner = mouth & (deep > 1) & (deep < LIP_REACH)
    sums = [np.bincount(column[inner], values, LIP_COLUMNS) for values in (*lip[inner].T, None)]
    *total, count = gaussian_filter1d(np.stack(sums).astype(np.float64), LIP_BLUR, mode="nearest")
    edge = mouth & (depth > -LIP_EDGE[1]) & (deep <= 1) & (count > LEAST_LIP)[column]
    own = (np.stack(total, axis=-1) / np.maximum(count, LEAST_LIP)[:, None])[column[edge]].astype(np.float32)
    brighter = (lip[edge] - own) @ LUMA / float(light @ LUMA)
    other = smoothstep(*BRIGHTER, brighter)
    if gap is not None:
        other = np.maximum(other, smoothstep(*DARKER, -brighter) * touched * smoothstep(*LINE_LEFT, gap[edge] / half))
    part = other * smoothstep(1.0, 0.7, deep[edge])
    lip[edge] += part[:, None].astype(np.float32) * (own - lip[edge])


def _around_lips(motion: MouthMotion, box: tuple[slice, slice]) -> tuple[slice, slice]:
    """Rows and columns within a box around the lips before and after the movement."""
    lips = motion.points[list(LIPS_OUTER)]
    places = np.concatenate([lips, lips + motion.moved[list(LIPS_OUTER)]])
    margin = LIP_MARGIN * motion.eye_distance
    low, high = places.min(axis=0) - margin, places.max(axis=0) + margin
    result = []
    for side, first, last in zip(box, low[::-1], high[::-1], strict=True):
        start = int(np.clip(first - side.start, 0, side.stop - side.start - 2))
        result.append(slice(start, int(np.clip(last - side.start + 1, start + 2, side.stop - side.start))))
    return result[0], result[1]


def changed_box(motion: MouthMotion, size: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of a frame (height, width) that the movement can reach."""
    places = np.concatenate(_sites(motion.points, motion.moved))
    low, high = np.floor(places.min(axis=0)).astype(int), np.ceil(places.max(axis=0)).astype(int) + 1
    left, top = np.clip(low, 0, [size[1] - 2, size[0] - 2])
    right, bottom = np.clip(high, [left + 2, top + 2], [size[1], size[0]])
    return slice(int(top), int(bottom)), slice(int(left), int(right))


def _local(aperture: Aperture, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = x - np.float32(aperture.middle[0]), y - np.float32(aperture.middle[1])
    (ax, ay), (dx, dy) = aperture.axis.astype(np.float32), aperture.down.astype(np.float32)
    return x * ax + y * ay, x * dx + y * dy


def _fields(motion: MouthMotion, box: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
    """Backward displacements (2, h, w) float32 of each pixel of a box, with the skin above and below the lips."""
    rows, columns = box
    eyes = motion.eye_distance
    y, x = (
        np.linspace(
            side.start, side.stop, max(3, int(np.ceil(NODES_PER_EYE_DISTANCE * (side.stop - side.start) / eyes)))
        )
        for side in box
    )
    nodes = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    sides = np.minimum(np.minimum(nodes - nodes[0], nodes[-1] - nodes)[:, 0], (nodes[-1] - nodes)[:, 1])
    fade = smoothstep(0, FADE * eyes, sides)[:, None].astype(np.float32)
    up, across = _upsampling(len(y), rows.stop - rows.start), _upsampling(len(x), columns.stop - columns.start)
    fields = []
    for mix in _mixes():
        moved = mix @ motion.moved
        sites, anchors = _sites(motion.points, moved)
        values = np.concatenate([-_site_values(moved), np.zeros_like(anchors)])
        field = _interpolated(np.concatenate([sites, anchors]), values, nodes, SOFTNESS * eyes) * fade
        grid = field.reshape(len(y), len(x), 2)
        fields.append(torch.stack([up @ grid[..., k] @ across.T for k in range(2)]).numpy())
    return fields[0], fields[1]


def _interpolated(sites: np.ndarray, values: np.ndarray, nodes: np.ndarray, softness: float) -> torch.Tensor:
    """Values (Q, 2) float32 at nodes (Q, 2) by multiquadrics through values (N, 2) at sites (N, 2), with a constant.

    In torch, of which a worker uses one thread: NumPy's library would start as many in each worker as there are cores.
    """
    count = len(sites)
    middle = sites.mean(axis=0)  # squares of small numbers keep their digits in single precision
    places, asked = (torch.from_numpy(rows - middle).float() for rows in (sites, nodes))
    system = torch.ones(count + 1, count + 1)
    system[:count, :count] = RIDGE * torch.eye(count) - _multiquadric(places, places, softness)
    system[count, count] = 0
    weights = torch.linalg.solve(system, torch.from_numpy(np.concatenate([values, np.zeros((1, 2))])).float())
    return weights[count] - _multiquadric(asked, places, softness) @ weights[:count]


def _multiquadric(a: torch.Tensor, b: torch.Tensor, softness: float) -> torch.Tensor:
    square = torch.addmm((a**2).sum(1)[:, None] + (b**2).sum(1), a, b.T, alpha=-2)
    return square.clamp_(min=0).div_(softness**2).add_(1).sqrt_()


def _upsampling(nodes: int, pixels: int) -> torch.Tensor:
    """(pixels, nodes) float32: linear interpolation at pixel centres between nodes that lie on both borders."""
    place = (np.arange(pixels) + 0.5) / pixels * (nodes - 1)
    low = np.minimum(place.astype(int), nodes - 2)
    matrix = np.zeros((pixels, nodes), np.float32)
    matrix[np.arange(pixels), low] = 1 - (place - low)
    matrix[np.arange(pixels), low + 1] = place - low
    return torch.from_numpy(matrix)


def _sites(points: np.ndarray, moved: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places after the movement of landmarks and of rings below the face, and the places that stay."""
    sites, oval, anchors = _chosen()
    edge = points[oval]
    centre = points[sites].mean(axis=0)
    rings = [centre + (edge - centre) * (1 + away) for away, _ in RINGS]
    moving = [ring + part * moved[oval] for ring, (_, part) in zip(rings[:-1], RINGS[:-1], strict=True)]
    return np.concatenate([points[sites] + moved[sites], *moving]), np.concatenate([rings[-1], points[anchors]])


def _site_values(moved: np.ndarray) -> np.ndarray:
    sites, oval, _ = _chosen()
    return np.concatenate([moved[sites], *(part * moved[oval] for _, part in RINGS[:-1])])


@cache
def _mixes() -> tuple[np.ndarray, np.ndarray]:
    return parted_lips()


@cache
def _chosen() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers of the landmarks that move, those of the oval around them, and those above that stay."""
    canonical = face_mesh().vertices
    below = canonical[:, 1] < LOWER_FROM
    oval = np.array([vertex for vertex in FACE_OVAL if below[vertex]])
    sites = np.union1d(np.flatnonzero((np.abs(canonical[:, 0]) < BESIDE_MOUTH) & below), oval)
    above = np.flatnonzero(~below & (canonical[:, 1] < ANCHORS_TO))
    return sites, oval, above[::3]
