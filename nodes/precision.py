"""The precision that a diffusion's networks are loaded in, as the user chooses it."""

from __future__ import annotations

import torch

from ..pipelines.diffusion.latents import DTYPES, precision
from . import host
from .host import io


def dtype_input() -> io.Input:
    return io.Combo.Input(
        "dtype",
        options=["auto", *DTYPES],
        default="auto",
        tooltip="auto: float16 on a graphics card, as published, and float32 on a CPU. bfloat16 is less precise "
        "and does not overflow.",
    )


def chosen_dtype(name: str) -> torch.dtype:
    """The type of the weights. Raises TalkingPortraitError for half precision on a CPU."""
    return precision(name, host.torch_device())
