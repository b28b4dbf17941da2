"""A video's rotation: how its frames are turned for display, as telephones that are held upright ask for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class VideoRotation:
    """A turn by a multiple of 90 degrees, mirrored or not: rows and columns are swapped first, then flipped."""

    swaps: bool = False
    flips_rows: bool = False
    flips_columns: bool = False

    @classmethod
    def of_matrix(cls, matrix: bytes | None) -> VideoRotation:
        """The rotation of ffmpeg's display matrix (nine int32), to the nearest multiple of 90 degrees.

        It maps stored (x, y) to shown (a x + c y, b x + d y), all as fixed-point numbers.
        """
        if matrix is None:
            return cls()
        a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].astype(np.int64)
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(False, bool(d < 0), bool(a < 0))
        return cls(True, bool(b < 0), bool(c < 0))

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """(H, W, C) as stored; returns it as shown, contiguous."""
        turned = picture.swapaxes(0, 1) if self.swaps else picture
        return np.ascontiguousarray(turned[:: -1 if self.flips_rows else 1, :: -1 if self.flips_columns else 1])
