"""Cutting the portrait out of pictures, with its landmarks; `paste` puts the result back."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import numpy as np
import torch

from ..errors import TalkingPortraitError, one_line, quoted
from ..image.affine_sampling import Border, apply_map, invert_map, sample_picture
from ..types import Crop, FaceTrack, Progress, no_progress
from .crop_boxes import PRESETS, Preset, app_boxes, portrait_boxes
from .metric_mesh import metric_mesh

_log = logging.getLogger(__name__)


def crop_portrait(
    images: torch.Tensor,
    track: FaceTrack,
    *,
    size: int | tuple[int, int] | None = 512,
    preset: Preset = "head and shoulders",
    scale: float = 1.0,
    upright: bool = False,
    follow: bool = False,
    inside: bool = True,
    border: Border = "edge",
    empty: Callable[..., torch.Tensor] = torch.empty,
    progress: Progress = no_progress,
) -> tuple[torch.Tensor, Crop, FaceTrack]:
    """Cuts the tracked face out of `images` (F, H, W, C) in 0..1.

    `size` of the result in pixels: one number for a square, (height, width), or None for the box's own size. `preset`
    sets how much is in the box and `scale` makes it larger or smaller; "AniPortrait app" is that app's rule for its
    first picture, in whole pixels with black beyond the edge, and takes no scale. `upright` turns the box so that the
    eyes are level. One box holds the face in all frames, unless it is to `follow` the face, smoothly.
    A box that would reach beyond the picture is moved and made smaller to stay `inside`, as far as the face allows;
    what still lies beyond repeats the picture's edge or is black, as `border` sets.
    `empty` makes the tensor of a shape that the pictures are put into, and may refuse it.
    Returns the cut pictures (F, height, width, C), how they were cut, and the track in their pixels.
    """
    _check(images, track, scale)
    if border not in get_args(Border):
        raise TalkingPortraitError(f"The border is {quoted(border)}, but {' or '.join(get_args(Border))} is expected.")
    if preset == "AniPortrait app":
        ignored = {"scale": scale != 1, "upright": upright, "follow": follow}
        if any(ignored.values()):
            _log.warning(
                "The crop AniPortrait app has a rule of its own and does not use: %s; choose another framing for that.",
                ", ".join(name for name, changed in ignored.items() if changed),
            )
        matrices, out = app_boxes(track, size)
        border = "black"
    else:
        if not isinstance(preset, str) or preset not in PRESETS:
            raise TalkingPortraitError(
                f'The crop "{one_line(preset)}" was requested, but one of {", ".join(PRESETS)}, AniPortrait app is '
                "expected."
            )
        matrices, out = portrait_boxes(track, size, PRESETS[preset], scale, upright, follow, inside)
    total = len(images)
    pictures = empty(total, *out, images.shape[-1])
    for index in range(total):
        matrix = matrices[min(index, len(matrices) - 1)]
        pictures[index] = sample_picture(images[index].detach().to("cpu", torch.float32), matrix, out, border)
        progress(index + 1, total)
    source_size = (int(images.shape[1]), int(images.shape[2]))
    crop = Crop(matrix=matrices, size=out, source_size=source_size, source=images)
    return pictures, crop, track_in_crop(track, crop)


def track_in_crop(track: FaceTrack, crop: Crop) -> FaceTrack:
    """The track in the pixels of the cut pictures, with head matrices for their camera."""
    points = np.stack(
        [
            apply_map(invert_map(crop.matrix[min(index, len(crop.matrix) - 1)]), frame)
            for index, frame in enumerate(track.points)
        ]
    )
    _, matrix = metric_mesh(points, crop.size)
    return replace(track, points=points, image_size=crop.size, matrix=matrix)


def _check(images: torch.Tensor, track: FaceTrack, scale: float) -> None:
    if images.ndim != 4 or 0 in images.shape:
        raise TalkingPortraitError(
            f"The pictures come as {tuple(images.shape)}, but (frames, height, width, channels) is expected."
        )
    track.check_pictures(images)
    if not 0.1 <= scale <= 10:
        raise TalkingPortraitError(f"The crop's scale is {scale}, but 0.1 to 10 is expected.")
