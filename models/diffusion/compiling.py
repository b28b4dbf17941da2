"""Translating the UNet's repeated blocks with torch.compile: its parts are few, so each kind is translated once."""

from __future__ import annotations

from .attention import TransformerBlock
from .motion_module import TemporalTransformer
from .unet import UNet


def set_compiled(unet: UNet, compiled: bool) -> None:
    """Whether this network's attention blocks, spatial and temporal, run compiled from now on.

    The first compiled runs take minutes. Switched off, the network is again what it was before.
    """
    for module in unet.modules():
        if isinstance(module, TransformerBlock | TemporalTransformer):
            if not compiled:
                module._compiled_call_impl = None  # torch has a call for the one way only
            elif getattr(module, "_compiled_call_impl", None) is None:
                module.compile(dynamic=False)
