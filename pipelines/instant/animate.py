"""Instant from end to end: a portrait and a motion become frames, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch

from ..errors import TalkingPortraitError, quoted
from ..files.images import MAX_PIXELS
from ..image.affine_sampling import LEAST_ALPHA
from ..types import FaceMotion, FaceTrack, Progress, no_progress
from .renderer.portrait_mesh import PortraitMesh
from .renderer.renderer import BATCH_PIXELS, InstantRenderer
from .source_check import source_note

MIN_SIDE = 16
PREVIEW_SIDE = 512
"""Pixels of the longer side that a picture of the progress has, about."""
USUAL_LONGEST_SIDE = 1920
"""Pixels of a frame to which a larger picture is scaled down by default: time and memory grow with them."""


def check_longest_side(longest_side: int | None) -> None:
    """Raises TalkingPortraitError for what no picture's longer side can be scaled to."""
    if longest_side is None:
        return
    if not isinstance(longest_side, int) or isinstance(longest_side, bool):
        raise TalkingPortraitError(
            f"The size is {quoted(longest_side)}, but a whole number of pixels is expected; 512 suits most uses."
        )
    if longest_side < MIN_SIDE:
        raise TalkingPortraitError(
            f"The size is {longest_side} pixels, but at least {MIN_SIDE} are needed; 512 suits most uses."
        )
    if longest_side > MAX_PIXELS:
        raise _too_large(longest_side)


def _too_large(longest_side: int) -> TalkingPortraitError:
    return TalkingPortraitError(
        f"The size is {longest_side} pixels, but frames of at most {MAX_PIXELS // 1_000_000} million pixels are made; "
        "512 suits most uses."
    )


def fit_portrait(image: torch.Tensor, track: FaceTrack, longest_side: int | None) -> tuple[torch.Tensor, FaceTrack]:
    """Scales a picture (H, W, 3 or 4) and the landmarks in it so that the longer side has `longest_side` pixels.

    Raises as `check_longest_side`, and TalkingPortraitError for a size at which too little or too much is left.
    """
    check_longest_side(longest_side)
    height, width = image.shape[:2]
    if longest_side is None or longest_side == max(height, width):
        return image, track
    scale = Fraction(longest_side, max(height, width))
    if height * width * scale**2 > MAX_PIXELS:
        raise _too_large(longest_side)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    resized = _resized(image, size)
    stretch = np.array([size[1] / width, size[0] / height, size[1] / width], dtype=track.points.dtype)
    points = track.points * stretch
    if np.ptp(points[0, :, :2], axis=0).min() < 1 <= np.ptp(track.points[0, :, :2], axis=0).min():
        raise TalkingPortraitError(
            f"The face covers less than a pixel once the picture of {width} x {height} is scaled to {longest_side} "
            "pixels; choose a larger size, or crop the picture around the face."
        )
    return resized, replace(track, points=points, image_size=size)


def _resized(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """A picture (H, W, 3 or 4) at another size; colours count by their alpha."""
    premultiplied = (
        torch.cat([image[..., :3] * image[..., 3:], image[..., 3:]], dim=-1) if image.shape[2] == 4 else image
    )
    resized = torch.nn.functional.interpolate(
        premultiplied.permute(2, 0, 1)[None], size=size, mode="bicubic", antialias=True, align_corners=False
    )
    resized = resized[0].permute(1, 2, 0).clamp(0, 1)
    if image.shape[2] == 4:
        alpha = resized[..., 3:]
        resized = torch.cat([(resized[..., :3] / alpha.clamp(min=LEAST_ALPHA)).clamp(0, 1), alpha], dim=-1)
    return resized


def describe_portrait(image: torch.Tensor, track: FaceTrack) -> str:
    """One line about what keeps a portrait (H, W, 3 or 4) in 0..1 from speaking well, or ""; see `source_note`."""
    return source_note(image[..., :3].numpy(), PortraitMesh(track))


def prepare_portrait(image: torch.Tensor, track: FaceTrack, *, device: torch.device | str = "cpu") -> InstantRenderer:
    """The portrait (H, W, 3 or 4) in 0..1 with one frame of landmarks in it, ready for any motion."""
    return InstantRenderer(image, track, device=device)


@dataclass(frozen=True)
class Source:
    """What is to speak: one portrait (1, H, W, 3 or 4), or frames (F, H, W, 3) of a film, in 0..1, with its `track`."""

    images: torch.Tensor
    track: FaceTrack

    @property
    def is_film(self) -> bool:
        """Whether it moves by itself, so that only its mouth is to be changed."""
        return len(self.images) > 1


def animate_source(
    source: Source,
    motion: FaceMotion,
    *,
    batch: int | None = None,
    device: torch.device | str = "cpu",
    as_bytes: bool = False,
    progress: Progress = no_progress,
) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """What `animate` yields for a portrait, and `dub` for a film, which is played back and forth.

    With `as_bytes` the frames are those of `frames_of` for a portrait, without masks.
    """
    from .dub.film import BATCH, dub, film_of_pictures

    if source.is_film:
        film = film_of_pictures(source.images, source.track, motion.fps)
        yield from dub(film, motion, batch=batch or BATCH, progress=progress)
    elif as_bytes:
        frames = frames_of(source.images[0], source.track, motion, batch=batch, device=device, progress=progress)
        yield from ((part, None) for part in frames)
    else:
        yield from animate(source.images[0], source.track, motion, batch=batch, device=device, progress=progress)


def animate(
    image: torch.Tensor,
    track: FaceTrack,
    motion: FaceMotion,
    *,
    batch: int | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = no_progress,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Frames (B, H, W, 3) in 0..1 and masks (B, H, W) of what moved, batch by batch; see `InstantRenderer.frames`.

    Frames are (B, H, W, 4) where the picture has four channels and something of it is transparent.
    `progress` is called after each batch with its last frame.
    """
    done = 0
    renderer = prepare_portrait(image, track, device=device)
    for frames, masks in renderer.frames(motion, batch=batch):
        yield frames, masks
        done += len(frames)
        progress(done, motion.frames, frames[-1, ..., :3])


def frames_of(
    image: torch.Tensor,
    track: FaceTrack,
    motion: FaceMotion,
    *,
    batch: int | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = no_progress,
) -> Iterator[torch.Tensor]:
    """The same frames as bytes, for a video file; fewer at once than `batch` where pictures are large."""
    height, width = image.shape[:2]
    fitting = max(1, BATCH_PIXELS // (height * width))
    thinned = max(1, max(height, width) // PREVIEW_SIDE)
    renderer = prepare_portrait(image, track, device=device)
    batch = None if batch is None else min(batch, fitting)
    done = 0
    for frames in renderer.frames_uint8(motion, batch=batch):
        yield frames
        done += len(frames)
        progress(done, motion.frames, frames[-1, ::thinned, ::thinned, :3] / 255)
