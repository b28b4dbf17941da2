"""Pictures as AniTalker's networks take them, and a portrait encoded once for everything that follows."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch

from ...models.anitalker.stage1 import Stage1
from ..errors import TalkingPortraitError
from ..finite import check_finite
from ..image.resizing import resized_on_bytes
from ..memory import HalvingBatches, Managed, loaded
from ..timing import as_rate
from ..types import FaceTrack, MotionLatents, Progress, no_progress

SQUARE_WITHIN = 0.02
"""Sides that differ by no more than this part count as equal."""


@dataclass(frozen=True)
class Portrait:
    """A face as stage 1 encodes it, all on the CPU.

    `start` (1, style) its appearance, `code` (1, motion) its pose, `maps` (1, C, R, R) its features, R = 8 first.
    """

    start: torch.Tensor
    code: torch.Tensor
    maps: list[torch.Tensor]


def portrait_pixels(pictures: torch.Tensor, size: int) -> torch.Tensor:
    """The encoder's input from (B, H, W, 3) in 0..1: (B, 3, size, size) in -1..1, squeezed to a square."""
    return 2 * (torch.cat([resized_on_bytes(picture, (size, size), "BICUBIC") for picture in pictures]) - 0.5)


def check_square(pictures: torch.Tensor, what: str) -> None:
    """Raises TalkingPortraitError for (B, H, W, 3) that would be squeezed. The published program squeezes silently."""
    height, width = pictures.shape[1:3]
    if abs(height - width) > SQUARE_WITHIN * max(height, width):
        raise TalkingPortraitError(
            f"The {what} is {width} x {height} pixels, but a square picture with the head in its middle is expected; "
            "cut it out with Crop Portrait (framing AniTalker), or squeeze it to a square yourself."
        )


def check_landmarks(picture: torch.Tensor, track: FaceTrack) -> None:
    """Raises TalkingPortraitError for landmarks of a picture of another size than (H, W, 3)."""
    if track.image_size != tuple(picture.shape[:2]):
        (height, width), (seen_height, seen_width) = picture.shape[:2], track.image_size
        raise TalkingPortraitError(
            f"The landmarks are of a picture of {seen_width} x {seen_height} pixels, but the portrait is {width} x "
            f"{height}; connect the landmarks that Crop Portrait gives beside this very portrait."
        )


def check_numbers(values: torch.Tensor, stage: str) -> None:
    """Raises TalkingPortraitError where a network, "stage 1" or "stage 2", gave NaN."""
    check_finite(values, f"AniTalker's {stage}", "its file is damaged, download it again")


@torch.no_grad()
def prepare_portrait(stage1: Managed, picture: torch.Tensor) -> Portrait:
    """The portrait (H, W, 3) in 0..1, a square, encoded.

    Raises TalkingPortraitError for a picture that is no square, and where stage 1 gives NaN.
    """
    check_square(picture[None], "portrait")
    network, device = loaded(stage1, Stage1)
    encoded = network.enc(portrait_pixels(picture[None], network.size).to(device))
    check_numbers(encoded.code, "stage 1")
    return Portrait(encoded.start.cpu(), encoded.code.cpu(), [features.cpu() for features in encoded.maps])


@torch.no_grad()
def motion_from_video(
    stage1: Managed,
    pictures: torch.Tensor,
    fps: float | Fraction = 25,
    *,
    portrait: torch.Tensor | None = None,
    batch: int = 8,
    progress: Progress = no_progress,
) -> MotionLatents:
    """How the face in pictures (F, H, W, 3) in 0..1, squares, moves.

    With a `portrait` (H, W, 3) the movement is counted from the first picture and starts from the portrait's own pose;
    without one the codes are those of the pictures, which take their pose along. `progress` is called for each batch.

    Raises TalkingPortraitError for pictures that are no squares, and where stage 1 gives NaN.
    """
    check_square(pictures, "driving video")
    rate = as_rate(fps)

    def encode(start: int, end: int) -> torch.Tensor:
        network, device = loaded(stage1, Stage1)
        pixels = portrait_pixels(pictures[start:end], network.size).to(device)
        return network.enc.code(network.enc.appearance(pixels)).cpu()

    codes: list[torch.Tensor] = []
    done = 0
    for part in HalvingBatches(batch, "frame").each(len(pictures), encode):
        codes.append(part)
        done += len(part)
        progress(done, len(pictures))
    motion = torch.cat(codes)
    check_numbers(motion, "stage 1")
    if portrait is not None:
        motion = motion - motion[:1] + prepare_portrait(stage1, portrait).code
    return MotionLatents(motion, rate)
