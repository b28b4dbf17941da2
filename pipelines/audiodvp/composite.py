"""The mask of the lower face, and the generated lower face put over a video's frame within it.

Kernels, iterations and the blur's width are the published ones.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ...models.audiodvp.face_model import Coefficients, FaceModel
from ..packages import load_opencv

KERNEL = 3
"""Side in pixels of the square that masks grow and shrink by at each iteration."""
DILATIONS, EROSIONS = 4, 9
BLUR_SIZE, BLUR_SIGMA = 5, 4.0
"""In pixels. The published program means to give a border mode where OpenCV takes the sigma, hence 4."""
OPEN_MOUTH = -8.0
"""The first expression coefficient of a mouth wide open, in the published face model."""


def lower_face_masks(
    model: FaceModel, face: Coefficients, size: tuple[int, int], wide_open: torch.Tensor | None = None
) -> np.ndarray:
    """Masks (B, height, width) uint8, 0 or 255, of all that the lower face of each frame covers, open or closed.

    `wide_open` (expressions,) is the expression of a mouth wide open in this face model; by default the published one.
    """
    opened = face.delta.clone()
    if wide_open is None:
        opened[:, 0] = OPEN_MOUTH
    else:
        opened[:] = wide_open[:, None]
    with torch.no_grad():
        masks = [
            model.render(replace(face, delta=delta), size, lower=True).alpha[:, 0]
            for delta in (torch.zeros_like(face.delta), opened)
        ]
    return np.stack([build_mask(*pair) for pair in zip(*masks, strict=True)])


def build_mask(closed: torch.Tensor, opened: torch.Tensor) -> np.ndarray:
    """Mask (H, W) uint8, 0 or 255, from the alpha (H, W) of the lower face with closed and with wide open mouth."""
    union = (closed + opened).clamp(0, 1) * 255
    return dilated(union.round().to(torch.uint8).cpu().numpy())


def dilated(mask: np.ndarray, iterations: int = DILATIONS) -> np.ndarray:
    """A mask (H, W) uint8, grown by a pixel an iteration."""
    return load_opencv().dilate(mask, np.ones((KERNEL, KERNEL), np.uint8), iterations=iterations)


def eroded(mask: np.ndarray, iterations: int = EROSIONS) -> np.ndarray:
    """A mask (H, W) uint8, shrunk by a pixel an iteration, but not from the image's borders."""
    return load_opencv().erode(mask, np.ones((KERNEL, KERNEL), np.uint8), iterations=iterations)


def blurred(mask: np.ndarray, size: int = BLUR_SIZE, sigma: float = BLUR_SIGMA) -> np.ndarray:
    """A mask (H, W) uint8 as weights (H, W) float32 in 0..1; the blur's result is rounded to 8 bits, as published."""
    return load_opencv().GaussianBlur(mask, (size, size), sigma).astype(np.float32) / 255


def composite(face: np.ndarray, frame: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(H, W, 3) float32 in 0..255: `face` where the weights (H, W) are 1, `frame` where they are 0; both (H, W, 3)."""
    weights = weights[..., None]
    return weights * face.astype(np.float32) + (1 - weights) * frame.astype(np.float32)
