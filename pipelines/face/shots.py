"""Where a video can be cut into clips: between its cuts, and where its face is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..packages import load_opencv

THUMBNAIL = 32
"""Frames are compared as squares of this many pixels: motion hardly changes them, another picture does."""
SAMPLES = 4
"""Pixels in a row that each of them is the mean of, at least, where a frame has as many."""
CUT = 0.07
"""Mean change of a thumbnail, of 0..1, from which on a frame may begin another shot."""
SUDDEN = 5.0
"""It does if the change is also this many times the usual one of the second before."""
JUMP = 0.6
"""A face that moves by more than this part of its size within a frame is another one."""
GAP = 3
"""So many frames without the face are bridged."""


@dataclass(frozen=True)
class Frame:
    """What is kept of a frame: `change` from the one before; where the face is and how large, None without."""

    change: float
    centre: tuple[float, float] | None = None
    size: float = 0.0


def thumbnail(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 to a small grey picture in 0..1."""
    cv2 = load_opencv()
    step = max(1, min(picture.shape[:2]) // (SAMPLES * THUMBNAIL))
    sampled = np.ascontiguousarray(picture[::step, ::step])
    small = cv2.resize(sampled, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255


def find_cuts(frames: Sequence[Frame], fps: float) -> list[int]:
    """Numbers of the frames that begin another shot."""
    changes = np.array([frame.change for frame in frames])
    cuts = []
    for i in range(1, len(frames)):
        if _is_sudden(changes, i, round(fps)) or _jumps(frames[i - 1], frames[i]):
            cuts.append(i)
    return cuts


def _is_sudden(changes: np.ndarray, number: int, second: int) -> bool:
    """Whether a frame changes more than those of the `second` (that many frames) before it usually do."""
    if changes[number] <= CUT:
        return False
    before = changes[max(1, number - second) : number]
    return not len(before) or bool(changes[number] > SUDDEN * np.median(before))


def _jumps(before: Frame, after: Frame) -> bool:
    if before.centre is None or after.centre is None:
        return False
    moved = np.hypot(after.centre[0] - before.centre[0], after.centre[1] - before.centre[1])
    return bool(moved > JUMP * before.size) or not 0.5 < after.size / before.size < 2


def find_clips(frames: Sequence[Frame], cuts: Sequence[int], shortest: int, longest: int) -> list[tuple[int, int]]:
    """(first frame, end) of every segment with one face: without a cut, and no more than GAP frames without it.

    Stretches below `shortest` frames are left out; those above `longest` become several of about the same length.
    """
    clips = []
    for start, end in pairwise([0, *cuts, len(frames)]):
        found = [i for i in range(start, end) if frames[i].centre is not None]
        breaks = [i for i, (a, b) in enumerate(pairwise(found), 1) if b - a > GAP + 1]
        for first, last in pairwise([0, *breaks, len(found)]):
            if last - first > 0:
                clips += _pieces(found[first], found[last - 1] + 1, longest)
    return [(start, end) for start, end in clips if end - start >= shortest]


def _pieces(start: int, end: int, longest: int) -> list[tuple[int, int]]:
    count = -(-(end - start) // longest)
    edges = [start + (end - start) * i // count for i in range(count + 1)]
    return list(pairwise(edges))
