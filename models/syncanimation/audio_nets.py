"""Speech features to the audio code of the head's field, and the windows of frames that networks take."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

AUDIO_CODE = 32
"""Values of the audio code."""
ATTENDED_FRAMES = 8
"""Frames whose codes are averaged with learned weights."""
EMOTION_FRAMES = 27
"""Frames of the emotion syncer's window."""
_SLOPE = 0.02


def _leaky(layer: nn.Module) -> tuple[nn.Module, nn.Module]:
    return layer, nn.LeakyReLU(_SLOPE)


class AudioNet(nn.Module):
    """Convolutions along the steps of a frame's features, for DeepSpeech, HuBERT and whatever else has steps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = (channels, 32, 32, 64, 64)
        convolutions = [
            part
            for before, after in zip(widths[:-1], widths[1:], strict=True)
            for part in _leaky(nn.Conv1d(before, after, 3, stride=2, padding=1))
        ]
        self.encoder_conv = nn.Sequential(*convolutions)
        self.encoder_fc1 = nn.Sequential(*_leaky(nn.Linear(64, 64)), nn.Linear(64, AUDIO_CODE))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, channels, steps) to (B, 32); published features have at most 16 steps, of which one is left here."""
        return self.encoder_fc1(self.encoder_conv(features).mean(-1))


class LinearAudioNet(nn.Module):
    """Linear layers, for features without steps such as those of SyncTalk's audio-visual encoder."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers = (*_leaky(nn.Linear(channels, 256)), *_leaky(nn.Linear(256, 128)), nn.Linear(128, AUDIO_CODE))
        self.encoder_fc1 = nn.Sequential(*layers)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, ..., channels) with as many values a row as there are channels, to (B, 32)."""
        return self.encoder_fc1(features.flatten(1))


class AudioAttention(nn.Module):
    """The average of the codes of neighbouring frames, with weights that depend on them."""

    def __init__(self) -> None:
        super().__init__()
        widths = (AUDIO_CODE, 16, 8, 4, 2, 1)
        convolutions = [
            part
            for before, after in zip(widths[:-1], widths[1:], strict=True)
            for part in _leaky(nn.Conv1d(before, after, 3, padding=1))
        ]
        self.attentionConvNet = nn.Sequential(*convolutions)
        self.attentionNet = nn.Sequential(nn.Linear(ATTENDED_FRAMES, ATTENDED_FRAMES), nn.Softmax(1))

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """(B, 8, 32) to (B, 32)."""
        weights = self.attentionNet(self.attentionConvNet(codes.transpose(1, 2)).flatten(1))
        return (weights[..., None] * codes).sum(1)


def speech_windows(
    features: torch.Tensor, frames: torch.Tensor | Sequence[int] | None = None, *, causal: bool = False
) -> torch.Tensor:
    """Features (N, ...) of frames to (B, 8, ...): those from t - 4 to t + 3, with zeros beyond both ends.

    `frames` are the t's, all by default. `causal`: from t - 8 to t - 1, SyncTalk's first attention mode.
    """
    before = ATTENDED_FRAMES if causal else ATTENDED_FRAMES // 2
    index = _window(features, frames, before, ATTENDED_FRAMES)
    outside = (index < 0) | (index >= len(features))
    return features[index.clamp(0, len(features) - 1)].masked_fill(
        outside.view(*index.shape, *[1] * (features.ndim - 1)), 0
    )


def emotion_windows(features: torch.Tensor, frames: torch.Tensor | Sequence[int] | None = None) -> torch.Tensor:
    """Features (N, D) to (B, D, 27): those from t - 13 to t + 13, the first and the last repeated beyond both ends."""
    index = _window(features, frames, EMOTION_FRAMES // 2, EMOTION_FRAMES)
    return features[index.clamp(0, len(features) - 1)].transpose(1, 2)


def _window(
    features: torch.Tensor, frames: torch.Tensor | Sequence[int] | None, before: int, length: int
) -> torch.Tensor:
    """Numbers (B, length) of the frames around each of `frames`."""
    chosen = range(len(features)) if frames is None else frames
    middle = torch.as_tensor(chosen, dtype=torch.int64, device=features.device)
    return middle[:, None] + torch.arange(-before, length - before, device=features.device)


def pad_features(features: torch.Tensor, count: int = 2) -> torch.Tensor:
    """The first and the last row repeated `count` times, as SyncTalk does with its encoder's features (N, C)."""
    return F.pad(features.T[None], (count, count), mode="replicate")[0].T
