"""The picture of neck and torso without the head: both go on upwards under it, as the head moves over them.

Lengths are those that were published for pictures of 512 pixels.
"""

from __future__ import annotations

import numpy as np

from ...packages import load_opencv
from ..avatar import HEAD_PART, NECK_PART, TORSO_PART

PUBLISHED_SIZE = 512
TORSO_UP, TORSO_FADE = 9, 0.98
"""The torso is continued by so many pixels where the head is right above it, each darker by this factor."""
NECK_WIDER, NECK_DOWN, NECK_UP = 3, 4, 53
"""The neck is dilated upwards, begins lower, where the head's edge does not colour it, and is continued upwards."""
BLUR = 5


def torso_picture(frame: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Neck and torso (S, S, 4) uint8 of a frame (S, S, 3) uint8 with its parts (S, S)."""
    cv2 = load_opencv()
    size = len(frame)
    scale = size / PUBLISHED_SIZE
    colours = frame.astype(np.float32)
    torso, neck, head = parts == TORSO_PART, parts == NECK_PART, parts == HEAD_PART
    inpainted = np.zeros((size, size), bool)
    up = max(1, round(TORSO_UP * scale))
    for column, top in zip(*_tops(torso, head), strict=True):
        rows = np.arange(max(0, top - up), top)
        colours[rows, column] = colours[top, column] * TORSO_FADE ** (top - rows)[:, None]
        inpainted[rows, column] = True
    if neck.any():
        mean = colours[neck].mean(axis=0)
        down = max(1, round(NECK_DOWN * scale))
        up = max(2, round((NECK_WIDER * 2 + NECK_UP) * scale))
        for column, top in zip(*_tops(neck, head), strict=True):
            depth = int(np.argmin(np.append(neck[top:, column], False)))
            first = top + min(down, depth - 1)
            rows = np.arange(max(0, top - up), first)
            fade = np.clip((first - rows) / up, 0, 1)[:, None]
            colours[rows, column] = colours[first, column] * (1 - fade) + mean * fade
            inpainted[rows, column] = True
    kernel = 2 * max(1, round(BLUR // 2 * scale)) + 1
    blurred = cv2.blur(colours, (kernel, kernel))
    colours[inpainted] = blurred[inpainted]
    shown = torso | neck | inpainted
    return np.dstack([np.uint8(np.clip(colours, 0, 255) * shown[..., None]), np.uint8(255 * shown)])


def _tops(part: np.ndarray, head: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows where a part begins right below the head."""
    top = part.argmax(axis=0)
    columns = np.flatnonzero(part.any(axis=0) & (top > 0))
    columns = columns[head[top[columns] - 1, columns]]
    return columns, top[columns]
