"""The acoustic encoder: the first layers of a speech recogniser, whose states predict lips better than mel bands do.

They are those of Whisper tiny.en (Radford et al. 2022, arXiv:2212.04356; OpenAI, MIT, see NOTICE): 80 log-mel bands at
100 Hz, two convolutions, of which the second halves the rate, and transformer blocks. Its later layers, which gather
words, predict lips less well and are left out.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from torch import nn

from ..weight_files import read_shipped, save_tensors
from .mel_scale import slaney_filters

SHIPPED = Path(__file__).with_name("acoustic_encoder.safetensors")
"""The file of weights that comes with the pack."""
_STORED_SCALE = "_scale"
BANDS = 80
SPECTRUM = 400
"""Samples at 16 kHz of a spectrum, under a Hann window."""
CHANNELS = 384
HEADS = 6
BLOCKS = 2
"""Of the recogniser's four; the second one's states predict lips best, by leaving speakers out."""
_WIDER = 4
LEVEL_DB = -26.0
"""The speech level (`mouth_network.speech_level`) at which the recogniser is given speech."""
_FLOOR_DB = -38.0
"""In dB of the speech level, what is added to all power; the published code cuts off 80 dB below the loudest band."""
_SCALE = 10000.0
"""What the recogniser's power is of ours, whose full scale is 1: the square of half the sum of its window."""


@cache
def acoustic_filters() -> torch.Tensor:
    """Filters (80, 201) of the recogniser."""
    return slaney_filters(BANDS, 0.0, 8000.0, SPECTRUM, 16000)


def acoustic_input(power: torch.Tensor, level: torch.Tensor | float) -> torch.Tensor:
    """Mel power (..., frames, 80) by `acoustic_filters`, to encoder input; `level` is that of speech in dB."""
    gain = 10 ** ((LEVEL_DB - torch.as_tensor(level)) / 10) * _SCALE
    return log_bands(power * gain + 10 ** ((LEVEL_DB + _FLOOR_DB) / 10))


def log_bands(power: torch.Tensor) -> torch.Tensor:
    """Power in the recogniser's scale as it takes it."""
    return (power.log10() + 4) / 4


def band_power(bands: torch.Tensor) -> torch.Tensor:
    """The power that `log_bands` made them of."""
    return 10 ** (4 * bands - 4)


class AcousticBlock(nn.Module):
    """Attention over all frames and a feed-forward layer, each given the norm of (batch, frames, channels)."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(CHANNELS)
        self.queries_keys_values = nn.Linear(CHANNELS, 3 * CHANNELS)
        self.mix = nn.Linear(CHANNELS, CHANNELS)
        self.norm = nn.LayerNorm(CHANNELS)
        self.wider = nn.Linear(CHANNELS, _WIDER * CHANNELS)
        self.narrower = nn.Linear(_WIDER * CHANNELS, CHANNELS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.queries_keys_values(self.attention_norm(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.mix(nn.functional.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2))
        fed: torch.Tensor = x + self.narrower(nn.functional.gelu(self.wider(self.norm(x))))
        return fed


class AcousticEncoder(nn.Module):
    """`acoustic_input` (batch, frames, 80) at 100 Hz to states (batch, (frames + 1) // 2, 384) at 50 Hz.

    The states of each frame have the mean 0 and the deviation 1: no weights of the published encoder's own follow.
    """

    channels = CHANNELS
    filters = staticmethod(acoustic_filters)
    input = staticmethod(acoustic_input)

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Conv1d(BANDS, CHANNELS, 3, padding=1)
        self.halve = nn.Conv1d(CHANNELS, CHANNELS, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(AcousticBlock() for _ in range(blocks))

    def forward(self, bands: torch.Tensor) -> torch.Tensor:
        x = nn.functional.gelu(self.stem(bands.transpose(1, 2)))
        x = nn.functional.gelu(self.halve(x)).transpose(1, 2)
        x = x + _positions(x.shape[1]).to(x)
        for block in self.blocks:
            x = block(x)
        return nn.functional.layer_norm(x, (CHANNELS,))


def _positions(frames: int) -> torch.Tensor:
    """(frames, 384): sines and cosines of the frame's number at wavelengths of 2 pi to 20,000 pi."""
    rates = torch.exp(torch.arange(CHANNELS // 2) * (-math.log(10000) / (CHANNELS // 2 - 1)))
    angles = torch.arange(frames)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def stored_weights(encoder: AcousticEncoder) -> dict[str, torch.Tensor]:
    """The weights as files have them: what has more than one dimension in eight bits, beside the `..._scale` (float32)
    of each output, and the others in half precision."""
    weights = {}
    for name, value in encoder.state_dict().items():
        if value.ndim > 1:
            scale = value.abs().amax(dim=tuple(range(1, value.ndim)), keepdim=True).clamp(min=1e-12) / 127
            weights[name], weights[name + _STORED_SCALE] = (value / scale).round().to(torch.int8), scale
        else:
            weights[name] = value.half()
    return weights


def restored_weights(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """In float32 those of `stored_weights`, or of any file without scales.

    Raises ValueError for eight bits without a scale, and for a scale that is none of a tensor's.
    """
    restored = {name: value.float() for name, value in weights.items() if not name.endswith(_STORED_SCALE)}
    for name, value in restored.items():
        scale = weights.get(name + _STORED_SCALE)
        if (scale is not None) != (weights[name].dtype == torch.int8):
            raise ValueError(f"{name} is in eight bits without a scale, or has one without them")
        if scale is not None:
            if scale.shape != (*value.shape[:1], *[1] * (value.ndim - 1)):
                raise ValueError(f"the scale of {name} is none of one")
            restored[name] = value * scale
    surplus = [
        name for name in weights if name.endswith(_STORED_SCALE) and name.removesuffix(_STORED_SCALE) not in restored
    ]
    if surplus:
        raise ValueError(f"{surplus[0]} is the scale of nothing")
    return restored


@cache
def shipped_weights() -> dict[str, torch.Tensor]:
    """The `stored_weights` that come with the pack."""
    from safetensors.torch import load_file

    return read_shipped(SHIPPED, lambda path: _whole(load_file(path)))


def _whole(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of an encoder, strictly. Raises RuntimeError or ValueError for others."""
    with torch.device("meta"):
        encoder = AcousticEncoder(BLOCKS)
    encoder.load_state_dict(restored_weights(weights), strict=True, assign=True)
    return weights


def shipped_encoder() -> AcousticEncoder:
    """The one that comes with the pack, in evaluation mode."""
    encoder = AcousticEncoder(BLOCKS)
    encoder.load_state_dict(restored_weights(shipped_weights()))
    return encoder.eval()


def fingerprint(weights: Mapping[str, torch.Tensor]) -> str:
    """Eight hexadecimal digits of weights as files have them."""
    digest = hashlib.blake2b(digest_size=4)
    for name, weight in sorted(weights.items()):
        digest.update(name.encode() + weight.numpy().astype("<f2").tobytes())
    return digest.hexdigest()


def save_encoder(encoder: AcousticEncoder, path: Path) -> None:
    """Writes the file that ships."""
    save_tensors(stored_weights(encoder), path)
