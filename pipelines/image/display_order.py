"""When frames are shown, and for how long; also in files that say in which place a frame is stored and nothing else."""

from __future__ import annotations

import heapq
from collections import deque
from fractions import Fraction
from typing import Any

STORED_ORDER = {"avi": True, "gxf": True, "asf": False, "mxf": False}
"""ffmpeg's names of such formats, and whether their first frame is always shown at once."""
REORDERED = 16
"""By so many frames H.264 and its like store a frame before it is shown, at most."""


class DisplayOrder:
    """Decodes the packets of one stream to frames whose times run in the order in which they are shown.

    ffmpeg takes the place of a frame for the time of its decoding. With B-frames, and with H.264 in any case, it lets
    the first frame be shown one place late, which is mended where it is shown at once. H.264's frames get the places of
    their own packets, which run to and fro and are therefore given out in order. A place may be half a frame, as GXF
    counts fields, so such frames have no length; for the last frame there ffmpeg guesses one, which is half a frame
    early. No frame is shown sooner after another than packets follow one another.
    """

    def __init__(self, stream: Any) -> None:
        self._codec, self._first_at_once = stream.codec_context, STORED_ORDER[stream.container.format.name]
        self._late: int | None = None if self._first_at_once else 0
        self._waiting: deque[Any] = deque()
        self._places: list[int] = []
        self._decoded: int | None = None
        self._shown: int | None = None
        self._step: int | None = None

    def __call__(self, packet: Any) -> list[Any]:
        if self._late is None and packet.pts is not None and packet.dts is not None:
            self._late = packet.pts - packet.dts
        if self._first_at_once and packet.dts is not None:
            step = 0 if self._decoded is None else packet.dts - self._decoded
            if step > 0:
                self._step = min(step, self._step or step)
            self._decoded = packet.dts
        for frame in packet.decode():
            self._waiting.append(frame)
            if frame.pts is not None:
                heapq.heappush(self._places, frame.pts - (self._late or 0))
        kept = REORDERED if packet.size and self._codec.has_b_frames else 0  # the packet at the end is empty
        shown = []
        while len(self._waiting) > kept:
            frame = self._waiting.popleft()
            place = heapq.heappop(self._places) if self._places else None
            if place is not None and self._shown is not None and self._step is not None:
                place = max(place, self._shown + self._step)
            frame.pts = self._shown = place
            if self._first_at_once and frame.pts is not None and hasattr(frame, "duration"):  # PyAV has it from 15 on
                frame.duration = 0
            shown.append(frame)
        return shown


def exact(value: Any) -> Fraction:
    """A rate or time base as a Fraction; from PyAV 19 on they are of a class of its own, with less arithmetic."""
    return Fraction(value.numerator, value.denominator)


def frame_time(frame: Any) -> Fraction | None:
    """When a frame begins, in seconds; None where the file does not say."""
    return None if frame.pts is None else frame.pts * exact(frame.time_base)


def frame_length(frame: Any) -> Fraction:
    """How long a frame lasts in seconds, 0 where that is not known."""
    if hasattr(frame, "samples"):
        return Fraction(frame.samples, frame.sample_rate)
    return stated_length(frame)


def stated_length(frame: Any) -> Fraction:
    """How long a frame lasts in seconds as its file states; 0 where it states nothing, and before PyAV 15."""
    return (getattr(frame, "duration", 0) or 0) * exact(frame.time_base)
