"""Which part of a filmed lower face something else hides: a hand, a microphone, a pen, a mug, hair.

The film itself says how the face looks: the median of its textures, and how far they differ from it. What is foreign
differs from it by more than speech and light explain, and comes in from outside the lower face. Found by trying on two
filmed people and two rendered portraits, with and without shapes that are drawn over them, and on films of 19 others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from ....models.curves import smoothstep
from ...packages import load_opencv
from .skin.face_texture import Texture, texture_grid

LEAST_TEXTURES = 12
"""Textures from which on the usual look is certain."""
DARKNESS = 8.0
"""Of 255; what is added before the logarithm, as dark colours are mostly noise."""
LIGHT_ABOVE, LIGHT_STEP = -2.6, 4
"""Height in cm in the canonical head above which the face says how it is lit, and every how many texels are used."""
LIGHT_ROUNDS, LIGHT_SLOPE = 5, 0.03
"""Rounds of the robust fit, and how much is against a light that differs from side to side."""
DETAIL = 4.0
"""Texels; standard deviation of the blur that is subtracted to leave edges."""
OTHER_COLOUR = (0.3, 0.06, 0.06)
"""What brightness and two differences of colours, all logarithms, vary by without being another thing: shadows fall."""
SKIN_LIKE = (0.12, 0.03, 0.03, 0.03)
"""The same, and edges, for what has the colour of skin."""
MOST_ODD = 25.0
"""Squares of variations that one texel counts at most for one of these."""
COLOUR_CAP, COLOUR_LEAST, COLOUR_SURE, COLOUR_BLUR = 16.0, 8.0, 12.0, 1.2
"""Sum of squares that a texel counts at most, that texels of another thing have, that some of them have, and texels of
the blur before."""
COLOUR_MORE, SAME_COLOUR, NEAR = 2.5, 0.4, 6.0
"""What texels beside another thing have that are of its colour, how far logarithms of colours then differ, and the
texels over which its colour is averaged: lips vary so much that they are odd late."""
LEAST_NEAR = 1e-3
"""Part of the texels around that must be another thing for its colour to be said."""
SKIN_CAP, SKIN_LEAST, SKIN_SURE, SKIN_BLUR = 8.0, 1.3, 1.9, 5.0
"""The same for what has the colour of skin."""
SURE_TEXELS, EDGE_TEXELS = 6, 2
"""Texels that are sure, and that lie on the edge of the lower face, of each thing in front of it."""
AROUND_COLOUR = 11
"""Texels around another colour where edges say nothing more."""
CLOSED = 9
"""Texels; gaps that are filled."""
WINDOWS, WINDOW_HALF, WINDOW_TOP, WINDOW_BOTTOM = (-2.0, -1.0, 0.0, 1.0, 2.0), 0.8, -3.2, -6.0
"""Cm in the canonical head: parts of the mouth that are compared with their usual look as pictures."""
WINDOW_WAYS = (2, 4)
"""Texels across and down that such a part may have moved."""
HIDDEN_BELOW = 0.45
"""Correlation with their usual looks below which such parts are hidden: four fingers have 0.1 to 0.35, lips that purse
or blur down to 0.45 in films of 19 people."""
ALIKE, LOOKS = 0.72, 8
"""Correlation with the median from which on a mouth is not hidden, and how many of those are compared with."""
LEAST_CLOSED, CLOSED_AMONG = 4, 6
"""Frames with the least opening whose median is the look of shut lips, at least, and of how many one is taken."""
LIPS_LEFT, LEAST_REDNESS, MIDDLE, AROUND_LIPS = 0.7, 0.03, 1.8, (5, 13)
"""Part of the usual redness, or of the least that lips have, that shut ones have: fingers before them have none. It is
measured within so many cm of the middle, against texels between these widths around the lips."""
LIPS_SEEN, REDDEST = 0.5, 75
"""Part of the usual redness above which a part of the mouth shows its lips, teeth or not, and the percentile of its
texels by which it is told: fingers have up to 0.27, lips of 26 films hardly less than 0.6."""
RIM = 3
"""Texels across by which what is hidden is widened, as edges are blurred."""
EITHER_SIDE = 2
"""Frames before and after that are looked at."""
HIDDEN_FROM, HIDDEN_TO = 0.4, 0.65
"""Parts of the lips that are hidden from which on a frame is left as filmed, to which it wholly is."""


@dataclass(frozen=True)
class Oddness:
    """How much one frame's face differs from its usual look.

    `other` (H, W) bool is what has another colour. `skin` (H, W) bool what has that of skin, if the mouth is hidden by
    it. `light` (H, W, 3) is the logarithm of the light on it, against the usual.
    """

    other: np.ndarray
    skin: np.ndarray
    light: np.ndarray


@dataclass(frozen=True)
class Appearance:
    """The usual look of a film's lower face.

    `usual` (H, W, 3) logarithms of colours, and squares of the variation of brightness, two differences of colours and
    edges (H, W, 4). `mouths` are looks (H, W, 3) of the mouth, the usual one first: closed, open, pursed. `redness` of
    the parts of the mouth (5,), as lips have it and skin has not.
    """

    usual: np.ndarray
    variation: np.ndarray
    mouths: list[np.ndarray]
    redness: np.ndarray

    @classmethod
    def of(cls, textures: Sequence[Texture]) -> Appearance | None:
        """From textures of frames of all of a film, or None where there are too few."""
        if len(textures) < LEAST_TEXTURES:
            return None
        cv2 = load_opencv()
        colours = np.stack([_logarithms(texture) for texture in textures])
        usual = np.median(colours, axis=0)
        even = np.full((*usual.shape[:2], 1), 0.1, np.float32)
        for _ in range(2):
            for colour, texture in zip(colours, textures, strict=True):
                colour -= _light(colour - usual, texture.visible, even)
            usual = np.median(colours, axis=0)
        features = np.stack([_features(colour - usual) for colour in colours])
        features -= np.median(features, axis=0)
        deviation = 1.4826 * np.median(np.abs(features), axis=0)
        spread = cv2.GaussianBlur(cv2.dilate(deviation, np.ones((3, 3), np.uint8)), (0, 0), 1.0)
        looks = [_lip_colours(_logarithms(texture)) for texture in textures]
        first = _lip_colours(usual)
        alike = np.array([min(_likeness(look, [first])) for look in looks])
        chosen = sorted(np.flatnonzero(alike > ALIKE), key=lambda number: float(alike[number]))
        mouths = [first, *(looks[number] for number in chosen[:LOOKS])]
        least = np.argsort([texture.opening for texture in textures])[: max(LEAST_CLOSED, len(looks) // CLOSED_AMONG)]
        closed = np.median(np.stack([looks[number] for number in least]), axis=0)
        if _redness(closed) > LIPS_LEFT * max(_redness(first), LEAST_REDNESS):
            mouths.append(closed)
        return cls(usual, spread**2, mouths, _redness_of_parts(first))

    def oddness(self, texture: Texture) -> Oddness:
        """How much a frame's texture differs from the usual."""
        cv2 = load_opencv()
        regions = _regions()
        colours = _logarithms(texture)
        difference = colours - self.usual
        skin_like = self.variation + np.square(np.array(SKIN_LIKE, np.float32))
        light = _light(difference, texture.visible, np.sqrt(skin_like[..., :1]))
        squares = np.square(_features(difference - light))
        seen = (texture.visible & regions.compared).astype(np.float32)
        other = squares[..., :3] / (self.variation[..., :3] + np.square(np.array(OTHER_COLOUR, np.float32)))
        blurred = _averaged(np.minimum(other @ np.ones(3, np.float32), COLOUR_CAP), seen, COLOUR_BLUR)
        found = _from_edge(blurred > COLOUR_LEAST, blurred > COLOUR_SURE, regions.outer_edge)
        found = _grown(found, (blurred > COLOUR_MORE) & regions.area, colours)
        around = cv2.dilate(found.astype(np.uint8), np.ones((AROUND_COLOUR, AROUND_COLOUR), np.uint8)) > 0
        odd = np.minimum(squares / skin_like, MOST_ODD) @ np.ones(4, np.float32)
        blurred = _averaged(np.minimum(odd, SKIN_CAP), seen * ~around, SKIN_BLUR)
        like_skin = _from_edge(blurred > SKIN_LEAST, blurred > SKIN_SURE, regions.edge)
        if like_skin.any():
            like_skin = self._hiding(like_skin, found, colours)
        return Oddness(found, like_skin, light)

    def lit(self, light: np.ndarray) -> np.ndarray:
        """The usual colours (H, W, 3) in 0..255 under a light (H, W, 3)."""
        return np.clip(np.exp(self.usual + light) - DARKNESS, 0, 255)

    def _hiding(self, skin: np.ndarray, other: np.ndarray, colours: np.ndarray) -> np.ndarray:
        """What of `skin` (H, W) bool hides a part of the mouth: speech changes lips, but leaves them lips."""
        cv2 = load_opencv()
        _, labels = cv2.connectedComponents(skin.astype(np.uint8))
        hiding = set()
        parts = np.zeros_like(skin)
        look = _lip_colours(colours)
        alike = np.array(_likeness(look, self.mouths))
        lips = (self.redness > LEAST_REDNESS) & (_redness_of_parts(look) > LIPS_SEEN * self.redness)
        for (rows, columns), hidden in zip(_regions().windows, (alike < HIDDEN_BELOW) & ~lips, strict=True):
            within = labels[rows, columns]
            if hidden and (within > 0).mean() > 0.5 and other[rows, columns].mean() < 0.1:
                hiding.update(np.unique(within[within > 0]).tolist())
                parts[rows, columns] = True
        return parts | np.isin(labels, sorted(hiding))


