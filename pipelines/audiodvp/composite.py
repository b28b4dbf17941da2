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
CHIN_LINE, CHIN_FADE = 4.0, 8.0
"""Pixels above a generated chin's outline in which its shade is seen, and those in which the picture then fades in."""
LEAST_OLD_CHIN, CLEAR_OLD_CHIN = 0.5, 2.5
"""How thick in pixels an old chin is from which on the generated one gives way to it, and does so completely."""
CHIN_WINDOW = 25
"""Pixels over which that thickness is averaged, so that it changes smoothly from frame to frame."""
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
            model.coverage(replace(face, delta=delta), size, lower=True)[:, 0]
            for delta in (torch.zeros_like(face.delta), opened)
        ]
    return np.stack([build_mask(*pair) for pair in zip(*masks, strict=True)])


def build_mask(closed: torch.Tensor, opened: torch.Tensor) -> np.ndarray:
    """Mask (H, W) uint8, 0 or 255, from the alpha (H, W) of the lower face with closed and with wide open mouth."""
    union = (closed + opened).clamp(0, 1) * 255
    return dilated(union.round().to(torch.uint8).cpu().numpy())


def old_chins(model: FaceModel, filmed: Coefficients, driven: Coefficients, size: tuple[int, int]) -> np.ndarray:
    """Masks (B, height, width) uint8, 0 or 255, of what chin and jaw covered in the film, and cover no more.

    From the convex outlines of both lower faces, whose lower halves are those of chin and jaw.
    """
    cv2 = load_opencv()
    lower = model.lower_triangles.unique().long()
    masks = []
    for one, other in zip(
        *(model.pixels(face, size)[:, lower].cpu().numpy() for face in (filmed, driven)), strict=True
    ):
        mask = np.zeros(size, np.uint8)
        for outline, value in ((one, 255), (other, 0)):
            cv2.fillConvexPoly(mask, cv2.convexHull(np.round(outline * 16).astype(np.int32)), value, shift=4)
        mask[: max(0, round(float(other[:, 1].mean())))] = 0
        masks.append(mask)
    return np.stack(masks)


def below_the_chin(mask: np.ndarray, old_chin: np.ndarray) -> np.ndarray:
    """Where (H, W), 1 to 0, the frame stays within its eroded mask (H, W) uint8, as its chin lies lower than generated.

    Else both would be seen, one below the other. Nowhere, where the mask ends above the generated chin; more with the
    thickness of the old one (H, W) uint8 within the mask, so that nothing flickers where both chins are about one.
    """
    cv2 = load_opencv()
    inside = (old_chin & mask).astype(np.float32) / 255
    thickness = float(cv2.blur(inside, (CHIN_WINDOW, CHIN_WINDOW)).max()) * CHIN_WINDOW
    seen = min(max((thickness - LEAST_OLD_CHIN) / (CLEAR_OLD_CHIN - LEAST_OLD_CHIN), 0.0), 1.0)
    distance = cv2.distanceTransform(255 - old_chin, cv2.DIST_L2, 5)
    kept: np.ndarray = seen * (1 - (distance - CHIN_LINE) / CHIN_FADE).clip(0, 1)
    return kept


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
