"""The precision that a diffusion's networks are loaded in, as the user chooses it."""

from __future__ import annotations

from typing import Any

import torch

from ..pipelines.diffusion.latents import check_precision
from . import host

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def dtype_input() -> Any:
    return host.io.Combo.Input(
        "dtype",
        options=["auto", *DTYPES],
        default="auto",
        tooltip="auto: float16 on a graphics card, as published, and float32 on a CPU. bfloat16 is less precise "
        "and does not overflow.",
    )


def chosen_dtype(name: str) -> torch.dtype:
    """auto: half precision where there is a graphics card, as published; on a CPU single precision.

    Raises TalkingPortraitError for half precision on a CPU.
    """
    device = host.torch_device()
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.float16
    check_precision(device, DTYPES[name])
    return DTYPES[name]
