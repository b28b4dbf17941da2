"""What is around each pixel of a picture: the largest value and the mean of a square, by rows and columns in turn."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from ..progress import check_interrupted


def grown(values: torch.Tensor, radius: int) -> torch.Tensor:
    """The largest (..., C, h, w) of `values` (..., C, h, w) in the square of 2 `radius` + 1 pixels around each."""
    # A border that goes on adds no larger value.
    return largest_of_run(largest_of_run(_with_border(values, radius), 2 * radius + 1, -1), 2 * radius + 1, -2)


def box_mean(values: torch.Tensor, radius: int) -> torch.Tensor:
    """Means (..., C, h, w) of that square of `values` (..., C, h, w), whose border values go on."""
    size = 2 * radius + 1
    across = _of_run(_with_border(values, radius), size, -1, torch.add)
    return _of_run(across, size, -2, torch.add).mul_(1 / size**2)


def largest_of_run(values: torch.Tensor, size: int, axis: int) -> torch.Tensor:
    """The largest of each `size` consecutive values along an axis, which gets shorter by `size` - 1."""
    return _of_run(values, size, axis, torch.maximum)


def large_box_mean(values: torch.Tensor, radius: int) -> torch.Tensor:
    """`box_mean` of `values` on the CPU, in a time that does not grow with the square."""
    from scipy.ndimage import uniform_filter1d

    array = values.numpy()
    for axis in (-1, -2):
        check_interrupted()
        array = uniform_filter1d(array, 2 * radius + 1, axis=axis, mode="nearest")
    return torch.from_numpy(array)


def _with_border(values: torch.Tensor, radius: int) -> torch.Tensor:
    return F.pad(values, (radius,) * 4, mode="replicate")


def _of_run(values: torch.Tensor, size: int, axis: int, join: Callable[..., torch.Tensor]) -> torch.Tensor:
    """What `join` makes of each `size` consecutive values along an axis.

    It is put together of runs of 1, 2, 4 ... values, which torch computes many at once; its pooling takes ten times as
    long.
    """
    check_interrupted()
    count = values.shape[axis] - size + 1
    result: torch.Tensor | None = None
    taken, length = 0, 1
    while True:
        if size & length:
            piece = values.narrow(axis, taken, count)
            result = piece.clone() if result is None else join(result, piece, out=result)
            taken += length
        if taken == size:
            assert result is not None
            return result
        rest = values.shape[axis] - length
        values = join(values.narrow(axis, 0, rest), values.narrow(axis, length, rest))
        length *= 2
