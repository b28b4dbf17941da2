"""NumPy's arrays in pickles: what their records say, without building one.

Source of the records: NumPy's documentation of `ndarray.__reduce__` and `dtype.__reduce__`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

ARRAYS = tuple(f"numpy.{core}.multiarray _reconstruct" for core in ("core", "_core"))
"""What a pickle calls for an empty array, which is then filled."""
_NUMBERS = {
    "f8": torch.float64,
    "f4": torch.float32,
    "f2": torch.float16,
    "i8": torch.int64,
    "i4": torch.int32,
    "i2": torch.int16,
    "i1": torch.int8,
    "u1": torch.uint8,
    "b1": torch.bool,
}


@dataclass
class NumberType:
    """A NumPy dtype of this name; `order` is ">" where its bytes are in big-endian order."""

    name: Any
    order: Any = "<"

    @property
    def dtype(self) -> torch.dtype | None:
        """None for one that no tensor here has."""
        return None if self.order == ">" else _NUMBERS.get(str(self.name))


def array_of(state: Any, most_dimensions: int) -> tuple[torch.dtype, tuple[int, ...], bytes] | None:
    """Type, shape and bytes of the array that is filled with `state`; None for one that is not rows of numbers.

    Raises ValueError or TypeError for a state that no array has.
    """
    _, shape, kind, columns_first, data = state
    if not isinstance(kind, NumberType) or kind.dtype is None or columns_first:
        return None
    if isinstance(data, str):  # as Python 2 wrote bytes
        data = data.encode("latin-1")
    odd = len(shape) > most_dimensions or any(type(n) is not int or n < 0 for n in shape)
    if odd or not isinstance(data, bytes) or len(data) != math.prod(shape) * kind.dtype.itemsize:
        raise ValueError("an array's bytes and its shape do not belong together")
    return kind.dtype, tuple(shape), data