def covered(near: Sequence[Oddness], number: int) -> np.ndarray:
    """(H, W) bool: what is hidden in frame `number` of some that follow each other in a shot."""
    cv2 = load_opencv()
    seen = sum(bool(one.other.any()) for one in near[max(0, number - 1) : number + 2])
    mask = np.mean([one.skin for one in near], axis=0) > 0.5
    if seen > 1 or len(near) == 1:
        mask = mask | near[number].other
    if not mask.any():
        return mask
    closing, rim = (cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)) for side in (CLOSED, RIM))
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, closing, borderType=cv2.BORDER_REPLICATE)
    return (cv2.dilate(closed, rim) > 0) & lower_face()


def lower_face() -> np.ndarray:
    """(H, W) bool: the texels of which it is said whether they are hidden."""
    return _regions().area


def hidden_lips(near: Sequence[Oddness]) -> float:
    """The part in 0..1 of the lips that is hidden, as a mean of frames."""
    lips = _regions().compared_lips
    return float(np.mean([(one.other | one.skin)[lips].mean() for one in near]))


def left_as_filmed(near: Sequence[Oddness]) -> float:
    """How far, in 0..1, a frame in the middle of some others is to stay as filmed: most of its mouth is hidden."""
    return float(smoothstep(HIDDEN_FROM, HIDDEN_TO, np.array(hidden_lips(near))))


