"""What the two syncers are made of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .audio_nets import EMOTION_FRAMES

BLOCKS = 6
"""Hidden layers of an autoencoder's encoder, and of its decoder."""


class NormedLinear(nn.Module):
    """Linear layer without bias, batch normalisation over the frames, LeakyReLU, dropout."""

    def __init__(self, before: int, after: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc = nn.Linear(before, after, bias=False)
        self.norm = nn.BatchNorm1d(after)
        self.dropout = nn.Dropout(dropout)
        if not self.fc.weight.is_meta:
            nn.init.kaiming_normal_(self.fc.weight)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.dropout(F.leaky_relu(self.norm(self.fc(values)), 0.2))


class Stack(nn.Module):
    """A network with hidden layers `block1` to `block6` and a last one under a name of its own.

    The last layer is normalised and rectified as the others are, so an autoencoder's results pass that too (published).
    """

    def add_blocks(self, before: int, hidden: int, after: int, last: str) -> None:
        self._blocks = (*(f"block{number + 1}" for number in range(BLOCKS)), last)
        for number, name in enumerate(self._blocks):
            self.add_module(name, NormedLinear(hidden if number else before, after if name == last else hidden))

    def pass_blocks(self, values: torch.Tensor) -> torch.Tensor:
        for name in self._blocks:
            values = self.get_submodule(name)(values)
        return values


def moments(encoded: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """An encoder's output to mean and logarithm of the variance, whose columns alternate."""
    return encoded[:, 0::2], encoded[:, 1::2]


class VectorUNet(nn.Module):
    """A U-Net whose levels are vectors of halving width instead of images."""

    def __init__(self, before: int, width: int, depth: int = 6) -> None:
        super().__init__()
        widths = [width >> level for level in range(depth + 1)]
        self.e0 = NormedLinear(before, width)
        for level in range(1, depth + 1):
            self.add_module(f"e{level}", NormedLinear(widths[level - 1], widths[level]))
        for level in range(depth - 1, 0, -1):
            self.add_module(f"d{level}", NormedLinear(widths[level], widths[level - 1]))
        self.depth = depth

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """(N, before) to (N, width)."""
        encoded = [self.e0(values)]
        for level in range(1, self.depth + 1):
            encoded.append(self.get_submodule(f"e{level}")(encoded[-1]))
        decoded = encoded[-1]
        for level in range(self.depth - 1, 0, -1):
            same = encoded[level]
            if decoded.shape[1] != same.shape[1]:  # the innermost vector only, which is half as long
                decoded = F.interpolate(decoded[:, None], same.shape[1], mode="linear", align_corners=False)[:, 0]
            decoded = self.get_submodule(f"d{level}")(decoded + same)
        return decoded


class AudioTrunk(nn.Module):
    """Convolutions along 27 frames of audio features, averaged over those that are left.

    Its layers are attributes of the network that has it, as the published names want; so networks derive from it.
    """

    def __init__(self, inputs: int, hidden: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers, self.audio_dropout = layers, nn.Dropout(dropout)
        self.audio_first = nn.Sequential(nn.Conv1d(inputs, hidden, 7), nn.BatchNorm1d(hidden))
        self.norm4 = nn.BatchNorm1d(hidden)
        for number in range(layers):
            layer = nn.Sequential(
                nn.LeakyReLU(0.01), nn.Conv1d(hidden, hidden, 3, dilation=3), nn.BatchNorm1d(hidden), nn.LeakyReLU(0.1)
            )
            self.add_module(f"audio_encoder{number}", layer)

    def project_audio(self, audio: torch.Tensor) -> torch.Tensor:
        """Windows (N, inputs, 27), or the features (N, inputs) of N consecutive frames, to (N, hidden).

        Features give what the windows around each frame give, the ends repeated, but each frame passes the
        convolutions once and not 27 times. In training batch statistics then count each frame once.
        """
        sequence = audio.ndim == 2
        if sequence:
            reach = EMOTION_FRAMES // 2
            audio = F.pad(audio.T[None], (reach, reach), mode="replicate")
        values = self.audio_first(audio)
        for number in range(self.layers):
            layer = self.get_submodule(f"audio_encoder{number}")
            values = self.audio_dropout(layer(values) + self.norm4(values[:, :, 3:-3]))
        if not sequence:
            return values.mean(2)
        return F.avg_pool1d(values, self.frames_left, 1)[0].T

    @property
    def frames_left(self) -> int:
        """Frames of a window that pass the convolutions."""
        return EMOTION_FRAMES - 6 - 6 * self.layers
