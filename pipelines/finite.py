"""The checks for tensors whose values are no numbers, or can't be read as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import TalkingPortraitError

if TYPE_CHECKING:
    import torch


def check_plain(values: object, source: str) -> None:
    """Raises TalkingPortraitError where a tensor from outside, `source`, does not hold each of its values in memory.

    What is no tensor is for other checks.
    """
    import torch

    if not isinstance(values, torch.Tensor):
        return
    if values.is_meta:
        kind, advice = 'on the device "meta", which holds no values', "compute it on a device that does"
    elif values.is_nested:
        kind, advice = "nested", "pad its parts to one shape with torch.nested.to_padded_tensor"
    elif values.is_quantized:
        kind, advice = "quantised", "convert it with its dequantize()"
    elif values.layout != torch.strided:
        kind, advice = (
            f"stored as {str(values.layout).removeprefix('torch.').strip('_')}",
            "convert it with its to_dense()",
        )
    else:
        return
    raise TalkingPortraitError(f"{source} is a tensor {kind}, but a plain one is expected; {advice}.")


def all_finite(values: torch.Tensor) -> bool:
    """Whether no value is NaN or infinite.

    The sum says so in one pass, without a mask of the values' size; only where it overflows are they looked at singly.
    """
    import torch

    half = values.dtype in (torch.float16, torch.bfloat16)
    total = values.sum(dtype=torch.float32 if half else None)
    return bool(total.isfinite()) or bool(values.isfinite().all())


LOWEST, HIGHEST = -0.5, 4.0
"""Filters and upscalers go a little beyond 0..1, and highlights further; what goes beyond these has another scale."""


def check_scale(values: torch.Tensor, source: str, nan_advice: str) -> None:
    """Raises TalkingPortraitError where a picture or mask, `source`, holds NaN or has another scale than 0..1."""
    if not all_finite(values):
        raise TalkingPortraitError(f"{source} holds NaN or infinite values, but 0 to 1 is expected; {nan_advice}")
    lowest, highest = (float(value) for value in values.aminmax())
    if lowest < LOWEST or highest > HIGHEST:
        raise TalkingPortraitError(
            f"{source} has values from {lowest:g} to {highest:g}, but 0 to 1 is expected; scale them first."
        )


def check_finite(
    values: torch.Tensor,
    source: str,
    advice: str = "load it in bfloat16 or float32, or download its file again",
    *,
    where: str = "",
) -> None:
    """Raises TalkingPortraitError where a network, `source`, gave values that are no numbers.

    `where` may end the first part of the sentence, with its blank: " in step 3 of 25".
    """
    if not all_finite(values):
        raise TalkingPortraitError(f"{source} gave values that are not numbers (NaN){where}; {advice}.")
