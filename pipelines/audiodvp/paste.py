"""The generated lower face put back into the whole frame, wherever the crop lies and whatever size it has."""

from __future__ import annotations

import numpy as np

from ..packages import load_opencv
from ..person.person import CropBox
from .composite import below_the_chin, blurred, composite, eroded


def blend_weights(
    mask: np.ndarray, box: CropBox, size: tuple[int, int], old_chin: np.ndarray | None = None
) -> np.ndarray:
    """Weights (S, S) float32 in 0..1 of the generated face, from its mask (S, S) uint8.

    Eroded and blurred as published; an `old_chin` (S, S) uint8 of the film, which lies lower than the generated one,
    stays, and the line of the latter is left out. A side of the box that lies within the frame gets a soft edge too, so
    that a face which reaches beyond the crop leaves no line.
    """
    height, width = size
    mask = mask.copy()
    if box.top > 0:
        mask[:1] = 0
    if box.left > 0:
        mask[:, :1] = 0
    if box.top + box.side < height:
        mask[-1:] = 0
    if box.left + box.side < width:
        mask[:, -1:] = 0
    mask = eroded(mask)
    weights = blurred(mask)
    return weights if old_chin is None else weights * (1 - below_the_chin(mask, old_chin))


def paste_lower_face(
    frame: np.ndarray, face: np.ndarray, weights: np.ndarray, box: CropBox
) -> tuple[np.ndarray, np.ndarray]:
    """A copy of the frame (H, W, 3) uint8 with the face (S, S, 3) uint8 in the box, and the weights (H, W) float32.

    Pixels whose weight is 0 keep their bytes. The face is scaled by areas where the box is smaller than it, else by
    cubic interpolation.
    """
    rows, columns = _inside(box, frame.shape[:2])
    result, whole = frame.copy(), np.zeros(frame.shape[:2], np.float32)
    if rows.start == rows.stop or columns.start == columns.stop:
        return result, whole
    part = (
        slice(rows.start - box.top, rows.stop - box.top),
        slice(columns.start - box.left, columns.stop - box.left),
    )
    here = _resized(weights, box.side, smooth=False)[part].clip(0, 1)
    below = frame[rows, columns]
    mixed = composite(_resized(face, box.side, smooth=True)[part], below, here)
    result[rows, columns] = np.where(here[..., None] > 0, np.rint(mixed).clip(0, 255), below).astype(np.uint8)
    whole[rows, columns] = here
    return result, whole


def _inside(box: CropBox, size: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of a frame (height, width) that the box covers; empty where it covers none."""
    top, bottom = np.clip([box.top, box.top + box.side], 0, size[0]).tolist()
    left, right = np.clip([box.left, box.left + box.side], 0, size[1]).tolist()
    return slice(top, bottom), slice(left, right)


def _resized(picture: np.ndarray, side: int, *, smooth: bool) -> np.ndarray:
    """A square picture at `side` pixels; `smooth` may go beyond its values, unless they are bytes."""
    if side == len(picture):
        return picture
    cv2 = load_opencv()
    larger = cv2.INTER_CUBIC if smooth else cv2.INTER_LINEAR
    return cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA if side < len(picture) else larger)
