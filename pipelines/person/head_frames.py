"""Which frames of the head video are shown, read forwards, backwards and so on, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np

from ..errors import TalkingPortraitError
from ..files.video import VideoFile, open_video

BACKWARDS_BYTES = 200_000_000
"""Of the frames that are held at once where the video runs backwards."""
SEEK_BEYOND = 250
"""Frames that are skipped by decoding them; key frames are seldom farther apart."""
SHORT_GAP = Fraction(1, 5)
"""Seconds without a usable face that are bridged: landmarks are interpolated there."""


def longest_stretch(usable: np.ndarray, shots: Sequence[tuple[int, int]], fps: Fraction) -> tuple[int, int]:
    """(start, stop) of the longest run of frames within one shot whose face can be used, short gaps included.

    Raises TalkingPortraitError where no frame has a usable face.
    """
    best = (0, 0)
    for shot_start, shot_stop in shots:
        here = np.flatnonzero(usable[shot_start:shot_stop]) + shot_start
        if not len(here):
            continue
        gaps = np.flatnonzero(np.diff(here) - 1 > SHORT_GAP * fps)
        starts, ends = np.r_[here[0], here[gaps + 1]], np.r_[here[gaps], here[-1]]
        longest = int(np.argmax(ends - starts))
        found = (int(starts[longest]), int(ends[longest]) + 1)
        best = max(best, found, key=lambda run: run[1] - run[0])
    if best[0] == best[1]:
        raise TalkingPortraitError(
            "No frame of the head video shows a face that can be used; prepare a video in which the person faces the "
            "camera."
        )
    return best


def forwards_and_backwards(count: int, frames: int, offset: int = 0) -> np.ndarray:
    """(frames,) numbers 0..count-1 from `offset` on: up, down again, and so on; the ends are not repeated."""
    period = max(2 * count - 2, 1)
    place = (np.arange(frames) + offset % period) % period
    return np.minimum(place, period - place) if count > 1 else np.zeros(frames, dtype=int)


def open_head_video(path: str | Path, size: tuple[int, int], fps: Fraction) -> VideoFile:
    """The video of the head at its model's rate. Raises TalkingPortraitError for one of another size."""
    video = open_video(path)
    if video.size != size:
        raise TalkingPortraitError(
            f"The head video {video.path.name} has {video.size[1]} x {video.size[0]} pixels, but the model was trained "
            f"on one of {size[1]} x {size[0]}; give the video that the person was prepared from."
        )
    return replace(video, fps=fps)


def read_frames(video: VideoFile, numbers: np.ndarray) -> Iterator[np.ndarray]:
    """Frames (H, W, 3) uint8 of these numbers, each of which is more than that before, one less, or the same.

    Raises TalkingPortraitError where the video has not so many frames.
    """
    for run in _runs(numbers):
        if run[0] <= run[-1]:
            for near in np.split(run, np.flatnonzero(np.diff(run) > SEEK_BEYOND) + 1):
                yield from _forwards(video, near)
        else:
            held = max(1, BACKWARDS_BYTES // (3 * video.size[0] * video.size[1]))
            for start in range(0, len(run), held):
                part = run[start : start + held]
                yield from reversed(list(_forwards(video, part[::-1])))


def _runs(numbers: np.ndarray) -> Iterator[np.ndarray]:
    """Cut where the direction changes."""
    steps = np.sign(np.diff(numbers))
    start = 0
    for place in np.flatnonzero(steps[1:] != steps[:-1]) + 1:
        if place > start or len(numbers) == 1:
            yield numbers[start : place + 1]
            start = int(place) + 1
    if start < len(numbers):
        yield numbers[start:]


def _forwards(video: VideoFile, numbers: np.ndarray) -> Iterator[np.ndarray]:
    """Frames of numbers that ascend, or are all the same."""
    wanted = np.unique(numbers)
    gaps = wanted[-1] - wanted[0] >= len(wanted)
    count = 0
    frame: np.ndarray | None = None
    only = set(wanted.tolist()) if gaps else None
    for frame in islice(video.frames(int(wanted[0]), only=only), len(wanted)):
        count += 1
        yield frame
    if count < len(wanted):
        raise TalkingPortraitError(
            f"The head video {video.path.name} ends after {wanted[count]} frames, but {wanted[-1] + 1} are needed; "
            "give the video that the person was prepared from."
        )
    for _ in range(len(numbers) - len(wanted)):  # a video of one frame stands still
        assert frame is not None
        yield frame
