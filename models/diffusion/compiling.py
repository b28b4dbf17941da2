"""Translating the UNet's repeated blocks with torch.compile: its parts are few, so each kind is translated once."""

from __future__ import annotations

from torch import nn

from .attention import TransformerBlock
from .motion_module import TemporalTransformer
from .unet import UNet


def compile_blocks(unet: UNet) -> None:
    """From now on this network's attention blocks run compiled, spatial and temporal. The first runs take minutes."""
    for module in unet.modules():
        if isinstance(module, TransformerBlock | TemporalTransformer):
            _compile(module)


def _compile(module: nn.Module) -> None:
    if getattr(module, "_compiled_call_impl", None) is None:
        module.compile(dynamic=False)
