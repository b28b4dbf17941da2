"""The Instant driver's network: log-mel frames to mouth controls; its hidden states are speech features as well.

A residual stack of dilated 1-D convolutions at 50 frames a second, about 0.65 s of context to either side. Its weights
(docs/instant-driver.md says what they were trained on) carry the configuration and a description in the metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..weight_files import save_tensors
from .acoustic_encoder import AcousticEncoder, fingerprint, restored_weights, shipped_weights, stored_weights
from .earlier_encoder import EarlierEncoder

SAMPLE_RATE = 16000
HOP = 160
"""Samples between mel frames: 100 a second. Frame k is centred on sample k * HOP."""
WINDOW = 400
FFT = 512
FRAME_RATE = 50
"""Control frames a second; control frame j is centred on mel frame 2 * j."""
STEM_FRAMES = 5
"""Mel frames that the first layer joins to one control frame."""
CONTROLS = ("jaw", "width", "round", "press", "upper", "tongue")
"""The network's outputs, each 0..1; see models/face/mouth_shapes.py for the shapes."""

FLOOR_DB = -50.0
"""Levels this far below the speech level count as silence."""
QUIETEST_DB = -98.0
"""Speech level, in dB of full scale, below which a recording is silent: 12 dB over the dither of 16-bit sound."""
SILENT_DB = -45.0
"""Frames this far below the loudest one are left out of the speech level."""
ACTIVE_DB = -22.0
PRESS = CONTROLS.index("press")
ACOUSTIC_CONTROLS = 5
"""How many of CONTROLS, from the first on, the acoustic head adds to: all but the tongue."""
MAX_DILATION = 256
"""Frames of 20 ms; the shipped networks' largest is 8."""
PRIOR_FRAMES = 150.0
"""Frames (1.5 s) whose weight the training data's average spectrum has in that of a short recording."""


_ENCODER = "acoustic_encoder."


@dataclass(frozen=True)
class MouthConfig:
    """Sizes of the network. `dilations` has one entry for each residual block."""

    mels: int = 40
    channels: int = 160
    dilations: tuple[int, ...] = (1, 2, 4, 8, 1, 2, 4, 8, 1)
    dropout: float = 0.0
    """Share of hidden values left out, in training only."""
    phones: int = 0
    """Outputs of the auxiliary phone classifier, used in training only; 0 leaves it out."""
    acoustic_blocks: int = 0
    """Blocks of the `EarlierEncoder` of files that an earlier version wrote; 0 is a network without one."""
    transformer_blocks: int = 0
    """Blocks of the acoustic encoder; 0 is a network without it."""
    closure_head: bool = False
    """Whether lip press has an acoustic head of its own."""

    @property
    def context(self) -> int:
        """Mel frames on either side that one control frame depends on."""
        return STEM_FRAMES // 2 + 2 * sum(self.dilations)


