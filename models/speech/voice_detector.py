"""Silero's voice activity detector 6.2 (Silero Team, MIT, see NOTICE): whether somebody speaks, every 32 ms.

A spectrum of four frames, four convolutions over those and a recurrent layer over time. Trained on speech of many
languages with music and noise.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ..weight_files import read_shipped

SHIPPED = Path(__file__).with_name("voice_detector.safetensors")
"""The file of weights that comes with the pack."""
CHUNK = 512
"""Samples at 16 kHz that one probability is of."""
BEFORE = 64
"""Samples before them that it takes in again."""
_SPECTRUM, _HOP = 256, 128
_CHANNELS = 128

State = tuple[torch.Tensor, torch.Tensor]


class VoiceDetector(nn.Module):
    """Chunks of sound, one after another, to the probability of a voice in each."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((_SPECTRUM // 2 + 1, _CHANNELS, 1), (_CHANNELS, 64, 2), (64, 64, 2), (64, _CHANNELS, 1))
        layers = [
            layer
            for before, after, stride in sizes
            for layer in (nn.Conv1d(before, after, 3, stride=stride, padding=1), nn.ReLU())
        ]
        self.encoder = nn.Sequential(*layers)
        self.recurrent = nn.LSTM(_CHANNELS, _CHANNELS)
        self.out = nn.Linear(_CHANNELS, 1)

    def forward(self, chunks: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State]:
        """Probabilities (T,) of `chunks` (T, BEFORE + CHUNK) with samples in -1..1, and the state after them.

        `state` is that after the chunks before; without it the sound begins.
        """
        padded = nn.functional.pad(chunks[:, None], (0, _SPECTRUM - _HOP - BEFORE), mode="reflect")[:, 0]
        window = torch.hann_window(_SPECTRUM, device=chunks.device)
        spectra = torch.fft.rfft(padded.unfold(-1, _SPECTRUM, _HOP) * window).abs()
        features = self.encoder(spectra.transpose(1, 2))[..., 0]
        states, state = self.recurrent(features, state)
        return torch.sigmoid(self.out(nn.functional.relu(states)))[:, 0], state


def load_voice_detector() -> VoiceDetector:
    """The network that ships, in evaluation mode, float32."""
    from safetensors.torch import load_file

    def read(path: Path) -> VoiceDetector:
        network = VoiceDetector()
        network.load_state_dict({name: value.float() for name, value in load_file(path).items()}, strict=True)
        return network.eval()

    return read_shipped(SHIPPED, read)
