"""Pictures as AniPortrait's networks take them.

Pictures come as ComfyUI's IMAGE, (..., H, W, 3) in 0..1, and leave as (..., 3, H, W).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..image.resizing import resized_on_bytes

CLIP_SIZE = 224
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def clip_pixels(portrait: torch.Tensor) -> torch.Tensor:
    """CLIP's input from (H, W, 3): (1, 3, 224, 224), squeezed to a square and normalised."""
    pixels = resized_on_bytes(portrait, (CLIP_SIZE, CLIP_SIZE), "BICUBIC")
    return (pixels - torch.tensor(CLIP_MEAN)[:, None, None]) / torch.tensor(CLIP_STD)[:, None, None]


def reference_picture(portrait: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """What the VAE encodes of (H, W, 3): (1, height, width, 3) in 0..1, squeezed to that size."""
    return resized_on_bytes(portrait, size, "LANCZOS").permute(0, 2, 3, 1)


def reference_pixels(portrait: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """A VAE's input from the same: (1, 3, height, width) in -1..1."""
    return 2 * reference_picture(portrait, size).permute(0, 3, 1, 2) - 1


def pose_pixels(drawings: torch.Tensor, size: tuple[int, int], *, published_range: bool = True) -> torch.Tensor:
    """The pose guider's input from drawn faces (F, H, W, 3): (1, 3, F, height, width).

    Drawings of another size are resized by nearest pixels. `published_range` gives -1..509, see
    `models/aniportrait/pose_guider.py`; else -1..1.
    """
    pixels = (drawings.permute(0, 3, 1, 2) * 255).round()
    if pixels.shape[-2:] != size:
        pixels = F.interpolate(pixels, size=size)
    return (2 * (pixels if published_range else pixels / 255) - 1).transpose(0, 1)[None]
