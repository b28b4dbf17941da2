"""The frames of a person's video in which the mouth is closed, or nearly so."""

from __future__ import annotations

import torch

CLOSED = 0.05
"""Part of the person's frames, those with the least open lips, whose mean is the closed mouth."""
LIPS_AND_EYES = (62, 66, 36, 45)
"""Of the 68 landmarks: the middles of the lips' inner edges, and the outer corners of the eyes."""


def least_open(points: torch.Tensor) -> torch.Tensor:
    """Which of the frames, of which `points` (N, 4, 2 or 3) are LIPS_AND_EYES, are the closed ones."""
    upper, lower, left, right = points.unbind(1)
    opening = (upper - lower).norm(dim=1) / (left - right).norm(dim=1)
    return opening.argsort()[: max(1, round(CLOSED * len(opening)))]
