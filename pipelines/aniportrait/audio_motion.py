"""Sound to head movement and to the shape of the face, as AniPortrait plans it: 30 frames a second."""

from __future__ import annotations

from dataclasses import dataclass

CHUNK_SAMPLES, CHUNK_FRAMES = 80000, 150
"""Audio2Pose runs on five seconds at a time, at 16 kHz and 30 frames a second."""


@dataclass(frozen=True)
class Chunk:
    """`samples` of audio that become `frames` of head poses."""

    samples: int
    frames: int


def plan_chunks(samples: int, frames: int) -> list[Chunk]:
    """Pieces of `samples` at 16 kHz and `frames` poses that Audio2Pose makes one after the other.

    Pieces of five seconds, the last two joined. The published plan is the same but for two mishaps that are mended
    here: it fails where there is one piece only, and where the last frame completes a piece, that piece gets no poses.
    """
    pieces = max(-(-samples // CHUNK_SAMPLES), 1)
    whole = max(pieces - 2, 0)
    return [
        *[Chunk(CHUNK_SAMPLES, CHUNK_FRAMES)] * whole,
        Chunk(samples - whole * CHUNK_SAMPLES, frames - whole * CHUNK_FRAMES),
    ]
