"""Means of squares of a picture."""

from __future__ import annotations

import torch
from talking_portrait.pipelines.image.windows import box_mean, large_box_mean


def test_both_means_of_a_square_are_the_same():
    values = torch.rand(2, 3, 40, 50, generator=torch.Generator().manual_seed(0))
    for radius in (1, 7, 19):
        torch.testing.assert_close(large_box_mean(values, radius), box_mean(values, radius))
