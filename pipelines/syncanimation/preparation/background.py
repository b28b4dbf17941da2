"""What is behind the person: each pixel from the frames in which the person is farthest from it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ...packages import load_opencv
from ..avatar import BACKGROUND_PART

CLEAR = 6 / 512
"""Distance from the person, in sides of the picture, from which on a pixel is seen without anything of the person."""
MOST_FRAMES = 72
"""Frames whose median is taken."""
COARSE = 64
"""Side of the picture in which what is never seen is filled in."""


def clean_background(seen: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, float]:
    """The background (S, S, 3) uint8 of at most MOST_FRAMES frames (S, S, 3) with their parts (S, S).

    Also the part of the picture that is never seen, which is filled in from around.
    """
    cv2 = load_opencv()
    frames, distances = [], []
    for frame, parts in seen:
        free = cv2.copyMakeBorder((parts == BACKGROUND_PART).astype(np.uint8), 0, 1, 0, 0, cv2.BORDER_CONSTANT, value=1)
        frames.append(frame)
        distance = cv2.distanceTransform(free, cv2.DIST_L2, 3)[:-1]
        distances.append(np.minimum(distance, len(frame)).astype(np.float16))  # no end where there is no person
    pictures, away = np.stack(frames), np.stack(distances)
    size = pictures.shape[1]
    farthest = away.max(axis=0)
    background = np.empty(pictures.shape[1:], np.uint8)
    for row in range(size):  # one row at a time: a median needs several times its memory
        enough = away[:, row] >= np.minimum(CLEAR * size, farthest[row])
        values = np.where(enough[..., None], pictures[:, row], np.nan)
        background[row] = np.nanmedian(values, axis=0)
    known = farthest >= min(2, CLEAR * size)
    return fill_in(background, known), float(1 - known.mean())


def fill_in(picture: np.ndarray, known: np.ndarray) -> np.ndarray:
    """`picture` (S, S, 3) uint8 with all that is not `known` (S, S) filled in smoothly from around it."""
    cv2 = load_opencv()
    if known.all() or not known.any():
        return picture
    size = len(picture)
    weight = known.astype(np.float32)
    small = min(COARSE, size)
    share = cv2.resize(weight, (small, small), interpolation=cv2.INTER_AREA)
    colours = cv2.resize(picture * weight[..., None], (small, small), interpolation=cv2.INTER_AREA)
    colours = np.uint8(np.clip(colours / np.maximum(share, 1e-3)[..., None], 0, 255))
    colours = cv2.inpaint(colours, np.uint8(share < 0.3), 3, cv2.INPAINT_TELEA)
    filled = cv2.resize(colours, (size, size), interpolation=cv2.INTER_CUBIC)
    soft = cv2.GaussianBlur(cv2.erode(weight, np.ones((3, 3))), (0, 0), max(0.6, size / 256))[..., None]
    return np.uint8(np.where(known[..., None], soft * picture + (1 - soft) * filled, filled))
