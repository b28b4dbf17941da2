"""The guided filter (He 2010): values follow the edges of a picture. In each box they are a linear function of colour."""

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
        pairs = (self.picture[..., :, None] * self.picture[..., None, :]).reshape(*picture.shape[:2], 9)
        covariance = self._box(pairs).reshape(*picture.shape[:2], 3, 3)
        covariance -= self.mean[..., :, None] * self.mean[..., None, :]
        self.inverse = np.linalg.inv(covariance + SMOOTHNESS * np.eye(3, dtype=np.float32))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """`values` (h, w) or (h, w, C) along the picture's edges."""
        values = np.atleast_3d(values).astype(np.float32)
        channels = []
        for channel in range(values.shape[2]):
            value = values[..., channel]
            mean = self._box(value)
            shared = self._box(self.picture * value[..., None]) - self.mean * mean[..., None]
            slope = (self.inverse @ shared[..., None])[..., 0]
            offset = mean - (slope * self.mean).sum(axis=-1)
            fit = self._box(np.dstack([slope, offset]))
            channels.append((fit[..., :3] * self.picture).sum(axis=-1) + fit[..., 3])
        return np.stack(channels, axis=-1).squeeze()

    def _box(self, values: np.ndarray) -> np.ndarray:
        cv2 = load_opencv()
        if values.ndim == 3 and values.shape[2] > 4:  # OpenCV filters at most four channels of it at once
            return np.dstack([self._box(values[..., i : i + 3]) for i in range(0, values.shape[2], 3)])
        return cv2.blur(values, self.kernel, borderType=cv2.BORDER_REFLECT)
