"""Resizing as the published programs do it: by Pillow, on 8 bits. Their networks were trained with its rounding."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch


def resized_on_bytes(
    picture: torch.Tensor, size: tuple[int, int], filter: Literal["BICUBIC", "BILINEAR", "LANCZOS"]
) -> torch.Tensor:
    """(H, W, 3) in 0..1 as (1, 3, height, width) in 0..1, whatever becomes of its shape; `size` is (height, width)."""
    pixels = (picture * 255).round().clamp(0, 255).byte().numpy()
    if pixels.shape[:2] != size:
        from PIL import Image

        pixels = np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling[filter]))
    return torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None]
