"""From seconds of audio to a number of frames, in rational arithmetic, for everything that makes frames for audio."""

from __future__ import annotations

import math
from fractions import Fraction

from .errors import TalkingPortraitError, one_line

MIN_FPS, MAX_FPS = 1, 240


def as_fraction(number: float | int | Fraction | str) -> Fraction:
    """A number, or a text such as 30000/1001, as an exact fraction. Raises as Fraction does.

    A text with an exponent is taken as a floating-point number is: Fraction computes the power of ten in full, which
    takes hours for 1e999999999.
    """
    return Fraction(float(number) if isinstance(number, str) and "e" in number.lower() else number)


def as_rate(fps: float | int | Fraction | str) -> Fraction:
    """A frame rate as an exact fraction; 23.976, 29.97 and 59.94 become their NTSC rationals.

    Raises TalkingPortraitError outside 1..240 or for what is no number.
    """
    try:
        rate = as_fraction(fps)
    except (ValueError, OverflowError, TypeError, ZeroDivisionError):
        rate = Fraction(0)
    if not MIN_FPS <= rate <= MAX_FPS:
        raise TalkingPortraitError(
            f"The frame rate is {one_line(fps, 40)}, but a number from {MIN_FPS} to {MAX_FPS} is expected; 25 suits "
            "most uses."
        )
    if rate.denominator == 1:
        return rate
    ntsc = Fraction(round(rate * 1001 / 1000) * 1000, 1001)
    if abs(ntsc - rate) < Fraction(1, 100) and ntsc >= MIN_FPS:
        return ntsc
    return rate.limit_denominator(1001)


def frame_count(samples: int, sample_rate: int, fps: Fraction) -> int:
    """Frames that cover `samples` at `fps`: the last frame may reach past the sound, none is missing."""
    return math.ceil(Fraction(samples, sample_rate) * fps)


def frame_time(index: int, fps: Fraction) -> Fraction:
    """Start of frame `index` in seconds."""
    return index / fps


def sample_index(index: int, sample_rate: int, fps: Fraction) -> int:
    """First audio sample of frame `index`."""
    return math.floor(index * sample_rate / fps)


def frame_end(frames: int, sample_rate: int, fps: Fraction) -> int:
    """Audio samples that `frames` frames last; the last sample may reach past them, as ComfyUI counts."""
    return math.ceil(frames * sample_rate / fps)
