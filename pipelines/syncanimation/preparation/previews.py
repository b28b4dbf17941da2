"""Pictures that show what a stage has found."""

from __future__ import annotations

import numpy as np

from ...packages import load_opencv
from .head_tracking import HeadTrack

COLOURS = np.array([[0, 0, 0], [230, 60, 60], [70, 200, 90], [70, 110, 230]])
"""Of background, head, neck and torso."""


def overlaid(frame: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """A frame (S, S, 3) uint8 with its parts in colours over it."""
    return (0.5 * frame + 0.5 * COLOURS[parts]).astype(np.uint8)


def drawn_head(frame: np.ndarray, head: HeadTrack, number: int) -> np.ndarray:
    """A frame (S, S, 3) uint8 with the tracked head's rigid points and axes."""
    cv2 = load_opencv()
    drawn = frame.copy()
    points = np.concatenate([head.shape, [[0, 0, 0], [8, 0, 0], [0, 8, 0], [0, 0, 8]]])
    places = np.round(head.project(points)[number] * 16).astype(int)
    for x, y in places[:-4]:
        cv2.circle(drawn, (int(x), int(y)), 16, (255, 230, 60), -1, cv2.LINE_AA, 4)
    origin = tuple(int(value) for value in places[-4])
    for end, colour in zip(places[-3:], ((255, 60, 60), (60, 220, 60), (80, 120, 255)), strict=True):
        cv2.line(drawn, origin, tuple(int(value) for value in end), colour, 2, cv2.LINE_AA, 4)
    return drawn
