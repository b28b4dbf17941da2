"""Translating the UNet's repeated blocks with torch.compile: its parts are few, so each kind is translated once."""

from __future__ import annotations

from .attention import TransformerBlock
from .audio_attention import AudioBlock
from .motion_module import TemporalTransformer
from .unet import UNet

VARIANTS = 64
"""Shapes that each kind of block may be translated for. torch's own limit, 8, is below the 12 of APasco's audio blocks
in steps with guidance and without; beyond the limit blocks run untranslated, as those of a second size would."""


def set_compiled(unet: UNet, compiled: bool) -> None:
    """Whether this network's attention blocks, spatial, temporal and to speech, run compiled from now on.

    The first compiled runs take minutes. Switched off, the network is again what it was before.
    """
    if compiled:
        import torch._dynamo.config as limits  # loads the compiler, which takes seconds

        limits.cache_size_limit = max(limits.cache_size_limit, VARIANTS)  # older torch has this name alone
    for module in unet.modules():
        if isinstance(module, TransformerBlock | AudioBlock | TemporalTransformer):
            if not compiled:
                module._compiled_call_impl = None  # torch has a call for the one way only
            elif getattr(module, "_compiled_call_impl", None) is None:
                module.compile(dynamic=False)
