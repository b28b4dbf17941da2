"""SyncTalk's audio-visual encoder: windows of a mel spectrogram to 512 features a video frame.

Its weights come with SyncTalk under a non-commercial licence, so nothing here needs them.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import nn

from ..speech.mel_scale import slaney_filters

SAMPLE_RATE = 16000
SPECTRUM, HOP = 800, 200
MELS, LOWEST, HIGHEST = 80, 55.0, 7600.0
PRE_EMPHASIS = 0.97
WINDOW_ROWS = 16
"""Rows of the spectrogram that one frame of video takes."""
ROWS_A_SECOND, FRAMES_A_SECOND = SAMPLE_RATE // HOP, 25
_SMALLEST, _REFERENCE_DB, _RANGE_DB, _LARGEST = 1e-5, 20.0, 100.0, 4.0


class _Convolution(nn.Module):
    """Convolution, normalisation and ReLU, with the input added before the last where `residual`."""

    def __init__(
        self,
        before: int,
        after: int,
        kernel: int = 3,
        stride: int | tuple[int, int] = 1,
        padding: int = 1,
        *,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(nn.Conv2d(before, after, kernel, stride, padding), nn.BatchNorm2d(after))
        self.residual = residual

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        result = self.conv_block(values)
        return F.relu(result + values if self.residual else result)


class AudioVisualEncoder(nn.Module):
    """The stack of convolutions of Wav2Lip's audio encoder, with SyncTalk's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.audio_encoder = nn.Sequential(
            _Convolution(1, 32),
            *(_Convolution(32, 32, residual=True) for _ in range(2)),
            _Convolution(32, 64, stride=(3, 1)),
            *(_Convolution(64, 64, residual=True) for _ in range(2)),
            _Convolution(64, 128, stride=3),
            *(_Convolution(128, 128, residual=True) for _ in range(2)),
            _Convolution(128, 256, stride=(3, 2)),
            _Convolution(256, 256, residual=True),
            _Convolution(256, 512, padding=0),
            _Convolution(512, 512, kernel=1, padding=0),
        )

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """(B, 1, 80, 16) of `mel_windows` to (B, 512)."""
        return self.audio_encoder(windows).flatten(1)


def mel_spectrogram(wave: torch.Tensor, *, legacy: bool = False) -> torch.Tensor:
    """Sound (samples,) at 16 kHz to (rows, 80) in -4..4, 80 rows a second.

    Zeros stand beyond both ends, as librosa has it from 0.10 on. `legacy` mirrors the sound there as earlier ones did,
    which changes the first and last two rows; the sound then has more than 400 samples.
    """
    emphasised = torch.cat([wave[:1], wave[1:] - PRE_EMPHASIS * wave[:-1]])
    window = torch.hann_window(SPECTRUM, device=wave.device)
    spectrum = torch.stft(
        emphasised,
        SPECTRUM,
        HOP,
        window=window,
        center=True,
        pad_mode="reflect" if legacy else "constant",
        return_complex=True,
    ).abs()
    decibels = 20 * (_mel_filters().to(wave.device) @ spectrum).clamp(min=_SMALLEST).log10() - _REFERENCE_DB
    return (2 * _LARGEST * (decibels + _RANGE_DB) / _RANGE_DB - _LARGEST).clamp(-_LARGEST, _LARGEST).T


def window_starts(rows: int) -> torch.Tensor:
    """The first row of each video frame's window; the last windows end with the spectrogram."""
    frames = int((rows - WINDOW_ROWS) / ROWS_A_SECOND * FRAMES_A_SECOND) + 2
    starts = torch.arange(frames) * ROWS_A_SECOND // FRAMES_A_SECOND
    return starts.clamp(max=rows - WINDOW_ROWS)


def mel_windows(mel: torch.Tensor) -> torch.Tensor:
    """(rows, 80), of at least 16 rows, to windows (frames, 1, 80, 16) at 25 frames a second."""
    starts = window_starts(len(mel)).to(mel.device)
    rows = starts[:, None] + torch.arange(WINDOW_ROWS, device=mel.device)
    return mel[rows].transpose(1, 2)[:, None]


@cache
def _mel_filters() -> torch.Tensor:
    """(80, 401)."""
    return slaney_filters(MELS, LOWEST, HIGHEST, SPECTRUM, SAMPLE_RATE)
