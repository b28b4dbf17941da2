"""Slaney's mel scale: linear below 1 kHz, logarithmic above it."""

from __future__ import annotations

import math

import torch

_LINEAR, _KNEE, _LOG_STEP = 200 / 3, 1000.0, math.log(6.4) / 27
"""Hertz a mel below the knee, the knee, and the logarithm of the growth a mel above it."""


def slaney_mel(hertz: float) -> float:
    return hertz / _LINEAR if hertz < _KNEE else _KNEE / _LINEAR + math.log(hertz / _KNEE) / _LOG_STEP


def slaney_hertz(mel: torch.Tensor) -> torch.Tensor:
    knee = _KNEE / _LINEAR
    return torch.where(mel < knee, mel * _LINEAR, _KNEE * ((mel - knee) * _LOG_STEP).exp())
