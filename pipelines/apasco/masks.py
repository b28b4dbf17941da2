"""Where the face and the lips are: region masks from landmarks, in the sizes that the networks take.

Hallo (section 3.2 of the paper) weighs audio attention by three regions: outside the face ("full"), the face around the
lips, and the lips. Boxes around landmarks are widened, cut down to 64 x 64 cells, blurred, and taken apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ...models.diffusion.layout import REGIONS
from ...models.face.face_mesh import FACE_OVAL, LIPS_OUTER
from ..errors import TalkingPortraitError
from ..packages import load_opencv
from ..types import FaceTrack

Box = tuple[int, int, int, int]
"""x from, x to, y from, y to; the ends not included."""

CELLS = 64
"""Side of the blurred masks, whatever the size of the picture."""
FACE_BLUR, LIP_BLUR = 51, 31
FACE_RATIO, LIP_RATIO = 1.2, 2.0
"""How much wider than the landmarks the boxes are, as published."""


@dataclass(frozen=True)
class RegionMasks:
    """`region` (H, W) uint8, 255 in the face's box, of the picture's size.

    `full`, `face` and `lip` (64, 64) uint8 are near 255 in their region and sum to about 255; the cells divide height
    and width of the picture evenly, so they are square only in a square picture. `points` (P, 3) are the landmarks of
    the portrait that they are made from, where there were any.
    """

    region: np.ndarray
    full: np.ndarray
    face: np.ndarray
    lip: np.ndarray
    points: np.ndarray | None = None

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the picture that the masks are made for."""
        return self.region.shape[0], self.region.shape[1]

    def located(self, size: tuple[int, int]) -> torch.Tensor:
        """The face locator's input: (1, 3, 1, height, width) in 0..1."""
        return _resized(self.region, size).expand(3, 1, *size)[None]

    def levels(self, size: tuple[int, int], count: int = 4) -> list[torch.Tensor]:
        """For audio modules: (3, 1, height, width) in 0..1 for latents of `size`, halved from each to the next."""
        sizes = [tuple(-(-side // 2**level) for side in size) for level in range(count)]
        masks = [getattr(self, region) for region in REGIONS]
        return [torch.stack([_resized(mask, (h, w))[None] for mask in masks]) for h, w in sizes]

    def mask_of(self, region: str) -> torch.Tensor:
        """One of `REGIONS`, as a MASK (1, H, W) of the picture's size in 0..1."""
        return _resized(getattr(self, region), self.image_size)[None]


def region_masks(
    points: np.ndarray,
    image_size: tuple[int, int],
    *,
    face_ratio: float = FACE_RATIO,
    lip_ratio: float = LIP_RATIO,
    wrap: bool = False,
) -> RegionMasks:
    """Masks around the face's outline and the lips.

    Args:
        points: landmarks (468 or 478, 2 or more) in pixels.
        image_size: (height, width).
        wrap: a box that is wider than the picture may begin left of it, and the published program then counts from the
            right. That gives a sliver instead of the whole picture, so it is done only for comparison.

    Raises TalkingPortraitError for ratios or landmarks that give no box.
    """
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or len(points) <= max(*FACE_OVAL, *LIPS_OUTER) or not np.isfinite(points[:, :2]).all():
        raise TalkingPortraitError(
            f"The landmarks have the shape {points.shape}, but 468 or 478 finite points of a face are expected; "
            "take them from Detect Landmarks."
        )
    if not (0 < face_ratio < 100 and 0 < lip_ratio < 100):
        raise TalkingPortraitError(
            f"The boxes are to be widened {face_ratio} and {lip_ratio} times, but more than 0 and less than 100 is "
            "expected; 1.2 for the face and 2 for the lips are published."
        )
    region = filled(expanded(bounds(points, FACE_OVAL), image_size, face_ratio), image_size, wrap=wrap)
    lips = filled(expanded(bounds(points, LIPS_OUTER), image_size, lip_ratio), image_size, wrap=wrap)
    if not region.any() or not lips.any():
        left, right, top, bottom = bounds(points, LIPS_OUTER)
        if 0 <= left <= right <= image_size[1] and 0 <= top <= bottom <= image_size[0]:
            raise TalkingPortraitError(
                f"Boxes {face_ratio:g} times as wide as the face and {lip_ratio:g} times as wide as the lips are less "
                "than a pixel here; take larger ratios (1.2 and 2 are published) or a larger picture."
            )
        raise TalkingPortraitError(
            f"The face or its lips lie outside the picture of {image_size[1]} x {image_size[0]} pixels; choose a "
            "portrait that shows them."
        )
    return replace(_separated(region, lips), points=points)


def portrait_masks(
    track: FaceTrack | None,
    picture: torch.Tensor | None,
    *,
    face_ratio: float = FACE_RATIO,
    lip_ratio: float = LIP_RATIO,
) -> RegionMasks:
    """The masks of a face's first frame, or without landmarks those of all of a picture (H, W, 3).

    Raises TalkingPortraitError where there is neither.
    """
    if track is not None:
        return region_masks(track.points[0], track.image_size, face_ratio=face_ratio, lip_ratio=lip_ratio)
    if picture is None:
        raise TalkingPortraitError(
            "Neither landmarks nor an image are connected, but one of the two is expected; connect Detect Landmarks."
        )
    return whole_picture((picture.shape[0], picture.shape[1]))


def whole_picture(image_size: tuple[int, int]) -> RegionMasks:
    """For a picture without a face that landmarks can be found in: all of it is face, and no part of it lips."""
    cells = np.zeros((CELLS, CELLS), dtype=np.uint8)
    return RegionMasks(np.full(image_size, 255, dtype=np.uint8), cells, np.full_like(cells, 255), cells)


def _separated(region: np.ndarray, lips: np.ndarray) -> RegionMasks:
    face, lip = blurred(region, FACE_BLUR), blurred(lips, LIP_BLUR)
    # Cut off and not rounded, as published: one level less than 255 - face in many cells.
    full = ((1 - face / 255) * 255).astype(np.uint8)
    return RegionMasks(region, full, _subtracted(face, lip), lip)


def bounds(points: np.ndarray, numbers: Sequence[int]) -> Box:
    """The box of these landmarks, on whole pixels."""
    chosen = points[list(numbers), :2]
    (left, top), (right, bottom) = np.round(chosen.min(axis=0)), np.round(chosen.max(axis=0))
    return int(left), int(right), int(top), int(bottom)


def expanded(box: Sequence[float], image_size: tuple[int, int], ratio: float) -> Box:
    """A box made `ratio` times as wide and high, moved into the picture where it fits.

    One that is larger than the picture begins before it: its first x or y is negative.
    """
    sides = []
    for low, high, limit in ((*box[:2], image_size[1]), (*box[2:], image_size[0])):
        middle, half = (high + low) // 2, (high - low) * ratio // 2
        start, end = middle - half, middle + half
        if start < 0:
            start, end = 0, end - start
        if end > limit:
            start, end = start - (end - limit), limit
        sides += [round(start), round(end)]
    left, right, top, bottom = sides
    return left, right, top, bottom


def filled(box: Box, image_size: tuple[int, int], *, wrap: bool = False) -> np.ndarray:
    """(H, W) uint8, 255 in the box."""
    left, right, top, bottom = box
    if not wrap:
        left, top = max(left, 0), max(top, 0)
    mask = np.zeros(image_size, dtype=np.uint8)
    mask[top:bottom, left:right] = 255
    return mask


def united_boxes(tracks: np.ndarray, numbers: Sequence[int], image_size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8, 255 in the box around the boxes of these landmarks in all frames of (F, points, 2 or more)."""
    boxes = [expanded(bounds(points, numbers), image_size, 1.0) for points in tracks]
    rows, columns = np.nonzero(np.maximum.reduce([filled(box, image_size) for box in boxes]))
    box = (int(columns.min()), int(columns.max()) + 1, int(rows.min()), int(rows.max()) + 1)
    return filled(box, image_size)


def training_masks(tracks: np.ndarray, image_size: tuple[int, int]) -> RegionMasks:
    """Masks of a training video from landmarks (F, points, 2 or more): boxes that hold the face in every frame."""
    region = united_boxes(tracks, FACE_OVAL, image_size)
    face = blurred(region, FACE_BLUR)
    lip = blurred(united_boxes(tracks, LIPS_OUTER, image_size), LIP_BLUR)
    return RegionMasks(region, 255 - face, _subtracted(face, lip), lip)


def blurred(mask: np.ndarray, size: int) -> np.ndarray:
    """(H, W) uint8 cut down to 64 x 64 cells, blurred over `size` of them, and stretched to 0..255."""
    cv2 = load_opencv()
    small = cv2.resize(mask, (CELLS, CELLS))
    if small.min() == small.max():
        return small
    soft = cv2.GaussianBlur(small, (size, size), 0)
    if soft.min() == soft.max():
        return small
    return cv2.normalize(soft, soft.copy(), alpha=0, beta=255, norm_type=cv2.NORM_MINMAX).astype(np.uint8)


def _subtracted(face: np.ndarray, lip: np.ndarray) -> np.ndarray:
    return np.where(face > lip, face - lip, 0).astype(np.uint8)


def _resized(mask: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """(H, W) uint8 as (height, width) in 0..1, as Pillow resizes it."""
    from PIL import Image

    resized = Image.fromarray(mask).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(resized, dtype=np.float32) / 255)