def _logarithms(texture: Texture) -> np.ndarray:
    return np.log(texture.colours.astype(np.float32) + np.float32(DARKNESS))


def _features(difference: np.ndarray) -> np.ndarray:
    """(H, W, 4): brightness, two differences of colours, and edges, of logarithms (H, W, 3)."""
    cv2 = load_opencv()
    red, green, blue = np.moveaxis(difference, -1, 0)
    bright = (red + green + blue) / 3
    return np.stack(
        [bright, red - green, (red + green) / 2 - blue, bright - cv2.GaussianBlur(bright, (0, 0), DETAIL)], -1
    )


def _lip_colours(logarithms: np.ndarray) -> np.ndarray:
    bright, red_green, blue_yellow, _ = np.moveaxis(_features(logarithms), -1, 0)
    return np.stack([bright / 2, red_green, blue_yellow], axis=-1)


def _redness(look: np.ndarray) -> float:
    """How much redder the lips are than the skin around them in a look (H, W, 3)."""
    regions = _regions()
    return float(look[regions.lips, 1].mean() - look[regions.around_lips, 1].mean())


def _redness_of_parts(look: np.ndarray) -> np.ndarray:
    """The same (5,) for the reddest of the lips in each part of the mouth: between lips teeth may be seen."""
    regions = _regions()
    skin, lips = np.median(look[regions.around_lips, 1]), regions.compared_lips
    return np.array([np.percentile(look[window][lips[window]][:, 1], REDDEST) for window in regions.windows]) - skin


def _likeness(now: np.ndarray, looks: Sequence[np.ndarray]) -> list[float]:
    """For each part of the mouth, its highest correlation with one of several looks (H, W, 3)."""
    cv2 = load_opencv()
    across, down = WINDOW_WAYS
    result = []
    for rows, columns in _regions().windows:
        search = now[rows.start - down : rows.stop + down, columns.start - across : columns.stop + across]
        result.append(
            max(float(cv2.matchTemplate(search, look[rows, columns], cv2.TM_CCOEFF_NORMED).max()) for look in looks)
        )
    return result


def _light(difference: np.ndarray, visible: np.ndarray, variation: np.ndarray) -> np.ndarray:
    """Light (H, W, 3), even or with a slope, that a difference (H, W, 3) of logarithms has, whatever hides a part."""
    regions = _regions()
    used = regions.lit[visible.ravel()[regions.lit]]
    if not len(used):
        return np.zeros_like(difference)
    slopes = regions.slopes.reshape(-1, 3)
    base, values = slopes[used], difference.reshape(-1, 3)[used]
    scale = variation.ravel()[used]
    against = np.diag([0.0, LIGHT_SLOPE, LIGHT_SLOPE]) * len(used)
    result = np.empty((3, 3), np.float32)
    for channel in range(3):
        fitted = np.array([np.median(values[:, channel]), 0, 0])
        for _ in range(LIGHT_ROUNDS):
            weighted = base / (1 + ((values[:, channel] - base @ fitted) / scale) ** 2)[:, None]
            fitted = np.linalg.solve(weighted.T @ base + against, weighted.T @ values[:, channel])
        result[:, channel] = fitted
    return regions.slopes @ result


