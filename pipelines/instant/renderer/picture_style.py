"""What kind of picture a face is in, as far as something painted into it must match: sharpness, grain, drawn, stone.

Numbers that name no source were chosen on some thirty pictures: photographs, paintings, drawings, renderings, statues.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ....models.curves import smoothstep
from ....models.face.face_mesh import CHEEKS, FACE_OVAL, LEFT_EYE, LIPS_INNER, LIPS_OUTER, RIGHT_EYE
from ...image.luma import LUMA
from ...progress import check_interrupted
from .face_opening import colours_along, eye_opening, inside_ring

SKIN = (*CHEEKS, 187, 411, 199, 200)
"""Cheeks and chin."""
LOWER_LIP = (*LIPS_OUTER[10:], LIPS_OUTER[0], LIPS_INNER[0], *LIPS_INNER[:9:-1])
"""The ring around the lower lip's red."""
LIPS = (0, 17, 37, 267, 84, 314, 16, 85, 315, 11)
MIDDLE_OF_FACE = 0.8
"""Part of a face's outline within which there is no hair and no background, mostly."""
GRAIN_SIDE = 0.22
"""Side of the piece of skin whose grain is taken, in eye distances."""
SHARPEST, BLUNTEST = 0.5, 8.0
"""Limits of the measured blur, pixels."""
SHARP = 1.0
"""Blur up to which a picture is sharp, pixels."""
BLUR_STEPS, COARSER = (1.0, 2.0, 4.0), 2.5
"""Pixels by which a picture is blurred more to measure its blur, and the multiple of them up to which that is good."""
LEAST_EYE, LEAST_SHARP_EYE = 14, 16
"""Width of an eye below which its iris may not be visible: pixels, and over the picture's blur."""
ONE_MATERIAL = 0.12, 0.08
"""`hues` up to which a face may, and up to which it can fully, be of one material, which has few."""
LEAST_TEETH = 0.015
"""Area between the lips, of a square of the eye distance, from which they can show teeth."""
DARKEST_PART, BLACK_SAMPLES, MOST_BLACK = 0.01, 60_000, 0.3
"""Part of a picture's pixels that is its darkest, how many are looked at, about, and the lightest that black may be."""
DARKEST_HUE = 0.08
"""Light below which a pixel's hue says nothing."""
WHITENESS, OF_SKIN, OF_LIGHT = 1.12, 0.54, 0.28
"""Brightness of the brightest teeth, over these powers of the skin's and of the brightest skin's. Fitted to 15 smiles,
which are off by 7 % (each by the others' fit): skin is dark for want of light, or by itself, and teeth only by that."""
TEETH_BETWEEN = 0.2, 0.95
"""Least and most of that brightness."""
OVER_LIP = 1.25
"""Brightness over the lower lip's that teeth have at least, as they are in the same light, where it is not the face's:
of 96 open mouths that show teeth three quarters have more."""
TEETH_OVER_SKIN = 1.25
"""That brightness over the skin's, on faces of light skin."""
FEWEST_WHITES = 30
"""Pixels of both eyes from which on their whites tell the light's colour."""


@dataclass(frozen=True)
class PictureStyle:
    """`blur` (pixels) is the standard deviation of the Gaussian that sharp edges went through.

    `grain` (h, w) is what a piece of plain skin has beyond its smooth shading. `drawn` and `stone` in 0..1: how much
    the face looks like flat colours, or like a statue. `hues` is how much of its colours, of white, its brightness does
    not explain: 0 in grey and in sepia. `black` (3,) is the colour of its darkest places, which is not black in a faded
    or hazy picture.
    """

    blur: float
    grain: np.ndarray
    drawn: float
    stone: float
    hues: float
    black: np.ndarray

    @property
    def more_blur(self) -> float:
        """Pixels by which what is drawn as in a sharp picture is to be blurred: it gets wider, and fainter by that."""
        return max(self.blur - SHARP, 0.0)

    @classmethod
    def of(cls, picture: np.ndarray, points: np.ndarray, eye_distance: float) -> PictureStyle:
        """From a picture (H, W, 3) in 0..1 with a face at `points` (468, 2)."""
        grain = _grain(picture, points, eye_distance)
        blur, hues = _blur(picture, points), _hues(picture, points)
        stone = _stone(picture, points, blur) * float(smoothstep(*ONE_MATERIAL, np.float64(hues)))
        stone *= 1 - _bare_teeth(picture, points, eye_distance)
        drawn = _drawn(picture, points)
        # Flat colours are no statue's, however few they are.
        return cls(blur, grain, drawn, stone * (1 - drawn), hues, _black(picture))


