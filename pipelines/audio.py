"""Sound in memory: what is accepted, one channel, another rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from .errors import TalkingPortraitError, shown
from .timing import frame_count
from .types import Audio

SPEECH_RATE = 16000
"""Samples a second that drivers listen to."""
MIN_SECONDS = 0.025
"""One analysis window; less is no speech."""
MAX_SECONDS = 3600
MIN_RATE, MAX_RATE = 4000, 384000
MAX_SAMPLE = 100.0
"""A forgotten scale, not a loud voice: recordings go a little beyond 1 at most."""
_BLOCK = 1 << 22


def check_audio(value: Any) -> Audio:
    """Any reasonable form of sound as `Audio`, or one sentence that says why not.

    Accepts `Audio` and ComfyUI's AUDIO: a mapping with `waveform` (1, channels, samples), (channels, samples) or
    (samples,) of any float or integer type, and `sample_rate` in Hz. Integers are scaled to -1..1.

    Raises TalkingPortraitError for None, several clips in one batch, no or too few samples, more than an hour,
    an impossible rate, samples that are NaN, infinite or far beyond -1..1.
    """
    if value is None:
        raise TalkingPortraitError("There is no audio (a video without a sound track gives none); connect some speech.")
    if isinstance(value, Audio):
        waveform, rate = value.waveform, value.sample_rate
    else:
        try:
            waveform, rate = torch.as_tensor(value["waveform"]), value["sample_rate"]
        except (TypeError, KeyError, IndexError, ValueError, RuntimeError, OverflowError):
            what = f"has {shown(list(value))}" if isinstance(value, Mapping) else f"is a {type(value).__name__}"
            raise TalkingPortraitError(
                f"The audio {what}, but a mapping with waveform (numbers) and sample_rate is expected; connect the "
                "output of a Load Audio node."
            ) from None
    rate = check_rate(rate)
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
    loudest = max(float(block.abs().nan_to_num(math.inf, math.inf).max()) for block in waveform.split(_BLOCK, dim=1))
    if math.isinf(loudest):
        raise TalkingPortraitError(
            "The audio holds NaN or infinite samples, so what was said is lost; export it again from its source."
        )
    if loudest > MAX_SAMPLE:
        raise TalkingPortraitError(
            f"The audio's samples reach {loudest:g}, but numbers from -1 to 1 are expected; divide whole numbers by "
            "their type's largest before they become fractions."
        )
    return Audio(waveform, rate)


def check_rate(rate: Any) -> int:
    """A sample rate in Hz, or TalkingPortraitError for one that no sound has."""
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
    if waveform.dtype == torch.bool or waveform.dtype.is_complex:
        raise TalkingPortraitError(
            f"The audio's samples are of the type {waveform.dtype}, but real numbers are expected; connect the output "
            "of a Load Audio node."
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


def as_speech(audio: Audio, fps: Fraction) -> Audio:
    """What drivers listen to: one channel at 16 kHz, which lasts as many frames of `fps` as the recording does."""
    if audio.sample_rate == SPEECH_RATE and audio.waveform.shape[0] == 1:
        return audio
    wave = resample(Audio(mono(audio)[None], audio.sample_rate), SPEECH_RATE).waveform
    return lasting(wave, frame_count(audio.samples, audio.sample_rate, fps), fps)


def lasting(wave: torch.Tensor, frames: int, fps: Fraction) -> Audio:
    """Speech (1, samples) at 16 kHz without the sample by which resampling may have made it reach one frame further."""
    if frame_count(wave.shape[1], SPEECH_RATE, fps) > frames:
        wave = wave[:, :-1]
    return Audio(wave, SPEECH_RATE)


class Resampler:
    """`resample` of one channel that arrives piece by piece, equal to that of the whole but for rounding."""

    def __init__(self, given: int, wanted: int) -> None:
        common = math.gcd(given, wanted)
        self._up, self._down = wanted // common, given // common
        # The filter reaches ten samples of the slower rate to both sides; starts are multiples of `down`, so that the
        # samples of each piece fall where those of the whole fall.
        reach = math.ceil(10 * max(self._up, self._down) / self._up)
        self._margin = math.ceil(reach / self._down) * self._down
        self._before = 0
        self._waiting = np.zeros(0, np.float32)

    def push(self, wave: np.ndarray) -> np.ndarray:
        """Takes samples (n,) and gives those (m,) that are settled by now."""
        self._waiting = np.concatenate([self._waiting, wave.astype(np.float32, copy=False)])
        settled = (len(self._waiting) - self._before - self._margin) // self._down * self._down
        return self._next(settled) if settled > 0 else np.zeros(0, np.float32)

    def finish(self) -> np.ndarray:
        """The samples that are left, once all has been pushed."""
        return self._next(len(self._waiting) - self._before)

    def _next(self, count: int) -> np.ndarray:
        """Results for the `count` waiting samples that follow those kept as context."""
        from scipy.signal import resample_poly

        if self._up == self._down or count == 0:
            result = self._waiting[self._before : self._before + count].copy()
        else:
            start = self._before // self._down * self._up
            whole = resample_poly(self._waiting, self._up, self._down).astype(np.float32, copy=False)
            result = whole[start : start + math.ceil(count * self._up / self._down)]
        done = self._before + count
        self._before = min(self._margin, done // self._down * self._down)
        self._waiting = self._waiting[done - self._before :].copy()
        return np.ascontiguousarray(result)
