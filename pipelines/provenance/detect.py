"""Finds the invisible mark in a video that may have been compressed, scaled, cropped or mirrored.

Frames are averaged once everything that is not like the pattern is taken out: what moves goes, and the mark, which
stays, adds up. Then the average is laid over the pattern in every size and at every place, by phase correlation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..files.video import open_video
from ..image.luma import LUMA
from ..packages import load_opencv
from ..types import Progress, no_progress
from .pattern import TILE, TILES, tile, tile_side

THRESHOLD = 6.2
"""Standard deviations by which the highest correlation of one segment exceeds the mean of all places. Without a mark
the highest of some 2,000,000 places and sizes is about 5."""
LONGEST_SHORTER_SIDE = 512
"""Pixels; larger frames are averaged down."""
LOOKS_A_SECOND = 2
SEGMENT = 40
"""Frames that are averaged; each segment is searched for the mark."""
SIZES = (0.55, 1.0)
"""Of the smallest tile that a whole picture can have, and of the picture: margins were added, or the border cut off."""
STEP = 0.004
"""By which tiles differ in size from one to the next: less than shifts a tile's waves at the picture's border."""
AROUND = 2.5
"""Pixels of the tile over which the strength of a picture's own waves is averaged."""
BLURS = (0.8, 2.0)
"""Pixels of the tile: the pattern is in the difference of pictures blurred by these. Tuned for copies at half the size,
whose waves are half as long; whole pictures lose nothing."""
FLOOR = 0.4
"""Levels of 255; weaker waves are rounding."""
LIMIT = 2.5
"""Standard deviations to which one pixel of one frame counts at most."""


@dataclass(frozen=True)
class Detection:
    """`score`: the highest of all segments, in standard deviations; `marked` of them reach `threshold(segments)`."""

    score: float
    marked: int
    segments: int

    @property
    def found(self) -> bool:
        return self.marked > 0


def threshold(segments: int) -> float:
    """The score needed in a video of so many segments: the more are searched, the higher the highest without a mark.

    A normal distribution's tail falls as exp(-score^2 / 2), so the share of unmarked videos in which the mark seems to
    be stays what it is for one segment.
    """
    return math.sqrt(THRESHOLD**2 + 2 * math.log(max(1, segments)))


def detect_mark(path: str | Path, *, progress: Progress = no_progress) -> Detection:
    """Looks for the invisible mark. Raises TalkingPortraitError for what is no video or is damaged."""
    video = open_video(path)
    every = max(1, round(video.fps / LOOKS_A_SECOND))
    scores: list[float] = []
    total: np.ndarray | None = None
    count = 0
    stated = video.stated_frames
    for number, frame in enumerate(video.frames()):
        if number % every == 0:
            seen = _like_the_pattern(frame)
            total = seen if total is None else total + seen
            count += 1
            if count == SEGMENT:
                scores.append(score(total))
                total, count = None, 0
        progress(number + 1, stated and max(stated, number + 1))
    if total is not None and (count >= SEGMENT // 4 or not scores):
        scores.append(score(total))
    return Detection(max(scores), sum(each >= threshold(len(scores)) for each in scores), len(scores))


def _like_the_pattern(frame: np.ndarray) -> np.ndarray:
    """What of a frame (H, W, 3) has the pattern's waves, evened out; smaller where the frame is large."""
    cv2 = load_opencv()
    grey = frame.astype(np.float32) @ LUMA
    shrink = min(grey.shape) / LONGEST_SHORTER_SIDE
    if shrink > 1:
        size = round(grey.shape[1] / shrink), round(grey.shape[0] / shrink)
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    pixel = tile_side(grey.shape) / TILE

    def blurred(values: np.ndarray, sigma: float) -> np.ndarray:
        return cv2.GaussianBlur(values, (0, 0), sigma)

    waves = blurred(grey, BLURS[0] * pixel) - blurred(grey, BLURS[1] * pixel)
    # Where much else has such waves, the pattern is less certain: pixels are divided by that to the power of 1.5, which
    # found more than 1 and 2 in small pictures.
    usual = np.sqrt(blurred(waves * waves, AROUND * pixel) + FLOOR**2)
    return np.clip(waves / usual, -LIMIT, LIMIT) / np.sqrt(usual)


def score(seen: np.ndarray) -> float:
    """The highest phase correlation with the pattern, over sizes and places, in standard deviations over the mean."""
    best = 0.0
    patterns = _spectra()
    for side in _tile_sides(min(seen.shape)):
        spectrum = np.fft.rfft2(_folded(seen, side))
        spectrum /= np.maximum(np.abs(spectrum), 1e-9)
        for pattern in patterns:
            places = np.fft.irfft2(spectrum * pattern, s=(TILE, TILE))
            best = max(best, float((places.max() - places.mean()) / max(float(places.std()), 1e-12)))
    return best


@cache
def _spectra() -> tuple[np.ndarray, np.ndarray]:
    """Conjugate spectra of the tile, as it is and mirrored."""
    upright, mirrored = (np.conj(np.fft.rfft2(each)) for each in (tile(), tile()[:, ::-1]))
    return upright, mirrored


def _tile_sides(shorter: int) -> Iterator[float]:
    """The sizes in pixels that a tile may have in a picture whose shorter side is this."""
    side, largest = SIZES[0] * shorter / TILES, SIZES[1] * shorter
    while side <= largest:
        yield side
        side *= 1 + STEP


def _folded(seen: np.ndarray, side: float) -> np.ndarray:
    """All tiles of `side` pixels laid over each other, (TILE, TILE)."""
    cv2: Any = load_opencv()
    scale = TILE / side
    size = max(1, round(seen.shape[1] * scale)), max(1, round(seen.shape[0] * scale))
    scaled = cv2.resize(seen, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    rows, columns = (-(-length // TILE) for length in scaled.shape)
    whole = np.zeros((rows * TILE, columns * TILE), np.float32)
    whole[: scaled.shape[0], : scaled.shape[1]] = scaled
    return whole.reshape(rows, TILE, columns, TILE).sum(axis=(0, 2))
