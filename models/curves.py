"""Curves between two values that many places use."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch

Values = TypeVar("Values", np.ndarray, torch.Tensor)


def smoothstep(low: Any, high: Any, values: Values) -> Values:
    """0 below `low`, 1 above `high`, t^2 (3 - 2 t) between; `low` > `high` falls instead."""
    t = ((values - low) / (high - low)).clip(0, 1)
    return t * t * (3 - 2 * t)


def soft_limit(values: np.ndarray, start: float, limit: float) -> np.ndarray:
    """`values` up to `start`; beyond it start + (limit - start) tanh((values - start) / (limit - start))."""
    span = limit - start
    return np.where(values > start, start + span * np.tanh((values - start) / span), values)
