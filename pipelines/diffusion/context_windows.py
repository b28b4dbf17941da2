"""Context windows: which frames of a long video the network processes together."""

from __future__ import annotations

import math
from fractions import Fraction

from ..errors import TalkingPortraitError


def uniform_windows(
    frames: int, size: int = 16, overlap: int = 4, *, stride: int = 1, step: int = 0
) -> list[list[int]]:
    """Windows of `size` frame numbers, each `overlap` frames into the one before, round and round the video.

    AnimateDiff's context schedule for long videos, by which AniPortrait samples (step 0 and stride 1 at every step).
    The video is taken as a closed loop, so the last windows run on into its beginning. One that fits one window is one.

    Args:
        stride: how many spacings there are, at most: windows of every frame, of every second, every fourth ...
        step: shifts all windows by a share of the video that is distributed evenly over steps.

    Raises TalkingPortraitError unless 0 <= overlap < size.
    """
    check_overlap(size, overlap)
    if frames <= size:
        return [list(range(frames))]
    spacings = min(stride, math.ceil(math.log2(frames / size)) + 1)
    share = _reversed_fraction(step)
    windows = []
    for spacing in (2**i for i in range(spacings)):
        shift = round(frames * share)
        for start in range(int(share * spacing) + shift, frames + shift, size * spacing - overlap):
            windows.append([(start + i * spacing) % frames for i in range(size)])
    return windows


def open_windows(frames: int, size: int = 16, overlap: int = 4, *, step: int = 0, finished: int = 0) -> list[list[int]]:
    """Windows of `size` frame numbers from the first frame to the last, moved with each step so that no seam stays.

    Neighbours share `overlap` frames or more. A video that fits one window is one.

    Args:
        step: moves the windows by a share of their distance that is distributed evenly over steps; 0 doesn't.
        finished: frames at the beginning that need no window; the first window may begin among them.

    Raises TalkingPortraitError unless 0 <= overlap < size.
    """
    check_overlap(size, overlap)
    if frames <= size:
        return [list(range(frames))]
    distance, last = size - overlap, frames - size
    lowest = max(finished - size + 1, 0)
    choices = min(distance, finished - lowest + 1) if finished else distance
    first = lowest + int(_reversed_fraction(step) * choices)
    starts = [] if first <= finished else [0]
    starts += [*range(first, last, distance), last]
    return [list(range(start, start + size)) for start in starts]


def spread_over(frames: int, count: int) -> list[int]:
    """Numbers of `count` frames of a video of `frames`, evenly spread from the first to the last."""
    return [round(Fraction(place * (frames - 1), max(count - 1, 1))) for place in range(count)]


def triangle_weights(size: int) -> list[float]:
    """How much each frame of a window counts where windows overlap: most in the middle, least at the ends, never 0."""
    return [min(place + 1, size - place) / ((size + 1) // 2) for place in range(size)]


def check_overlap(size: int, overlap: int) -> None:
    """Raises TalkingPortraitError unless 0 <= overlap < size."""
    if not 0 <= overlap < size:
        raise TalkingPortraitError(
            f"Windows of {size} frames are to overlap by {overlap}, but 0 to {size - 1} are possible; lower "
            "the overlap."
        )


def _reversed_fraction(step: int) -> float:
    """The binary digits of a 64-bit number mirrored at the point: 1 gives 0.5, 2 gives 0.25, 3 gives 0.75."""
    return int(f"{step:064b}"[::-1], 2) / 2**64
