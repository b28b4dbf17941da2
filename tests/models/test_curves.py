from __future__ import annotations

import numpy as np
import pytest
import torch
from talking_portrait.models.curves import smoothstep, soft_limit


@pytest.mark.parametrize("make", [np.array, torch.tensor])
def test_smoothstep_rises_or_falls_between_its_ends(make) -> None:
    values = make([1.0, 2.0, 2.5, 3.0, 4.0, 9.0])
    rising = [0, 0, 0.15625, 0.5, 1, 1]
    np.testing.assert_allclose(np.asarray(smoothstep(2.0, 4.0, values)), rising, atol=1e-6)
    np.testing.assert_allclose(np.asarray(smoothstep(4.0, 2.0, values)), 1 - np.array(rising), atol=1e-6)


def test_a_soft_limit_changes_nothing_before_its_start_and_is_never_passed() -> None:
    values = np.array([-5.0, 0.0, 0.7, 0.701, 1.0, 100.0])
    limited = soft_limit(values, 0.7, 1.0)
    np.testing.assert_allclose(limited, [-5.0, 0.0, 0.7, 0.701, 0.7 + 0.3 * np.tanh(1), 1.0], atol=1e-6)
