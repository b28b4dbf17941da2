"""What every system makes of a portrait and speech when it runs from its files: frames, one batch after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from fractions import Fraction
from typing import Any, TypeVar

import torch

from .errors import TalkingPortraitError, check_kind, check_names, quoted
from .face.crop import crop_portrait
from .face.crop_boxes import PRESETS
from .types import FaceMotion, FaceTrack, Progress

Stage = Callable[[str, str], Progress]
"""From what a stage of the work is called and what it counts, to what it reports to."""

WHOLE_PICTURE = "none"
"""The framing that takes the picture as it is."""
FRAMINGS = (WHOLE_PICTURE, *PRESETS, "AniPortrait app")


@dataclass(frozen=True)
class SpeechVideo:
    """`frames` yields batches (n, H, W, 3) in 0..1, `count` frames altogether, for the rate `fps`.

    `motion` is what the face does, where the system has it as a face motion.
    """

    frames: Iterator[torch.Tensor]
    count: int
    fps: Fraction
    motion: FaceMotion | None = None


@dataclass(frozen=True)
class FramedPortrait:
    """A picture (H, W, 3) in 0..1, the face in it (one frame), and the size (height, width) of frames."""

    picture: torch.Tensor
    track: FaceTrack
    size: tuple[int, int]


def framed(picture: torch.Tensor, track: FaceTrack, framing: Any, side: int, *, multiple: int = 8) -> FramedPortrait:
    """A square of `side` pixels around the face as `framing` lays it; or the whole picture, its longer side `side`.

    Sides are rounded to a multiple, as networks take them; the picture itself keeps its pixels where it stays whole.
    """
    if not 64 <= side <= 2048:
        raise TalkingPortraitError(f"The size is {side} pixels, but 64 to 2048 are expected; 512 suits most uses.")
    side = round(side / multiple) * multiple
    if framing != WHOLE_PICTURE:
        cut, _, inside = crop_portrait(picture[None], track, size=side, preset=framing)
        return FramedPortrait(cut[0], inside, (side, side))
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    return FramedPortrait(picture, track, (_fitted(height * scale, multiple), _fitted(width * scale, multiple)))


def _fitted(side: float, multiple: int) -> int:
    return max(64, round(side / multiple) * multiple)


def option(default: Any, help: str, choices: tuple[str, ...] = ()) -> Any:
    """A field of a system's options, with what the command line says about it; False is a switch that can be set."""
    return field(default=default, metadata={"help": help, "choices": choices})


SPEED: Mapping[str, tuple[Any, str]] = {
    "guide_from": (0.0, "part of the steps, 0 to 1, at which guidance begins"),
    "guide_to": (1.0, "part of the steps at which guidance ends; less is faster and changes the result"),
    "deep_every": (1, "every how many steps deep layers are computed; more is faster and changes the result"),
    "compiled": (False, "compile the network with torch.compile: slow at first, then faster on a graphics card"),
}
"""Default and help of what the systems that denoise videos can be made faster with."""


Options = TypeVar("Options")


def checked_options(kind: type[Options], renderer: str, given: Mapping[str, Any]) -> Options:
    """`kind` with the given values. Raises TalkingPortraitError for names that it has not, and for unknown choices."""
    known: dict[str, Field[Any]] = {entry.name: entry for entry in fields(kind)}  # type: ignore[arg-type]
    check_names(given, known, f"the renderer {renderer}")
    for name, value in given.items():
        check_kind(name, value, known[name].default)
        choices = known[name].metadata["choices"]
        if choices and value not in choices:
            raise TalkingPortraitError(f"The {name} is {quoted(value)}, but one of {', '.join(choices)} is expected.")
    return kind(**given)
