"""Squares cut out of pictures of bytes by OpenCV, for networks that run once for each frame of a video."""

from __future__ import annotations

import math

import numpy as np

from ..packages import load_opencv
from ..progress import check_interrupted
from .affine_sampling import map_corners, map_scale

DENSE = 2
"""Samples along a side of each pixel of the square, of which the mean is taken, where the picture is shrunk."""
MOST_SHRINKING = 3.0
"""Where the square's pixels are larger, the picture is first made smaller, to pixels of half that size."""


def cut_out(picture: np.ndarray, square: np.ndarray, side: int) -> np.ndarray:
    """The square (side, side, 3) uint8 of `picture` (H, W, 3) uint8 that the map `square` (2, 3) points at.

    As `sample_picture` has it, several times as fast; the picture's outermost pixels go on outside of it.
    """
    check_interrupted()
    cv2 = load_opencv()
    scale = map_scale(square)
    if scale > MOST_SHRINKING:
        picture, square = _smaller(picture, square, side, math.ceil(scale / DENSE))
    dense = DENSE if scale > 1 else 1
    samples_side = side * dense
    matrix = opencv_map(square / [dense, dense, 1])
    way = (cv2.INTER_CUBIC if dense == 1 else cv2.INTER_LINEAR) | cv2.WARP_INVERSE_MAP
    samples = cv2.warpAffine(picture, matrix, (samples_side, samples_side), flags=way, borderMode=cv2.BORDER_REPLICATE)
    return samples if dense == 1 else cv2.resize(samples, (side, side), interpolation=cv2.INTER_AREA)


def opencv_map(matrix: np.ndarray) -> np.ndarray:
    """A map (2, 3) for OpenCV, whose pixel centres are whole numbers."""
    return np.column_stack([matrix[:, :2], matrix[:, 2] + matrix[:, :2].sum(axis=1) / 2 - 0.5])


def _smaller(picture: np.ndarray, square: np.ndarray, side: int, times: int) -> tuple[np.ndarray, np.ndarray]:
    """The part of a picture around a square, so many times smaller, and the map of the square to it."""
    cv2 = load_opencv()
    whole = np.array(picture.shape[1::-1])
    corners = map_corners(square, (side, side))
    first = np.clip(np.floor(corners.min(axis=0)).astype(int) - times, 0, whole - 1)
    last = np.clip(np.ceil(corners.max(axis=0)).astype(int) + times, first + 1, whole)
    # Blocks lie on a grid of the picture's own, so that they don't shimmer when the square moves.
    first = first // times * times
    part = picture[first[1] : last[1], first[0] : last[0]]
    right, below = (-(last - first) % times).tolist()
    part = cv2.copyMakeBorder(part, 0, below, 0, right, cv2.BORDER_REPLICATE)
    size = (part.shape[1] // times, part.shape[0] // times)
    moved = np.column_stack([square[:, :2], square[:, 2] - first]) / times
    return cv2.resize(part, size, interpolation=cv2.INTER_AREA), moved
