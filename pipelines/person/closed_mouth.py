"""The frames of a person's video in which the mouth is closed, or nearly so."""

from __future__ import annotations

import torch

CLOSED = 0.05
"""Part of the person's frames, those with the least open lips, whose mean is the closed mouth."""
INNER_LIPS, EYES = (62, 66), (36, 45)
"""Of the 68 landmarks: the middles of the lips, and the outer corners of the eyes."""


def least_open(opening: torch.Tensor) -> torch.Tensor:
    """Which of the frames, of whose lips the `opening` (N,) is given, are the closed ones."""
    return opening.argsort()[: max(1, round(CLOSED * len(opening)))]
