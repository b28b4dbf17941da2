"""The pattern of the invisible mark: noise of a narrow band, which repeats in tiles.

It is the same in every video, so that anybody who has this program finds it; it says that a video was made by this
pack and nothing else.
"""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np

TILE = 128
"""Side of a tile in its own pixels."""
TILES = 4
"""Tiles along the shorter side of a large picture, so that the pattern grows with it and a scaled copy keeps it."""
SMALL_TILES = ((0, 0.0), (128, 96.0), (256, 128.0), (512, 128.0))
"""Pixels that a tile takes in smaller pictures, by their shorter side: its waves would else be too fine to outlive
compression at half the size."""
WAVES = (10.0, 20.0)
"""Shortest and longest wave in pixels of the tile: longer than what H.264 drops first, shorter than shading. A band of
one octave: fewer waves, each stronger, outlive coarse quantisation better than more do (8 to 24: two points less)."""
STRENGTHS = ((256, 1.98), (384, 1.5))
"""Root mean square of the change in levels of 255, by the shorter side in pixels: PSNRs of 42.1 and 44.6 dB. A smaller
picture has fewer tiles, whose finer waves compression takes first."""
_KEY = b"talking-portrait luma mark 1"


@cache
def tile() -> np.ndarray:
    """(TILE, TILE) float32 with mean 0 and mean square 1; it continues across its borders."""
    drawn = hashlib.shake_256(_KEY).digest(TILE * TILE // 8)
    noise = np.unpackbits(np.frombuffer(drawn, np.uint8)).reshape(TILE, TILE) * 2.0 - 1
    frequency = np.hypot(np.fft.fftfreq(TILE)[:, None], np.fft.fftfreq(TILE))
    in_band = (frequency >= 1 / WAVES[1]) & (frequency <= 1 / WAVES[0])
    spectrum = np.fft.fft2(noise)
    # Equal power at all frequencies of the band: none is found more easily than others, and none is more visible.
    flat = np.where(in_band, spectrum / np.maximum(np.abs(spectrum), 1e-9), 0)
    pattern = np.fft.ifft2(flat).real
    pattern = (pattern / pattern.std()).astype(np.float32)
    pattern.setflags(write=False)
    return pattern


def strength(size: tuple[int, int]) -> float:
    """Root mean square of the change for a picture (height, width), in levels of 255."""
    sides, changes = zip(*STRENGTHS, strict=True)
    return float(np.interp(min(size), sides, changes))


def tile_side(size: tuple[int, int]) -> float:
    """Pixels of a picture (height, width) that a tile takes."""
    sides, tiles = zip(*SMALL_TILES, strict=True)
    return max(min(size) / TILES, float(np.interp(min(size), sides, tiles)))


def pattern(size: tuple[int, int]) -> np.ndarray:
    """(H, W) float32: tiles from the upper left corner on, scaled for a picture of that size."""
    side = tile_side(size)
    rows, columns = (np.arange(length) * TILE / side for length in size)
    return _sampled(_sampled(tile(), rows).T, columns).T


def _sampled(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Rows of periodic values at places between them, linearly."""
    low = np.floor(places).astype(int)
    part = (places - low)[:, None].astype(np.float32)
    return values[low % TILE] * (1 - part) + values[(low + 1) % TILE] * part
