"""The 68 landmarks that evaluations of talking faces count in, among MediaPipe's 478.

The order is that of the iBUG 300-W annotation: jaw 0-16 from the picture's left, brows 17-26, nose 27-35, eyes 36-47,
outer lips 48-59, inner lips 60-67.
"""

from __future__ import annotations

import numpy as np

LANDMARKS_68 = (
    127, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 356,
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,
    168, 197, 5, 4, 98, 97, 2, 326, 327,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,
    78, 82, 13, 312, 308, 317, 14, 87,
)  # fmt: skip


def landmarks_68(points: np.ndarray) -> np.ndarray:
    """The 68 landmarks (..., 68, 2) of MediaPipe's (..., 468 or 478, 2 or 3), in the same unit."""
    return points[..., list(LANDMARKS_68), :2]