def _averaged(values: np.ndarray, weights: np.ndarray, blur: float) -> np.ndarray:
    """Blurred values (H, W) of those texels that have weight."""
    cv2 = load_opencv()
    total = cv2.GaussianBlur(weights, (0, 0), blur)
    return cv2.GaussianBlur(values * weights, (0, 0), blur) / (total + 0.02)


def _from_edge(low: np.ndarray, high: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """The connected parts of `low` (H, W) bool that hold some of `high` and reach an edge of the lower face."""
    cv2 = load_opencv()
    regions = _regions()
    area = (low & regions.area).astype(np.uint8)
    # Where lips meet texels are not compared: a thing that crosses them would come in two.
    across = cv2.morphologyEx(area, cv2.MORPH_CLOSE, np.ones((CLOSED, 1), np.uint8)) * texture_grid().between_lips
    count, labels = cv2.connectedComponents(area | across)
    sure = np.bincount(labels[high & regions.area], minlength=count) >= SURE_TEXELS
    outside = np.bincount(labels[edge], minlength=count) >= EDGE_TEXELS
    kept = sure & outside
    kept[0] = False
    return kept[labels] & (area > 0)


def _grown(found: np.ndarray, more: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """`found` (H, W) bool with the texels connected to it that are of its colour and in `more` (H, W) bool."""
    if not found.any():
        return found
    cv2 = load_opencv()
    weights = found.astype(np.float32)
    total = cv2.GaussianBlur(weights, (0, 0), NEAR)[..., None]
    its_colour = cv2.GaussianBlur(colours * weights[..., None], (0, 0), NEAR) / np.maximum(total, 1e-6)
    alike = (np.abs(colours - its_colour).max(axis=-1) < SAME_COLOUR) & (total[..., 0] > LEAST_NEAR)
    _, labels = cv2.connectedComponents((found | (more & alike)).astype(np.uint8))
    return np.isin(labels, np.unique(labels[found]))


@dataclass(frozen=True)
class _Regions:
    """Masks (H, W) of texels: `area` the lower face, `edge` its edge, `compared` what speech leaves as it is.

    The mesh has no texels along nostrils and between lips. Another colour that begins there, a snarl's fold or the dark
    of a mouth's corner, does not come from outside, over the `outer_edge`; skin over lips may end at them.

    `lit` numbers of texels that say how the face is lit, by light that is even and by slopes (H, W, 3). `windows` rows
    and columns of parts of the mouth; `lips` and `around_lips` are masks of their middle and of the skin beside it, and
    `compared_lips` of all of them that is compared.
    """

    area: np.ndarray
    edge: np.ndarray
    outer_edge: np.ndarray
    compared: np.ndarray
    lit: np.ndarray
    slopes: np.ndarray
    windows: tuple[tuple[slice, slice], ...]
    lips: np.ndarray
    around_lips: np.ndarray
    compared_lips: np.ndarray


@cache
def _regions() -> _Regions:
    from scipy.ndimage import binary_fill_holes

    cv2 = load_opencv()
    grid = texture_grid()
    lower = grid.y < 0.6
    area = cv2.erode((grid.on_face & lower).astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0)
    edge = area - cv2.erode(area, np.ones((5, 5), np.uint8), borderValue=0)
    filled = (binary_fill_holes(grid.on_face) & lower).astype(np.uint8)
    outer_edge = area & (1 - cv2.erode(filled, np.ones((7, 7), np.uint8), borderValue=0))
    lit = np.flatnonzero((grid.on_face & (grid.y > LIGHT_ABOVE)).ravel())[::LIGHT_STEP]
    slopes = np.stack([np.ones_like(grid.x), grid.x / 7, (grid.y + 3) / 7], axis=-1)
    windows = tuple(
        (
            slice(grid.row(WINDOW_TOP), grid.row(WINDOW_BOTTOM)),
            slice(grid.column(x - WINDOW_HALF), grid.column(x + WINDOW_HALF)),
        )
        for x in WINDOWS
    )
    near, far = (cv2.dilate(grid.lips.astype(np.uint8), np.ones((size, size))) > 0 for size in AROUND_LIPS)
    middle = np.abs(grid.x) < MIDDLE
    compared = (area > 0) & ~grid.between_lips
    return _Regions(
        area > 0,
        edge > 0,
        outer_edge > 0,
        compared,
        lit,
        slopes,
        windows,
        grid.lips & middle,
        far & ~near & middle,
        grid.lips & compared,
    )
