"""Squares around pixels, compared with torch's pooling."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from talking_portrait.pipelines.image.windows import box_mean, grown, large_box_mean, largest_of_run


@pytest.mark.parametrize("radius", [0, 1, 2, 3, 5, 12])
@pytest.mark.parametrize("shape", [(1, 9, 7), (2, 3, 20, 31)])
def test_squares_are_those_of_pooling(shape: tuple[int, ...], radius: int) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(radius))
    before = values.clone()
    size = 2 * radius + 1
    padded = F.pad(values, (radius,) * 4, mode="replicate")
    torch.testing.assert_close(box_mean(values, radius), F.avg_pool2d(padded, size, stride=1))
    torch.testing.assert_close(large_box_mean(values, radius), F.avg_pool2d(padded, size, stride=1))
    lowest = F.pad(values, (radius,) * 4, value=-torch.inf)
    torch.testing.assert_close(grown(values, radius), F.max_pool2d(lowest, size, stride=1))
    torch.testing.assert_close(values, before, rtol=0, atol=0)


@pytest.mark.parametrize("size", range(1, 10))
def test_a_run_is_as_long_as_it_is_said_to_be(size: int) -> None:
    values = torch.arange(9.0).roll(4)
    expected = torch.stack([values[i : i + size].max() for i in range(10 - size)])
    torch.testing.assert_close(largest_of_run(values, size, 0), expected)
