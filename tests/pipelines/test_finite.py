"""Values that are no numbers are found in every precision, and large numbers are not taken for them."""

from __future__ import annotations

import math

import pytest
import torch
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.finite import all_finite, check_finite

PRECISIONS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_bad_value_among_many_is_found(dtype: torch.dtype, bad: float) -> None:
    values = torch.ones(3, 4096, dtype=dtype)
    assert all_finite(values)
    values[1, 7] = bad
    assert not all_finite(values)
    with pytest.raises(TalkingPortraitError, match=r"^The VAE gave values that are not numbers \(NaN\); load it"):
        check_finite(values, "The VAE")


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_values_whose_sum_overflows_are_numbers(dtype: torch.dtype) -> None:
    assert all_finite(torch.full((4096,), torch.finfo(dtype).max, dtype=dtype))


def test_infinities_of_both_signs_do_not_cancel() -> None:
    assert not all_finite(torch.tensor([math.inf, -math.inf]))


@pytest.mark.parametrize("values", [torch.zeros(0), torch.ones(2, dtype=torch.bool), torch.arange(3)])
def test_nothing_and_whole_numbers_are_finite(values: torch.Tensor) -> None:
    assert all_finite(values)
