"""Which pixels are the head, and what is behind it."""

from __future__ import annotations

import numpy as np
import torch

from .portrait_mesh import PortraitMesh


class HeadMatte:
    """`alpha` (1, h, w) in 0..1 and `backdrop` (3, h, w) of the moving box."""

    def __init__(self, picture: np.ndarray, mesh: PortraitMesh, box: tuple[int, int, int, int]) -> None:
        left, top, right, bottom = box
        self.backdrop = torch.from_numpy(picture[top:bottom, left:right].copy()).permute(2, 0, 1)
        self.alpha = torch.ones_like(self.backdrop[:1])
