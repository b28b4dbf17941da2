"""Where no head can be, from its silhouettes: what the published training finds out in thousands of steps."""

from __future__ import annotations

import numpy as np
import torch

from ....models.syncanimation.rendering.camera import Camera
from ....models.syncanimation.rendering.occupancy import OccupancyGrid, cell_places
from ...packages import load_opencv
from ...progress import check_interrupted
from ...syncanimation.avatar import HEAD_PART, Avatar

SILHOUETTES = 60
"""Frames, spread over the training, whose silhouettes are looked at."""
ROOM = 0.025
"""By which silhouettes are grown first, in parts of the pictures' side: masks are not exact."""
MISSES = 0.1
"""Part of the silhouettes that a cell of the head may lie outside of, as some masks are wrong."""


def carve(grid: OccupancyGrid, avatar: Avatar, camera: Camera, poses: torch.Tensor, frames: np.ndarray) -> None:
    """Marks cells of the head's grid as never seen that lie outside of the head's silhouettes.

    `poses` (N, 4, 4) are the renderer's of all frames.
    """
    chosen = frames[np.linspace(0, len(frames) - 1, min(SILHOUETTES, len(frames))).astype(int)]
    cells = (grid.density.flatten() >= 0).nonzero()[:, 0]
    places = cell_places(cells)
    outside = torch.zeros(len(cells), dtype=torch.int32)
    allowed = int(MISSES * len(chosen))
    cv2 = load_opencv()
    kernel = np.ones((2 * max(1, round(ROOM * avatar.size)) + 1,) * 2, np.uint8)
    for frame in chosen:
        check_interrupted()
        head = cv2.dilate((avatar.parts([int(frame)])[0] == HEAD_PART).astype(np.uint8), kernel)
        if not head.any():
            continue
        pose = poses[int(frame)]
        x, y, z = ((places - pose[:3, 3]) @ pose[:3, :3]).unbind(1)
        column = (x / z * camera.focal_x + camera.centre_x).long()
        row = (y / z * camera.focal_y + camera.centre_y).long()
        inside = (z > 0) & (row >= 0) & (row < camera.height) & (column >= 0) & (column < camera.width)
        place = row.clamp(0, camera.height - 1) * camera.width + column.clamp(0, camera.width - 1)
        covered = torch.from_numpy(head.ravel() > 0)[place]
        # Beyond the picture's edge nobody can say.
        outside += inside & ~covered
        kept = outside <= allowed
        grid.density.view(-1)[cells[~kept]] = -1
        cells, places, outside = cells[kept], places[kept], outside[kept]
