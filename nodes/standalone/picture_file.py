"""A picture file as ComfyUI's Load Image gives it: all frames of an animation, and the transparency as a mask."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...pipelines.errors import TalkingPortraitError
from ...pipelines.files.images import open_picture, read_image
from ...pipelines.files.picture_colours import to_srgb

if TYPE_CHECKING:
    from PIL import Image

ANIMATED = ("GIF", "PNG", "WEBP")
"""Pillow's names of formats whose further pictures are frames. In others they are pages, sizes or views: the first
counts."""
MAX_BYTES = 12_000_000_000
"""What the frames of one file may take in memory."""
NO_MASK = 64
"""Side of the empty mask of a file without transparency, which is ComfyUI's too."""


def read_pictures(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures (F, H, W, 3) in 0..1, upright, and their mask (F, H, W), 1 where they are transparent.

    Colours under partial transparency are kept, as the mask belongs to them; what is wholly transparent is white, as
    programs leave anything there. Frames of another size than the first are passed over, and what follows a damaged
    one is not read. Raises TalkingPortraitError for what is no picture or is too large.
    """
    first = read_image(path)  # it has a sentence for everything that can be wrong with a file
    size = tuple(first.shape[:2])
    pictures: list[np.ndarray] = []
    masks: list[np.ndarray | None] = []
    with open_picture(path) as file:
        count = getattr(file, "n_frames", 1) if file.format in ANIMATED else 1
        start = 1 if count > 1 and getattr(file, "default_image", False) else 0  # which is not part of an APNG's frames
        if (count - start) * first.numel() * 4 > MAX_BYTES:
            raise TalkingPortraitError(
                f"The {count - start} frames of {path.name} need more than {MAX_BYTES // 10**9} GB of memory; give a "
                "shorter or smaller animation."
            )
        for number in range(start, count):
            try:
                file.seek(number)
                picture, mask = _frame(file)
            except Exception:  # every decoder has its own for a damaged file
                break
            if picture.shape[:2] == size:
                pictures.append(picture)
                masks.append(mask)
    if not pictures:
        return first[None], torch.zeros(1, NO_MASK, NO_MASK)
    images = torch.from_numpy(np.stack(pictures)).float().div_(255)
    if masks[0] is None:
        return images, torch.zeros(len(images), NO_MASK, NO_MASK)
    found = [np.zeros(size, np.uint8) if mask is None else mask for mask in masks]
    return images, torch.from_numpy(np.stack(found)).float().div_(255)


def _frame(file: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """The current frame (H, W, 3) uint8 and its mask (H, W) uint8, None where its kind of picture has none."""
    from PIL import Image, ImageOps

    frame = ImageOps.exif_transpose(file)
    if not frame.has_transparency_data:
        has_palette = frame.mode == "P" or file.format == "GIF"
        return np.array(to_srgb(frame)), np.zeros((frame.height, frame.width), np.uint8) if has_palette else None
    clear = frame.convert("LA" if frame.mode == "La" else "RGBA").convert("RGBA")
    alpha = clear.getchannel("A")
    white = Image.new("RGB", clear.size, "white")
    visible = alpha.point([0, *[255] * 255])
    return np.array(Image.composite(to_srgb(clear.convert("RGB")), white, visible)), 255 - np.array(alpha)