def median_colour(picture: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Median colour (3,) at positions (N, 2)."""
    height, width = picture.shape[:2]
    x = np.clip(points[:, 0].astype(int), 0, width - 1)
    y = np.clip(points[:, 1].astype(int), 0, height - 1)
    return np.median(picture[y, x], axis=0).astype(np.float64)


def skin_colour(picture: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Colour (3,) of the skin of a face with landmarks `points` (N, 2)."""
    return median_colour(picture, points[list(SKIN)])


def skin_brightness(picture: np.ndarray, points: np.ndarray) -> float:
    """Brightness of the skin of a face with landmarks `points` (N, 2)."""
    return float(skin_colour(picture, points) @ LUMA)


def teeth_brightness(picture: np.ndarray, points: np.ndarray) -> float:
    """Brightness that the brightest teeth of a face with landmarks `points` (N, 2) have in a smile."""
    skin = skin_brightness(picture, points)
    brightest = float(np.quantile(face_pixels(picture, points, MIDDLE_OF_FACE) @ LUMA, 0.95))
    lip = pixels_inside(picture, points[list(LOWER_LIP)]) @ LUMA
    least = OVER_LIP * float(np.median(lip)) if len(lip) else 0.0
    return float(np.clip(max(WHITENESS * skin**OF_SKIN * brightest**OF_LIGHT, least), *TEETH_BETWEEN))


def plain_brightness(picture: np.ndarray, points: np.ndarray) -> float:
    """Brightness of light skin in the light of a face: `skin_brightness`, but where the skin is dark."""
    return teeth_brightness(picture, points) / TEETH_OVER_SKIN


def blue_of_whites(eyes: np.ndarray) -> float:
    """Blue over green of the whites of the eyes, from the pixels (N, 3) inside the lids; 1 where it can't be seen."""
    if len(eyes) < FEWEST_WHITES:
        return 1.0
    light = eyes @ LUMA
    least, most = np.quantile(light, (0.7, 0.95))
    if least < DARKEST_HUE:
        return 1.0
    # Highlights are left out, then skin and iris as what is most coloured.
    bright = eyes[(light >= least) & (light <= most)]
    colour = np.ptp(bright, axis=1) / bright.max(axis=1)
    white = bright[colour <= np.median(colour)].mean(axis=0)
    return float(white[2] / max(white[1], 1e-3))


def face_pixels(picture: np.ndarray, points: np.ndarray, part: float) -> np.ndarray:
    """Colours (N, 3) of the pixels of a face inside `part` of its outline."""
    oval = points[list(FACE_OVAL)]
    centre = oval.mean(axis=0)
    return pixels_inside(picture, centre + part * (oval - centre))


def pixels_inside(picture: np.ndarray, ring: np.ndarray) -> np.ndarray:
    """Colours (N, 3) of the pixels inside a ring (R, 2) of positions."""
    height, width = picture.shape[:2]
    low = np.clip(np.floor(ring.min(axis=0)).astype(int), 0, [width - 1, height - 1])
    high = np.clip(np.ceil(ring.max(axis=0)).astype(int), 1, [width, height])
    x, y = np.meshgrid(np.arange(low[0], high[0]) + 0.5, np.arange(low[1], high[1]) + 0.5)
    inside = inside_ring(np.stack([x, y], axis=-1), ring)
    return picture[low[1] : high[1], low[0] : high[0]][inside].astype(np.float64)


def _blur(picture: np.ndarray, points: np.ndarray) -> float:
    """Of the two sharpest of eyes and lips: the sharpest may be the rim of a lens, and lips may have no edge."""
    found = []
    for ring in (RIGHT_EYE, LEFT_EYE, LIPS_OUTER):
        check_interrupted()
        places = points[list(ring)]
        margin = 0.25 * np.ptp(places, axis=0).max()
        low = np.clip(places.min(axis=0) - margin, 0, None).astype(int)
        high = (places.max(axis=0) + margin).astype(int) + 1
        light = picture[low[1] : high[1], low[0] : high[0]] @ LUMA
        if min(light.shape) >= 5:
            found.append(_edge_blur(light))
    if not found:
        return SHARPEST
    return float(np.clip(np.exp(np.log(sorted(found)[:2]).mean()), SHARPEST, BLUNTEST))


def _edge_blur(light: np.ndarray) -> float:
    """Pixels, from how much the strongest edges of `light` (h, w) lose when they are blurred more.

    The grain of a blurred picture is as sharp as its pixels, so edges are blurred more there before they are compared.
    """
    from scipy.ndimage import gaussian_filter

    blur = SHARPEST
    for more in BLUR_STEPS:
        slopes = [np.hypot(*np.gradient(layer)) for layer in (light, gaussian_filter(light, more, mode="nearest"))]
        strong = slopes[1] >= np.quantile(slopes[1], 0.97)
        ratio = float(np.median(slopes[0][strong] / np.maximum(slopes[1][strong], 1e-6)))
        blur = min(more / np.sqrt(max(ratio**2 - 1, 1e-4)), BLUNTEST)
        if blur <= COARSER * more:
            break
    return float(blur)


def _grain(picture: np.ndarray, points: np.ndarray, eye_distance: float) -> np.ndarray:
    """Of the plainer cheek."""
    from scipy.ndimage import gaussian_filter

    side = max(4, round(GRAIN_SIDE * eye_distance))
    height, width = picture.shape[:2]
    pieces = []
    for cheek in (CHEEKS[:2], CHEEKS[2:]):
        x, y = (points[list(cheek)].mean(axis=0) - side / 2).astype(int)
        x, y = int(np.clip(x, 0, max(width - side, 0))), int(np.clip(y, 0, max(height - side, 0)))
        light = picture[y : y + side, x : x + side] @ LUMA
        rest = light - gaussian_filter(light, 2.0, mode="nearest")
        limit = 3 * 1.48 * float(np.median(np.abs(rest))) + 1e-6
        pieces.append(np.clip(rest, -limit, limit))
    return min(pieces, key=lambda piece: float(piece.std()))


def _drawn(picture: np.ndarray, points: np.ndarray) -> float:
    """From how much of the face its few most frequent colours cover."""
    face = np.round(face_pixels(picture, points, MIDDLE_OF_FACE) * 64)
    counts = np.sort(np.unique(face, axis=0, return_counts=True)[1])
    return float(smoothstep(0.35, 0.6, counts[-4:].sum() / max(len(face), 1)))


def _hues(picture: np.ndarray, points: np.ndarray) -> float:
    """From how far the face's colours lie off a curve over its brightness."""
    face = face_pixels(picture, points, 1.15)
    check_interrupted()
    light = face @ LUMA
    terms = np.stack([np.ones_like(light), light, light**2], axis=1)
    chroma = face - light[:, None]
    weights = np.linalg.solve(terms.T @ terms + 1e-6 * np.eye(3), terms.T @ chroma)
    return float(np.quantile(np.abs(chroma - terms @ weights).max(axis=1), 0.9)) if len(face) else 0.0


def _stone(picture: np.ndarray, points: np.ndarray, blur: float) -> float:
    """From open eyes without dark irises between brighter whites, and lips of the skin's own hue."""
    width = min(np.ptp(points[list(ring)], axis=0).max() for ring in (RIGHT_EYE, LEFT_EYE))
    if width < max(LEAST_EYE, LEAST_SHARP_EYE * blur):
        return 0.0
    iris = sum(_iris_light(picture, points, ring) for ring in (RIGHT_EYE, LEFT_EYE)) / 2
    skin, lips = skin_colour(picture, points), pixels_inside(picture, points[list(LIPS_OUTER)])
    light = lips @ LUMA
    lit = light > DARKEST_HUE
    if not lit.any():
        return 0.0
    hue = np.median(lips[lit] / light[lit, None], axis=0)
    redder = np.abs(hue - skin / max(float(skin @ LUMA), 1e-3)).max()
    return float(smoothstep(0.7, 0.8, np.float64(iris)) * smoothstep(0.08, 0.04, np.float64(redder)))


def _bare_teeth(picture: np.ndarray, points: np.ndarray, eye_distance: float) -> float:
    """0..1: how surely an open mouth shows teeth, which statues hardly do, and people with narrow eyes mostly."""
    lips = pixels_inside(picture, points[list(LIPS_INNER)]) @ LUMA
    if len(lips) < LEAST_TEETH * eye_distance**2:
        return 0.0
    light = np.quantile(lips, 0.7) / max(skin_brightness(picture, points), 1e-3)
    return float(smoothstep(0.6, 0.8, light))


def _black(picture: np.ndarray) -> np.ndarray:
    """Mean colour (3,) of the darkest pixels."""
    height, width = picture.shape[:2]
    step = max(1, int(np.sqrt(height * width / BLACK_SAMPLES)))
    pixels = picture[::step, ::step].reshape(-1, 3)
    light = pixels @ LUMA
    return np.minimum(pixels[light <= np.quantile(light, DARKEST_PART)].mean(axis=0), MOST_BLACK).astype(np.float64)


def _iris_light(picture: np.ndarray, points: np.ndarray, ring: tuple[int, ...]) -> float:
    """Light of an eye's darkest place beside that of the darker of its two sides: 1 without an iris."""
    from scipy.ndimage import gaussian_filter1d

    eye = eye_opening(points, ring)
    # The upper lid's shadow is left out.
    heights = [eye.upper + share * (eye.lower - eye.upper) for share in (0.45, 0.6, 0.75)]
    light = np.mean([colours_along(picture, eye, line, np.zeros(1))[:, 0] @ LUMA for line in heights], axis=0)
    light = gaussian_filter1d(light, 0.05 * len(light))
    corner, border = len(light) // 7, len(light) // 4
    light = light[corner:-corner]
    darkest = border + int(np.argmin(light[border:-border]))
    return float(light[darkest] / max(min(light[: darkest + 1].max(), light[darkest:].max()), 1e-3))
