"""What of a video changes that should not: flicker, colours, seams between windows, and the background."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ..files.video import VideoFile
from ..image.luma import LUMA
from ..types import Progress
from .flicker import Flicker, flicker

LONGEST_SIDE = 512
"""Pixels; larger frames are averaged down to no more."""
FACE_ROOM = 0.15
"""Of the face's box, by which it is widened: what lies around it is what the face moves."""
HEAD_ROOM, BODY_ROOM = 0.6, 1.5
"""Of the face's width to either side: hair and ears beside the face, and shoulders below its chin."""
LEAST_BACKGROUND = 0.02
"""Of the picture; with less of it there is no background to speak of."""
AROUND = 0.5
"""Seconds to either side with which the change of a frame is compared."""
LEAST_CHANGE = 0.2
"""Grey levels; smaller changes are rounding, in comparison with which a seam would be anything."""


@dataclass(frozen=True)
class Steadiness:
    """`flicker` of what is outside the face; `changes` (F - 1,) of the whole picture from frame to frame, grey levels.

    `background`: mean difference from the first frame where nobody is, in grey levels; None where the picture has no
    such place. `seam`: the largest change over the usual one around it.
    """

    flicker: Flicker
    changes: np.ndarray
    background: float | None
    seam: float


def steadiness(
    video: VideoFile, face: tuple[float, float, float, float], *, window: int, expected: int, progress: Progress
) -> Steadiness:
    """Of a video with a face in the box (left, top, right, bottom); `window` frames are one clip of `flicker`."""
    shrink = max(1, -(-max(video.size) // LONGEST_SIDE))
    box = tuple(side / shrink for side in face)
    size = video.size[0] // shrink, video.size[1] // shrink
    around, nobody = _outside_face(size, box), _background(size, box)
    weights = torch.from_numpy(LUMA)
    changes: list[float] = []
    differences: list[float] = []
    first = before = None
    place = nobody if float(nobody.float().mean()) >= LEAST_BACKGROUND else None

    def clips() -> Iterator[torch.Tensor]:
        nonlocal first, before
        clip: list[torch.Tensor] = []
        for number, frame in enumerate(video.frames()):
            pixels = _shrunk(frame, shrink)
            grey = pixels @ weights
            if before is not None:
                changes.append(255 * float((grey - before).abs().mean()))
            before, first = grey, grey if first is None else first
            if place is not None and number:
                differences.append(255 * float((grey - first).abs()[place].mean()))
            clip.append(pixels)
            if len(clip) == window:
                yield torch.stack(clip)
                clip = []
            progress(min(number + 1, expected), max(expected, 1))
        if clip:
            yield torch.stack(clip)

    measured = flicker(clips(), around.float())
    background = float(np.mean(differences)) if differences else None
    return Steadiness(measured, np.array(changes), background, seam(np.array(changes), float(video.fps)))


def seam(changes: np.ndarray, fps: float) -> float:
    """The largest change from frame to frame over the median of those within half a second; 1 for a still video."""
    reach = max(2, round(AROUND * fps))
    usual = [np.median(changes[max(0, i - reach) : i + reach + 1]) for i in range(len(changes))]
    return float(max(changes / np.maximum(usual, LEAST_CHANGE), default=1.0)) if changes.any() else 1.0


def _shrunk(frame: np.ndarray, shrink: int) -> torch.Tensor:
    """(H, W, 3) uint8 as 0..1, averaged over squares of `shrink` pixels."""
    height, width = (side // shrink for side in frame.shape[:2])
    pixels = torch.from_numpy(frame[: height * shrink, : width * shrink]).float() / 255
    if shrink == 1:
        return pixels
    return pixels.reshape(height, shrink, width, shrink, 3).mean(dim=(1, 3))


def _without(size: tuple[int, int], *boxes: tuple[float, ...]) -> torch.Tensor:
    """(H, W) bool, False inside the boxes."""
    free = torch.ones(size, dtype=torch.bool)
    for left, top, right, bottom in boxes:
        free[max(0, round(top)) : max(0, round(bottom)), max(0, round(left)) : max(0, round(right))] = False
    return free


def _outside_face(size: tuple[int, int], box: tuple[float, ...]) -> torch.Tensor:
    left, top, right, bottom = box
    x, y = FACE_ROOM * (right - left), FACE_ROOM * (bottom - top)
    return _without(size, (left - x, top - y, right + x, bottom + y))


def _background(size: tuple[int, int], box: tuple[float, ...]) -> torch.Tensor:
    left, top, right, bottom = box
    wide = right - left
    head = (left - HEAD_ROOM * wide, top - HEAD_ROOM * wide, right + HEAD_ROOM * wide, size[0])
    body = (left - BODY_ROOM * wide, bottom - wide / 3, right + BODY_ROOM * wide, size[0])
    return _without(size, head, body)
