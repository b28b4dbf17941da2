"""The measures by name: unit, meaning, and the range of real speakers.

Ranges are the 10 % to 90 % quantiles of recordings of real speakers, by MediaPipe's landmarks: of 22 short clips for
what lips and heads do; of two longer videos for pictures, where they are their values with some room. SyncNet's are
published means of real videos, and what viewers of broadcasts do not notice. What lies outside is worth a look, not
wrong by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Place = Literal["within", "below", "above", ""]


@dataclass(frozen=True)
class Kind:
    """`low` and `high` of real speakers, None where a side is open; both None where they have no such value."""

    name: str
    unit: str
    meaning: str
    low: float | None = None
    high: float | None = None


KINDS = (
    Kind("frames", "", "frames of the video"),
    Kind("frames without a face", "%", "share of the frames in which no face is found", None, 0.0),
    Kind("missing frames", "", "frames that the sound has and the video lacks; below 0: more frames than sound", -1, 1),
    Kind("duration difference", "ms", "how much longer the video is than its sound", -40, 40),
    Kind(
        "audio-lip correlation", "", "lip opening and loudness of 500 to 2500 Hz, both between 2 and 7 Hz", 0.28, 0.63
    ),
    Kind("audio-lip lag", "ms", "how late lips are for the sound, at that correlation", -100, 40),
    Kind("SyncNet distance", "", "of lips and sound where they fit best (LSE-D); less is better", None, 7.0),
    Kind("SyncNet confidence", "", "the median distance of all shifts minus that (LSE-C); more is better", 6.9, None),
    Kind("SyncNet offset", "frames", "of 25 a second by which the lips are late there", -3, 1),
    Kind("movement in silence", "", "speed of the lips in pauses over that in speech", None, 1.03),
    Kind("opening deviation", "eyes", "standard deviation of the lip opening", 0.035, 0.073),
    Kind("opening speed", "eyes/s", "95 % quantile of the opening's speed", 0.89, 1.97),
    Kind("width deviation", "", "standard deviation of the mouth's width over its mean", 0.035, 0.114),
    Kind("opening and width", "", "correlation: open vowels are wide, rounded ones narrow", -0.04, 0.58),
    Kind("jaw slope", "", "how far the chin goes down for a lip opening of 1", 0.34, 0.72),
    Kind(
        "dark inside the mouth", "", "share of pixels between open lips darker than a quarter of the cheeks", 0.0, 0.42
    ),
    Kind("teeth", "", "share of pixels between open lips brighter than 0.62 of the cheeks", 0.24, 0.71),
    Kind("pitch deviation", "degrees", "standard deviation of the head's pitch", 1.0, 4.2),
    Kind("yaw deviation", "degrees", "standard deviation of the head's yaw", 0.5, 3.8),
    Kind("roll deviation", "degrees", "standard deviation of the head's roll", 0.7, 4.6),
    Kind("jitter", "eyes", "median distance of the nose bridge from its mean over five frames", None, 0.008),
    Kind("flicker outside the face", "levels", "mean second difference of the brightness over time, of 255", None, 1.0),
    Kind("background change", "levels", "mean difference from the first frame where nobody is, of 255"),
    Kind("colour drift", "levels", "largest difference of a second's mean colour from the first second's", None, 9.0),
    Kind("contrast drift", "levels", "the same of the colours' standard deviation", None, 3.0),
    Kind("largest seam", "", "largest change from frame to frame over the usual one around it", None, 4.5),
    Kind("window seams", "", "change across the borders of windows over that inside them", None, 1.15),
    Kind("identity drift", "", "1 - cosine of the embeddings of the first and the last third"),
    Kind("landmark distance", "% of eyes", "mean distance of the landmarks from the reference's (LMD)"),
    Kind("mouth landmark distance", "% of eyes", "the same of the lips' landmarks"),
    Kind("LPIPS", "", "how differently the pictures look from the reference's, by AlexNet's features"),
    Kind("mouth LPIPS", "", "the same of upright squares around the mouths"),
    Kind("opening correlation", "", "lip opening and the reference's"),
    Kind("closure recall", "", "share of the reference's lip closures that are found within 100 ms"),
    Kind("closure F1", "", "harmonic mean of that and of the share of closures that the reference has"),
)


@dataclass(frozen=True)
class Measure:
    """A `value` of one kind, or None and the reason `why` there is none."""

    kind: Kind
    value: float | None
    why: str = ""

    @property
    def place(self) -> Place:
        """Where the value lies to the range of real speakers; empty without one of both."""
        low, high = self.kind.low, self.kind.high
        if self.value is None or (low is None and high is None):
            return ""
        if low is not None and self.value < low:
            return "below"
        return "above" if high is not None and self.value > high else "within"

    @property
    def range(self) -> str:
        """The range of real speakers in words."""
        low, high = self.kind.low, self.kind.high
        if low is None:
            return "" if high is None else f"up to {high:g}"
        return f"from {low:g} on" if high is None else f"{low:g} to {high:g}"