def mel_filters(mels: int, low: float = 60.0, high: float = 7600.0) -> torch.Tensor:
    """Triangular filters (mels, FFT // 2 + 1) evenly spaced on the mel scale (O'Shaughnessy), unit area."""
    corners = np.linspace(2595 * np.log10(1 + low / 700), 2595 * np.log10(1 + high / 700), mels + 2)
    corners = 700 * (10 ** (corners / 2595) - 1)
    bins = np.arange(FFT // 2 + 1) * SAMPLE_RATE / FFT
    rising = (bins[None] - corners[:-2, None]) / (corners[1:-1] - corners[:-2])[:, None]
    falling = (corners[2:, None] - bins[None]) / (corners[2:] - corners[1:-1])[:, None]
    filters = np.maximum(0, np.minimum(rising, falling))
    return torch.from_numpy(filters / filters.sum(1, keepdims=True)).float()


def mel_power(padded: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    """Mel power (frames, mels) of `padded` (samples,) at 16 kHz by `filters` (mels, size // 2 + 1).

    Frame k covers samples k * HOP ... k * HOP + size. The caller pads size // 2 samples in front, so that it is centred
    on sample k * HOP.
    """
    size = 2 * (filters.shape[1] - 1)
    frames = padded.unfold(0, size, HOP)
    window = torch.zeros(size)
    edge = (size - WINDOW) // 2
    window[edge : edge + WINDOW] = torch.hann_window(WINDOW)
    spectrum = torch.fft.rfft(frames * window)
    # A full-scale sine has window.sum()**2 / 4 in its bin; dividing by it makes 0 dB full scale.
    return (spectrum.abs() ** 2) @ filters.T / (window.sum() ** 2 / 4)


def frame_level(power: torch.Tensor) -> torch.Tensor:
    """Mel power (..., frames, mels) to dB of full scale (..., frames)."""
    return 10 * torch.log10(power.mean(-1) + 1e-14)


def speech_level(energy: torch.Tensor) -> torch.Tensor:
    """The speech level (..., 1) of a recording in dB, from its `frame_level` (..., frames).

    The 95th percentile of what is not silent, so that one word in a long silence has its own level.
    """
    silent = energy < energy.amax(-1, keepdim=True) + SILENT_DB
    return torch.nanquantile(energy.masked_fill(silent, torch.nan), 0.95, dim=-1, keepdim=True).clamp(min=QUIETEST_DB)


def normalise(power: torch.Tensor, average: torch.Tensor) -> torch.Tensor:
    """Mel power (..., frames, mels) to network input, without the recording's level and average spectrum.

    A constant power FLOOR_DB below the speech level is added before the logarithm. Then each band's mean over the loud
    frames is subtracted, averaged with `average` (mels,), that of the training data, as if PRIOR_FRAMES more frames had
    it.
    """
    level = speech_level(frame_level(power))
    return normalise_by(power, level, average_spectrum(power, level, average))


def average_spectrum(power: torch.Tensor, level: torch.Tensor, average: torch.Tensor) -> torch.Tensor:
    """The mean (..., mels) in dB that `normalise` subtracts, of a recording with the speech level (..., 1)."""
    active = (frame_level(power) > level + ACTIVE_DB).float()[..., None]
    return ((_decibels(power, level) * active).sum(-2) + PRIOR_FRAMES * average) / (active.sum(-2) + PRIOR_FRAMES)


def normalise_by(power: torch.Tensor, level: torch.Tensor, spectrum: torch.Tensor) -> torch.Tensor:
    """`normalise` for a part of a recording, whose own speech level (..., 1) and average spectrum (..., mels) count."""
    return (_decibels(power, level) - spectrum[..., None, :]) / 15.0


def _decibels(power: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    floor = 10 ** ((level + FLOOR_DB) / 10)
    return 10 * torch.log10(power + floor[..., None]) - level[..., None]


def normalise_channels(x: torch.Tensor) -> torch.Tensor:
    """(..., channels) over their root mean square, separately for each frame."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


class ChannelNorm(nn.Module):
    """Root-mean-square normalisation over channels, with a scale for each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return normalise_channels(x) * self.scale


class ResidualBlock(nn.Module):
    """Norm, dilated convolution over three frames, GELU, mixing, added to the input; (batch, frames, channels).

    The convolution is a linear map of the frames t - dilation, t, t + dilation side by side, zeros beyond the ends.
    """

    def __init__(self, channels: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.dilation = dilation
        self.norm = ChannelNorm(channels)
        self.convolve = nn.Linear(3 * channels, channels)
        self.dropout = nn.Dropout(dropout)
        self.mix = nn.Linear(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        now = self.norm(x)
        padded = nn.functional.pad(now, (0, 0, self.dilation, self.dilation))
        around = torch.cat([padded[:, : -2 * self.dilation], now, padded[:, 2 * self.dilation :]], dim=-1)
        return x + self.mix(self.dropout(nn.functional.gelu(self.convolve(around), approximate="tanh")))


class AcousticHead(nn.Module):
    """Acoustic encoder states (batch, frames, channels) to additive logits (batch, frames, outputs)."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.3)
        self.reduce = nn.Conv1d(channels, 32, 1)
        self.temporal = nn.Conv1d(32, 48, 13, padding=6)
        self.out = nn.Conv1d(48, outputs, 5, padding=2)
        for weight in self.out.parameters():
            nn.init.zeros_(weight)

    def hidden(self, states: torch.Tensor) -> torch.Tensor:
        """(batch, frames, channels) to what the last layer is given, (batch, 48, frames)."""
        return nn.functional.gelu(self.temporal(self.reduce(self.dropout(states).transpose(1, 2))))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.out(self.dropout(self.hidden(states)))
        return logits.transpose(1, 2)


class MouthNetwork(nn.Module):
    """Normalised log-mel (batch, frames, mels) at 100 Hz to control logits (batch, (frames + 1) // 2, 7) at 50 Hz.

    The last channel is speech activity. `forward` also returns the phone logits, or None. To its control logits
    `add_acoustic_logits` adds those that `acoustic_logits` makes of the states of `acoustic_encoder`, where it has one.
    """

    average: torch.Tensor
    """Mean level (mels,) of loud speech frames in dB relative to the speech level, from the training data."""

    def __init__(self, config: MouthConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("average", torch.zeros(config.mels))
        self.stem = nn.Linear(STEM_FRAMES * config.mels, config.channels)
        self.blocks = nn.ModuleList(ResidualBlock(config.channels, d, config.dropout) for d in config.dilations)
        self.norm = ChannelNorm(config.channels)
        self.head = nn.Linear(config.channels, len(CONTROLS) + 1)
        self.phone_head = nn.Linear(config.channels, config.phones) if config.phones else None
        self.acoustic_encoder: AcousticEncoder | EarlierEncoder | None = None
        self.acoustic_head: AcousticHead | None = None
        if config.transformer_blocks or config.acoustic_blocks:
            blocks = config.transformer_blocks
            self.acoustic_encoder = AcousticEncoder(blocks) if blocks else EarlierEncoder(config.acoustic_blocks)
            self.acoustic_head = AcousticHead(self.acoustic_encoder.channels, ACOUSTIC_CONTROLS)
        self.closure_head: AcousticHead | None = None
        if config.closure_head:
            assert self.acoustic_encoder is not None
            self.closure_head = AcousticHead(self.acoustic_encoder.channels, 1)

    def hidden_states(self, mel: torch.Tensor) -> list[torch.Tensor]:
        """Normalised log-mel (batch, frames, mels) to the outputs (batch, (frames + 1) // 2, channels) of the stem and
        of each block."""
        reach = STEM_FRAMES // 2
        states = [self.stem(nn.functional.pad(mel, (0, 0, reach, reach)).unfold(1, STEM_FRAMES, 2).flatten(2))]
        for block in self.blocks:
            states.append(block(states[-1]))
        return states

    def last_state(self, mel: torch.Tensor) -> torch.Tensor:
        """Normalised log-mel (batch, frames, mels) to what `head` is given, (batch, (frames + 1) // 2, channels)."""
        state: torch.Tensor = self.norm(self.hidden_states(mel)[-1])
        return state

    def forward(self, mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        x = self.last_state(mel)
        return self.head(x), self.phone_head(x) if self.phone_head is not None else None

    def acoustic_logits(self, states: torch.Tensor) -> torch.Tensor:
        """States of the acoustic encoder (batch, frames, channels) to additive logits (batch, frames, 5)."""
        assert self.acoustic_head is not None
        logits: torch.Tensor = self.acoustic_head(states)
        if self.closure_head is None:
            return logits
        return logits + nn.functional.pad(self.closure_head(states), (PRESS, ACOUSTIC_CONTROLS - PRESS - 1))


def add_acoustic_logits(logits: torch.Tensor, acoustic_logits: torch.Tensor) -> torch.Tensor:
    """Logits (..., 7) with `acoustic_logits` (..., 5) added to the first ACOUSTIC_CONTROLS of them."""
    return torch.cat([logits[..., :ACOUSTIC_CONTROLS] + acoustic_logits, logits[..., ACOUSTIC_CONTROLS:]], dim=-1)


def without_acoustic_encoder(network: MouthNetwork) -> MouthNetwork:
    """The network itself, or a copy without its acoustic encoder and head."""
    if network.acoustic_encoder is None:
        return network
    return build_mouth_network(
        {
            name: value.clone()
            for name, value in network.state_dict().items()
            if not name.startswith((_ENCODER, "acoustic_head.", "closure_head."))
        },
        {**asdict(network.config), "acoustic_blocks": 0, "transformer_blocks": 0, "closure_head": False},
    )


def mouth_weights(network: MouthNetwork) -> dict[str, torch.Tensor]:
    """The weights as files have them: in half precision, without the phone classifier, the acoustic encoder's as
    `stored_weights`."""
    weights = {
        name: value.half().contiguous()
        for name, value in network.state_dict().items()
        if not name.startswith("phone_head")
    }
    if isinstance(network.acoustic_encoder, AcousticEncoder):
        weights |= {_ENCODER + name: value for name, value in stored_weights(network.acoustic_encoder).items()}
    return weights


def mouth_config(network: MouthNetwork) -> dict[str, Any]:
    """What `build_mouth_network` makes a network of `mouth_weights` from."""
    return {**asdict(network.config), "phones": 0}


class OtherVersionError(ValueError):
    """A file needs an acoustic encoder that is not the one that comes with the pack."""


def save_mouth_network(network: MouthNetwork, path: Path, description: dict[str, str], *, whole: bool = False) -> None:
    """Write the weights without the phone classifier; `description` joins the metadata.

    An acoustic encoder that is the pack's own is named in the metadata and left out, but for a `whole` file, which a
    later version with another one reads too.
    """
    metadata = {**description, "config": json.dumps(mouth_config(network))}
    weights = mouth_weights(network)
    encoder = {name: value for name, value in weights.items() if name.startswith(_ENCODER)}
    if encoder and not whole and fingerprint(encoder) == _shipped_encoder()[1]:
        weights = {name: value for name, value in weights.items() if name not in encoder}
        metadata["acoustic_encoder"] = fingerprint(encoder)
    save_tensors(weights, path, metadata=metadata)


def load_mouth_network(path: Path) -> MouthNetwork:
    """A trained network in evaluation mode, float32, strictly loaded.

    Raises OtherVersionError for one that needs the acoustic encoder of another version of the pack.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        config = json.loads(metadata["config"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if "acoustic_encoder" in metadata:
        encoder, version = _shipped_encoder()
        if metadata["acoustic_encoder"] != version:
            raise OtherVersionError("it is for the acoustic encoder of another version of the pack")
        weights |= encoder
    return build_mouth_network(weights, config)


def _shipped_encoder() -> tuple[dict[str, torch.Tensor], str]:
    """The weights of the pack's acoustic encoder under the names that they have in a network, and their fingerprint."""
    weights = {_ENCODER + name: value for name, value in shipped_weights().items()}
    return weights, fingerprint(weights)


def build_mouth_network(weights: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> MouthNetwork:
    """A network in evaluation mode, float32, from weights that are strictly loaded and their configuration.

    Raises LookupError, TypeError, ValueError or RuntimeError for what is no such network.
    """
    dilations = tuple(config["dilations"])
    if len(dilations) > len(weights) or not all(type(d) is int and 1 <= d <= MAX_DILATION for d in dilations):
        raise ValueError("its dilations are those of no mouth network")
    blocks = [config.get(name, 0) for name in ("acoustic_blocks", "transformer_blocks")]
    if any(type(count) is not int or not 0 <= count <= len(weights) for count in blocks) or all(blocks):
        raise ValueError("its acoustic encoder is none of a mouth network")
    closures = config.get("closure_head", False)
    if type(closures) is not bool or (closures and not any(blocks)):
        raise ValueError("its closure head is none of a mouth network")
    with torch.device("meta"):  # sizes that the tensors do not have take no memory
        network = MouthNetwork(MouthConfig(**{**config, "dilations": dilations}))
    network.load_state_dict(restored_weights(weights), strict=True, assign=True)
    return network.eval()
