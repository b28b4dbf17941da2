"""What is around each pixel of a picture: the largest value and the mean of a square, by rows and columns in turn."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..progress import check_interrupted


def grown(values: torch.Tensor, radius: int) -> torch.Tensor:
    """The largest (..., C, h, w) of `values` (..., C, h, w) in the square of 2 `radius` + 1 pixels around each."""
    check_interrupted()
    down = F.max_pool2d(values, (2 * radius + 1, 1), stride=1, padding=(radius, 0))
    return F.max_pool2d(down, (1, 2 * radius + 1), stride=1, padding=(0, radius))


def box_mean(values: torch.Tensor, radius: int) -> torch.Tensor:
    """Means (..., C, h, w) of that square of `values` (..., C, h, w), whose border values go on."""
    check_interrupted()
    size = 2 * radius + 1
    padded = F.pad(values, (radius,) * 4, mode="replicate")
    return F.avg_pool2d(F.avg_pool2d(padded, (1, size), stride=1), (size, 1), stride=1)


def large_box_mean(values: torch.Tensor, radius: int) -> torch.Tensor:
    """`box_mean` of `values` on the CPU, in a time that does not grow with the square."""
    from scipy.ndimage import uniform_filter1d

    array = values.numpy()
    for axis in (-1, -2):
        check_interrupted()
        array = uniform_filter1d(array, 2 * radius + 1, axis=axis, mode="nearest")
    return torch.from_numpy(array)
