"""How much more blurred one frame of a film is than another, by the nose, which no word moves.

A film whose focus or movement changes blurs a mouth; what is drawn in it comes from another frame. How much detail a
nose has follows its light and its turn too, so that fine detail counts over that which a blur leaves, along each axis.
"""

from __future__ import annotations

import numpy as np

from ....image.luma import LUMA
from ....packages import load_opencv

NOSE, BELOW_NOSE = [1, 2, 4, 5, 98, 327], 2
WIDTH, BELOW = 0.6, 0.05
"""Eye distances: side of the square that is looked at, and how far it reaches below the nose."""
SIDE, LEAST_SIDE = 64, 8
"""Places along the square, and pixels of it from which on it says something."""
COARSE, MARGIN = 2.5, 4
"""Places by which a blur leaves coarse detail only, as a standard deviation, and those beside the border that it mixes
with it."""
BLURS = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
"""Places of blurs that are tried, as standard deviations."""
SLIGHT, LEAST_PIXELS = 0.01, 0.75
"""Blur in eye distances, and in pixels, of which nothing is made: frames of two sharp films differ by 0.007 at most in
nine of ten, as a head nods, and a smaller face has coarser pixels."""


def nose_detail(frame: np.ndarray, points: np.ndarray, eye_distance: float) -> np.ndarray | None:
    """Fine detail (2,) of a nose along x and y over the coarse one; None where it is too small or outside.

    From a frame (H, W, 3), bytes or floats in 0..1, and landmarks (468 or more, 2 or 3) in its pixels.
    """
    nose = _nose(frame, points, eye_distance)
    return None if nose is None else np.array([_detail(nose, axis) for axis in (0, 1)])


def nose_details(frame: np.ndarray, points: np.ndarray, eye_distance: float) -> np.ndarray | None:
    """The same (BLURS, 2) as if the frame were blurred along one axis by each of BLURS; never rising."""
    nose = _nose(frame, points, eye_distance)
    if nose is None:
        return None
    detail = [[_detail(_blurred(nose, axis, blur), axis) for axis in (0, 1)] for blur in BLURS]
    return np.minimum.accumulate(np.array(detail), axis=0)


def further_blur(sharp: np.ndarray, detail: np.ndarray, eye_distance: float) -> np.ndarray:
    """Pixels (2,), as standard deviations along x and y, by which a frame of this `detail` is more blurred than one
    whose `nose_details` are `sharp`; 0 where that is slight.
    """
    blur = np.array([np.interp(-detail[axis], -sharp[:, axis], BLURS) for axis in (0, 1)])
    slight = max(SLIGHT * eye_distance, LEAST_PIXELS)
    return np.sqrt(np.maximum((blur * WIDTH * eye_distance / SIDE) ** 2 - slight**2, 0))


def blurred(picture: np.ndarray, blur: np.ndarray) -> np.ndarray:
    """A picture (H, W) or (H, W, C) blurred by so many pixels (2,) along x and y."""
    x, y = np.maximum(blur, 0.01).tolist()
    return load_opencv().GaussianBlur(picture, (0, 0), sigmaX=x, sigmaY=y)


def _nose(frame: np.ndarray, points: np.ndarray, eye_distance: float) -> np.ndarray | None:
    """The nose's brightness (SIDE, SIDE), or None."""
    middle, bottom = float(points[NOSE, 0].mean()), float(points[BELOW_NOSE, 1]) + BELOW * eye_distance
    half = WIDTH / 2 * eye_distance
    left, right = (int(np.clip(round(x), 0, frame.shape[1])) for x in (middle - half, middle + half))
    top, low = (int(np.clip(round(y), 0, frame.shape[0])) for y in (bottom - 2 * half, bottom))
    if min(right - left, low - top) < max(LEAST_SIDE, half):
        return None
    cv2 = load_opencv()
    way = cv2.INTER_AREA if right - left > SIDE else cv2.INTER_CUBIC
    square = cv2.resize(frame[top:low, left:right], (SIDE, SIDE), interpolation=way)
    return square.astype(np.float32) @ LUMA


def _detail(nose: np.ndarray, axis: int) -> float:
    """Changes of brightness along an axis, 0 for x, over those that a blur along it leaves."""
    fine, coarse = (
        float((np.diff(picture, axis=1 - axis)[MARGIN:-MARGIN, MARGIN:-MARGIN] ** 2).mean())
        for picture in (nose, _blurred(nose, axis, COARSE))
    )
    return fine / max(coarse, 1e-12)


def _blurred(nose: np.ndarray, axis: int, blur: float) -> np.ndarray:
    return blurred(nose, blur * np.eye(2)[axis])
