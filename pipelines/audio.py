"""Sound in memory: what is accepted, one channel, another rate."""

from __future__ import annotations

import math
from typing import Any

import torch

from .errors import TalkingPortraitError
from .types import Audio

MIN_SECONDS = 0.025
"""One analysis window; less is no speech."""
MAX_SECONDS = 3600
MIN_RATE, MAX_RATE = 4000, 384000


def check_audio(value: Any) -> Audio:
    """Any reasonable form of sound as `Audio`, or one sentence that says why not.

    Accepts `Audio` and ComfyUI's AUDIO: a mapping with `waveform` (1, channels, samples), (channels, samples) or
    (samples,) of any float or integer type, and `sample_rate` in Hz. Integers are scaled to -1..1.

    Raises TalkingPortraitError for None, several clips in one batch, no or too few samples, more than an hour,
    an impossible rate, NaN or infinite samples.
    """
    if value is None:
        raise TalkingPortraitError("There is no audio (a video without a sound track gives none); connect some speech.")
    if isinstance(value, Audio):
        waveform, rate = value.waveform, value.sample_rate
    else:
        try:
            waveform, rate = torch.as_tensor(value["waveform"]), value["sample_rate"]
        except (TypeError, KeyError, ValueError, RuntimeError):
            raise TalkingPortraitError(
                f"The audio is a {type(value).__name__}, but a mapping with waveform and sample_rate is expected; "
                "connect the output of a Load Audio node."
            ) from None
    rate = _check_rate(rate)
    waveform = _check_waveform(waveform)
    seconds = waveform.shape[-1] / rate
    if seconds < MIN_SECONDS:
        raise TalkingPortraitError(
            f"The audio has {waveform.shape[-1]} samples ({seconds:.4f} s), but at least {MIN_SECONDS} s are needed; "
            "check how it was trimmed."
        )
    if seconds > MAX_SECONDS:
        raise TalkingPortraitError(
            f"The audio is longer than {MAX_SECONDS // 60} minutes, the most that is taken in one go; "
            "cut it into parts and join the videos."
        )
    if not bool(torch.isfinite(waveform).all()):
        raise TalkingPortraitError(
            "The audio holds NaN or infinite samples, so what was said is lost; export it again from its source."
        )
    return Audio(waveform, rate)


def _check_rate(rate: Any) -> int:
    try:
        number = float(rate)
    except (TypeError, ValueError):
        number = 0.0
    if not (math.isfinite(number) and MIN_RATE <= number <= MAX_RATE and number == int(number)):
        raise TalkingPortraitError(
            f"The audio's sample rate is {rate} Hz, but a whole number from {MIN_RATE} to {MAX_RATE} is expected; "
            "resample it first."
        )
    return int(number)


def _check_waveform(waveform: torch.Tensor) -> torch.Tensor:
    """(channels, samples) float32 on the CPU."""
    if waveform.ndim == 1:
        waveform = waveform[None]
    if waveform.ndim == 3:
        if waveform.shape[0] != 1:
            raise TalkingPortraitError(
                f"The audio is a batch of {waveform.shape[0]} clips, but one is expected; "
                "pick one before connecting it."
            )
        waveform = waveform[0]
    if waveform.ndim != 2 or waveform.shape[0] == 0 or waveform.shape[1] == 0:
        raise TalkingPortraitError(
            f"The audio is empty (its waveform has the shape {tuple(waveform.shape)}, but channels by samples is "
            "expected); check how it was loaded or trimmed."
        )
    waveform = waveform.detach().cpu()
    if not waveform.dtype.is_floating_point:
        if waveform.dtype == torch.uint8:
            return (waveform.float() - 128) / 128
        return waveform.float() / (torch.iinfo(waveform.dtype).max + 1)
    return waveform.float()


def mono(audio: Audio) -> torch.Tensor:
    """The mean of all channels: (samples,) float32."""
    return audio.waveform.mean(dim=0)


def resample(audio: Audio, rate: int) -> Audio:
    """The same sound at another rate by polyphase filtering; ceil(samples * rate / sample_rate) samples long."""
    if rate == audio.sample_rate:
        return audio
    from scipy.signal import resample_poly

    common = math.gcd(rate, audio.sample_rate)
    resampled = resample_poly(audio.waveform.numpy(), rate // common, audio.sample_rate // common, axis=-1)
    return Audio(torch.from_numpy(resampled).float().contiguous(), rate)
