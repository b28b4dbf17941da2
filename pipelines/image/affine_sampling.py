"""Cutting any box, also a turned one, out of a picture at any size: antialiased, to a fraction of a pixel.

Maps are affine, 2 x 3, from pixels of the result to pixels of the picture, with pixel centres at +0.5, so that
(0, 0) is the top left corner of the top left pixel.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as functional

from ..progress import check_interrupted

Border = Literal["edge", "black"]

KEPT_SHRINKING = 1.5
"""Larger shrinking is done by averaging whole blocks of pixels first, and only the rest by the finer filter."""

LEAST_ALPHA = 1 / 512
"""What is less opaque than this counts as transparent."""


def box_map(left: float, top: float, width: float, height: float, size: tuple[int, int]) -> np.ndarray:
    """The map (2, 3) of an upright box in the picture to a result of `size` (height, width)."""
    return np.array([[width / size[1], 0.0, left], [0.0, height / size[0], top]])


def turned_map(centre: tuple[float, float], side: float, degrees: float, size: tuple[int, int]) -> np.ndarray:
    """The map (2, 3) of a box round `centre`, turned `degrees` clockwise in the picture, to a result of `size`.

    `size` is (height, width), `side` the box's shorter side; pixels stay square.
    """
    turn = math.radians(degrees)
    step = side / min(size)
    linear = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]) * step
    middle = np.array([size[1], size[0]]) / 2
    return np.column_stack([linear, np.asarray(centre) - linear @ middle])


def apply_map(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Carry x and y of `points` (..., 2 or 3) through a map (2, 3); a depth grows with the map's scale."""
    moved = np.array(points, dtype=np.float64)
    moved[..., :2] = points[..., :2] @ matrix[:, :2].T + matrix[:, 2]
    if points.shape[-1] == 3:
        moved[..., 2] *= map_scale(matrix)
    return moved


def invert_map(matrix: np.ndarray) -> np.ndarray:
    """The map (2, 3) that undoes `matrix`."""
    inverse = np.linalg.inv(matrix[:, :2])
    return np.concatenate([inverse, -inverse @ matrix[:, 2:]], axis=1)


