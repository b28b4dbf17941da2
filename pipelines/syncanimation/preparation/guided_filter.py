"""The guided filter (He 2010): values follow a picture's edges, being in each box a linear function of its colours."""

from __future__ import annotations

import numpy as np

from ...packages import load_opencv

SMOOTHNESS = 1e-3
"""Squared contrast of a picture in 0..1 that counts as an edge."""


class GuidedFilter:
    """Filters of one picture (h, w, 3) uint8, with boxes that reach `radius` pixels to each side."""

    def __init__(self, picture: np.ndarray, radius: int) -> None:
        self.picture = picture.astype(np.float32) / 255
        self.kernel = (2 * radius + 1, 2 * radius + 1)
        self.mean = self._box(self.picture)
        squares = self._box(np.square(self.picture)) - np.square(self.mean) + SMOOTHNESS
        others, means = self.picture[..., [1, 2, 0]], self.mean[..., [1, 2, 0]]
        products = self._box(self.picture * others) - self.mean * means
        (a, d, f), (b, e, c) = np.moveaxis(squares, -1, 0), np.moveaxis(products, -1, 0)
        # The inverse of the covariance [[a, b, c], [b, d, e], [c, e, f]] by its cofactors.
        cofactors = d * f - e * e, c * e - b * f, b * e - c * d, a * f - c * c, b * c - a * e, a * d - b * b
        self.inverse = (
            np.stack(cofactors, axis=-1) / (a * cofactors[0] + b * cofactors[1] + c * cofactors[2])[..., None]
        )

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """`values` (h, w) or (h, w, C) along the picture's edges."""
        if values.ndim == 3:
            return np.stack([self(values[..., channel]) for channel in range(values.shape[2])], axis=-1)
        values = np.ascontiguousarray(values, np.float32)
        mean = self._box(values)
        x, y, z = np.moveaxis(self._box(self.picture * values[..., None]) - self.mean * mean[..., None], -1, 0)
        a, b, c, d, e, f = np.moveaxis(self.inverse, -1, 0)
        slope = np.stack([a * x + b * y + c * z, b * x + d * y + e * z, c * x + e * y + f * z], axis=-1)
        offset = mean - (slope * self.mean).sum(axis=-1)
        return (self._box(slope) * self.picture).sum(axis=-1) + self._box(offset)

    def _box(self, values: np.ndarray) -> np.ndarray:
        return load_opencv().blur(values, self.kernel, borderType=load_opencv().BORDER_REFLECT)
