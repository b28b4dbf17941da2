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


def slaney_filters(bands: int, low: float, high: float, spectrum: int, sample_rate: int) -> torch.Tensor:
    """Triangles (bands, spectrum // 2 + 1) of unit area in Hz, evenly spaced on this scale from `low` to `high` Hz."""
    corners = slaney_hertz(torch.linspace(slaney_mel(low), slaney_mel(high), bands + 2, dtype=torch.float64))
    bins = torch.arange(spectrum // 2 + 1, dtype=torch.float64) * sample_rate / spectrum
    left, middle, right = (corners[first : first + bands, None] for first in range(3))
    triangles = torch.minimum((bins - left) / (middle - left), (right - bins) / (right - middle)).clamp(min=0)
    return (triangles * 2 / (right - left)).float()