def map_corners(matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Where in the picture the corners (4, 2) of a result of `size` (height, width) lie: the upper two, left first."""
    height, width = size
    return apply_map(matrix, np.array([[0.0, 0.0], [width, 0.0], [0.0, height], [width, height]]))


def map_scale(matrix: np.ndarray) -> float:
    """Picture pixels for each pixel of the result."""
    return math.sqrt(abs(np.linalg.det(matrix[:, :2])))


def sample_picture(
    picture: torch.Tensor, matrix: np.ndarray, size: tuple[int, int], border: Border = "edge"
) -> torch.Tensor:
    """The part of `picture` (H, W, C) float that `matrix` (2, 3) points at, as (height, width, C).

    Outside the picture "edge" repeats its outermost pixels and "black" gives zeros. Shrinking averages over the
    area that a result pixel covers; enlarging is bicubic. A map of whole pixels copies them unchanged. With four
    channels the last is alpha: colours count by it, so that what is transparent does not colour its neighbours.
    """
    if picture.shape[-1] == 4:
        alpha = picture[..., 3:]
        weighted = torch.cat([picture[..., :3] * alpha, picture], dim=-1)
        premultiplied, own, alpha = _sampled(weighted, matrix, size, border).split([3, 3, 1], dim=-1)
        # Where all is transparent there is nothing to weigh.
        visible = alpha > LEAST_ALPHA
        colours = torch.where(visible, premultiplied / alpha.clamp(min=LEAST_ALPHA), own).clamp_(0.0, 1.0)
        return torch.cat([colours, alpha], dim=-1)
    return _sampled(picture, matrix, size, border)


def over_white(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures (..., 3 or 4) as (..., 3): what is transparent by the last of four channels is laid over white."""
    if pictures.shape[-1] == 3:
        return pictures
    alpha = pictures[..., 3:]
    return torch.lerp(torch.ones_like(alpha), pictures[..., :3], alpha)


def _sampled(picture: torch.Tensor, matrix: np.ndarray, size: tuple[int, int], border: Border) -> torch.Tensor:
    check_interrupted()
    part, matrix = _covered_part(picture, matrix, size, border)
    if matrix[0, 1] == 0.0 and matrix[1, 0] == 0.0 and matrix[0, 0] > 0 and matrix[1, 1] > 0:
        return _sample_upright(part, matrix, size, border)
    return _sample_turned(part, matrix, size, border)


def _covered_part(
    picture: torch.Tensor, matrix: np.ndarray, size: tuple[int, int], border: Border
) -> tuple[torch.Tensor, np.ndarray]:
    """What a map reaches of the picture, averaged over blocks where it shrinks a lot, and the map to that."""
    steps = np.linalg.norm(matrix[:, :2], axis=1)  # picture pixels in x and in y for a step in the result
    blocks = np.maximum((steps / KEPT_SHRINKING).astype(int), 1)
    reach = np.ceil(2 * np.maximum(steps, 1)).astype(int) + 1
    corners = map_corners(matrix, size)
    limit = np.array([picture.shape[1], picture.shape[0]])
    first = np.clip(np.floor(corners.min(axis=0)).astype(int) - reach, 0, limit - 1)
    last = np.clip(np.ceil(corners.max(axis=0)).astype(int) + reach, first + 1, limit)
    # Blocks lie on a grid of the picture's own, so that they don't shimmer when the map moves.
    first = first // blocks * blocks
    part = picture[first[1] : last[1], first[0] : last[0]]
    moved = np.column_stack([matrix[:, :2], matrix[:, 2] - first])
    if (blocks > 1).any():
        planes = part.permute(2, 0, 1)[None]
        missing = [-extent % block for extent, block in zip((part.shape[1], part.shape[0]), blocks, strict=True)]
        padding = (0, missing[0], 0, missing[1])
        if any(missing):
            planes = functional.pad(planes, padding, mode="replicate" if border == "edge" else "constant")
        part = functional.avg_pool2d(planes, (int(blocks[1]), int(blocks[0])))[0].permute(1, 2, 0)
        moved = moved / blocks[:, None]
    return part, moved


def _sample_upright(part: torch.Tensor, matrix: np.ndarray, size: tuple[int, int], border: Border) -> torch.Tensor:
    rows = _filter_table(matrix[1, 1], matrix[1, 2], size[0], part.shape[0], border).to(part)
    columns = _filter_table(matrix[0, 0], matrix[0, 2], size[1], part.shape[1], border).to(part)
    planes = part.permute(2, 0, 1)
    return (rows @ planes @ columns.T).permute(1, 2, 0).contiguous().clamp_(0.0, 1.0)


def _filter_table(scale: float, start: float, out: int, length: int, border: Border) -> torch.Tensor:
    """Weights (out, length) of one axis."""
    support = 2.0 * max(scale, 1.0)
    centre = (torch.arange(out, dtype=torch.float64) + 0.5) * scale + start - 0.5
    taps = torch.arange(-math.ceil(support), math.ceil(support) + 1, dtype=torch.float64)
    position = centre.floor()[:, None] + taps
    weight = _cubic((position - centre[:, None]) / max(scale, 1.0))
    weight = weight / weight.sum(dim=1, keepdim=True)
    if border == "black":
        weight = weight * ((position >= 0) & (position < length))
    table = torch.zeros(out, length, dtype=torch.float64)
    return table.scatter_add_(1, position.clamp(0, length - 1).long(), weight)


def _cubic(distance: torch.Tensor) -> torch.Tensor:
    """Keys' cubic convolution kernel with a = -0.5, which reproduces whole pixels and straight ramps."""
    x = distance.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _sample_turned(part: torch.Tensor, matrix: np.ndarray, size: tuple[int, int], border: Border) -> torch.Tensor:
    """Several samples for each result pixel where the picture is shrunk, then their mean."""
    dense = max(1, math.ceil(map_scale(matrix)))
    height, width = size[0] * dense, size[1] * dense
    local = torch.tensor(matrix, dtype=part.dtype, device=part.device)
    x = (torch.arange(width, dtype=part.dtype, device=part.device) + 0.5) / dense
    y = (torch.arange(height, dtype=part.dtype, device=part.device) + 0.5) / dense
    grid = local[:, 0] * x[None, :, None] + local[:, 1] * y[:, None, None] + local[:, 2]
    grid = grid * 2 / torch.tensor([part.shape[1], part.shape[0]], dtype=part.dtype, device=part.device) - 1
    sampled = functional.grid_sample(
        part.permute(2, 0, 1)[None],
        grid[None],
        mode="bicubic" if dense == 1 else "bilinear",
        padding_mode="border" if border == "edge" else "zeros",
        align_corners=False,
    )
    if dense > 1:
        sampled = functional.avg_pool2d(sampled, dense)
    return sampled[0].permute(1, 2, 0).clamp(0.0, 1.0)
