"""Weight norm as torch 2.0 saved it, which the published files have."""

from __future__ import annotations

from collections.abc import Mapping

import torch

_NAMES = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}


def old_names(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict of today's torch with the former names."""
    renamed = {}
    for name, tensor in state.items():
        for new, old in _NAMES.items():
            name = name.replace(new, old)
        renamed[name] = tensor
    return renamed
