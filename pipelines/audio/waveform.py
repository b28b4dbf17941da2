"""Sound in memory: what is accepted, one channel, another rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from ..errors import TalkingPortraitError, quoted
from ..finite import check_plain
from ..timing import frame_count
from ..types import Audio

SPEECH_RATE = 16000
"""Sample rate of the drivers."""
MIN_SECONDS = 0.025
"""One analysis window; less is no speech."""
MAX_SECONDS = 3600
MIN_RATE, MAX_RATE = 4000, 384000
MAX_SAMPLE = 100.0
"""Larger values are integers that were not scaled to -1..1: recordings exceed 1 by little."""
MIX_WINDOW, MIX_TOGETHER = 0.02, 512
"""Seconds of sound for which it is decided how channels are added; windows that are compared together."""
MIX_LOSES, MIX_GAINS, MIX_NOTHING = 1 / 3, 1.0, 0.02
"""Power of the sum of two signals over the sum of their powers (1 for signals that have nothing in common): below the
first, one is inverted; when that gives less than the second, it is no longer; below the third, from here on.
Tried on speech with inverted, delayed, noisy and ordinary channels."""
MIX_REACH, MIX_DECAY = 40, 0.93
"""Windows to both sides that count as well, and by which factor less from each to the next."""
MIX_AHEAD, MIX_ENDS = 16, 0.03
"""Windows of which it is enough that they alone cancel, unless they have less than this part of the power before."""
_BLOCK = 1 << 18


class TooShortError(TalkingPortraitError):
    """A sound of no or too few samples."""


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
            named = {} if isinstance(value, torch.Tensor) else value  # which would warn of the name as its index
            waveform, rate = torch.as_tensor(named["waveform"]), named["sample_rate"]
        except (TypeError, KeyError, IndexError, ValueError, RuntimeError, OverflowError):
            what = f"has {quoted(list(value))}" if isinstance(value, Mapping) else f"is a {type(value).__name__}"
            raise TalkingPortraitError(
                f"The audio {what}, but a mapping with waveform (numbers) and sample_rate is expected; connect the "
                "output of a Load Audio node."
            ) from None
    rate = check_rate(rate)
    check_plain(waveform, "The audio's waveform")
    waveform = _check_waveform(waveform)
    seconds = waveform.shape[-1] / rate
    if seconds < MIN_SECONDS:
        raise TooShortError(
            f"The audio has {waveform.shape[-1]} samples ({seconds:.4f} s), but at least {MIN_SECONDS} s are needed; "
            "check how it was trimmed."
        )
    check_length(seconds)
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


def check_length(seconds: float | Fraction) -> None:
    """Raises TalkingPortraitError for more than `MAX_SECONDS`."""
    if seconds > MAX_SECONDS:
        raise TalkingPortraitError(
            f"The audio is longer than {MAX_SECONDS // 60} minutes, the most that is taken in one go; "
            "cut it into parts and join the videos."
        )


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
                f"The audio is a batch of {waveform.shape[0]} clips, but one is expected; set the batch size of the "
                "node that made it to 1."
            )
        waveform = waveform[0]
    if waveform.ndim != 2 or 0 in waveform.shape:
        empty = 0 in waveform.shape
        what, error = ("empty", TooShortError) if empty else ("of another form", TalkingPortraitError)
        raise error(
            f"The audio is {what} (its waveform has the shape {tuple(waveform.shape)}, but channels by samples is "
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
    """The mean of all channels as `MonoMixer` takes it: (samples,) float32; an only channel itself, not a copy."""
    if len(audio.waveform) == 1:
        return audio.waveform[0]
    return MonoMixer(audio.sample_rate).mix(audio.waveform)


class MonoMixer:
    """The mean of all channels of sound that arrives piece by piece, with inverted channels turned round.

    A channel with inverted polarity (a miswired cable, a balanced pair read as stereo) would cancel the others. Window
    by window, such a channel is subtracted instead of added; all other sound gives the plain mean. Windows begin at
    fixed places and are compared together with their neighbours, so the result does not depend on the pieces.
    """

    def __init__(self, rate: int) -> None:
        self._window = max(4, round(MIX_WINDOW * rate))
        self._fade = torch.arange(1, self._window // 4 + 1) / (self._window // 4 + 1)
        self._waiting: torch.Tensor | None = None
        self._products: np.ndarray | None = None
        """Of the `_past` windows before those that wait, and of those that wait."""
        self._past = 0
        self._signs: np.ndarray | None = None

    def push(self, block: torch.Tensor) -> torch.Tensor:
        """Takes samples (channels, n) and gives those of the mix (m,) that are settled by now."""
        waiting = block if self._waiting is None else torch.cat([self._waiting, block], dim=1)
        complete = waiting.shape[1] // self._window
        settled = max(0, complete - MIX_REACH)
        mix = self._mixed(waiting[:, : complete * self._window], settled)
        # A copy, so that what has been mixed need not stay in memory.
        self._waiting = waiting[:, settled * self._window :].clone()
        return mix

    def finish(self) -> torch.Tensor:
        """The samples that are left, once all has been pushed."""
        return torch.zeros(0) if self._waiting is None else self.mix(self._waiting)

    def mix(self, waveform: torch.Tensor) -> torch.Tensor:
        """The mix (n,) of all samples (channels, n) that there are still."""
        return self._mixed(waveform, math.ceil(waveform.shape[1] / self._window))

    def _mixed(self, waveform: torch.Tensor, count: int) -> torch.Tensor:
        """The mix (n,) of the first `count` windows of (channels, m)."""
        wanted = waveform[:, : count * self._window]
        total = wanted.sum(dim=0)
        if len(waveform) > 1 and count:
            signs = self._next_signs(waveform, count)
            inverted = np.min(signs, axis=1) < 0
            for index in np.flatnonzero(inverted[1:] | inverted[:-1]):
                here = slice(index * self._window, (index + 1) * self._window)
                before, now = torch.from_numpy(signs[index : index + 2]).float()[..., None]
                weights = now.repeat(1, len(total[here]))
                fade = self._fade[: weights.shape[1]]
                weights[:, : len(fade)] = torch.lerp(before, now, fade)
                total[here] = (weights * wanted[:, here]).sum(dim=0)
        return total.div_(len(waveform))

    def _next_signs(self, waveform: torch.Tensor, count: int) -> np.ndarray:
        """1 or -1 for each channel (count + 1, channels): of the window before, and of the next `count`."""
        products = [] if self._products is None else [self._products]
        known = 0 if self._products is None else len(self._products) - self._past
        together = self._window * MIX_TOGETHER
        for start in range(known * self._window, waveform.shape[1], together):
            products.append(_products(waveform[:, start : start + together].numpy(), self._window))
        own = np.concatenate(products)
        around, ahead = _with_neighbours(own, self._past, count)
        signs = []
        last = self._signs
        for index in range(count):
            # The sound begins with the first window: there is nothing to fade from.
            now = np.ones(len(waveform)) if last is None else last
            now = _without_cancellation(around[index], now, MIX_LOSES, MIX_GAINS)
            # Where next to nothing is left, the polarity has changed just now.
            now = _without_cancellation(ahead[index], now, MIX_NOTHING, MIX_NOTHING)
            signs += [now, now] if last is None else [now]
            last = now
        signs = signs if self._signs is None else [self._signs, *signs]
        past = min(self._past + count, MIX_REACH)
        self._products, self._past, self._signs = own[self._past + count - past :], past, last
        return np.array(signs)


def _products(block: np.ndarray, window: int) -> np.ndarray:
    """The products (windows, channels, channels) of the channels of (channels, n); a constant offset is no sound."""
    whole = block.shape[1] // window * window
    results = []
    for part, length in ((block[:, :whole], window), (block[:, whole:], block.shape[1] - whole)):
        if part.size:
            windows = part.reshape(len(part), -1, length).transpose(1, 0, 2)
            windows = windows - windows.mean(axis=2, keepdims=True)
            results.append((windows @ windows.transpose(0, 2, 1)).astype(np.float64))
    return np.concatenate(results)


def _with_neighbours(own: np.ndarray, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Products (count, channels, channels) from `start`: with neighbours at both sides, and with those that follow.

    The latter are 0 where nearly all the sound lies before: what ends there is no evidence.
    """
    padded = np.pad(own, ((max(0, MIX_REACH - start), max(0, start + count + MIX_REACH - len(own))), (0, 0), (0, 0)))
    first = max(0, start - MIX_REACH)
    around, ahead, behind = np.zeros((3, count, *own.shape[1:]))
    for shift in range(-MIX_REACH, MIX_REACH + 1):
        there = padded[start - first + MIX_REACH - min(start, MIX_REACH) + shift :][:count]
        around += MIX_DECAY ** abs(shift) * there
        if 0 <= shift < MIX_AHEAD:
            ahead += there
        if -MIX_AHEAD <= shift < 0:
            behind += there
    level = np.trace(ahead, axis1=1, axis2=2) / np.maximum(np.trace(behind, axis1=1, axis2=2), 1e-30)
    return around, np.where(level[:, None, None] < MIX_ENDS, 0, ahead)


def _without_cancellation(products: np.ndarray, signs: np.ndarray, loses: float, gains: float) -> np.ndarray:
    """`signs` (channels,), changed where the sum would lose power; `products` of the channels (channels, channels).

    A channel is inverted where it and the sum of the others keep less than `loses` of their power when added, and added
    again where they keep less than `gains` when subtracted.
    """
    own = products.diagonal()
    chosen = signs
    for _ in own:
        # What each channel has in common with the sum of the others, over the power of both.
        common = chosen * (products @ chosen) - own
        others = chosen @ products @ chosen - own - 2 * common
        missing = np.where(chosen > 0, loses, gains) - 1 - 2 * common / np.maximum(own + others, 1e-12)
        if missing.max() <= 0:
            break
        # The last of several that are as bad, so that the first channel stays as it is.
        worst = np.flatnonzero(missing > missing.max() - 1e-6)[-1]
        chosen = chosen.copy()
        chosen[worst] *= -1
    return chosen


def resample(audio: Audio, rate: int) -> Audio:
    """The same sound at another rate by polyphase filtering; ceil(samples * rate / sample_rate) samples long."""
    if rate == audio.sample_rate:
        return audio
    from scipy.signal import resample_poly

    common = math.gcd(rate, audio.sample_rate)
    resampled = resample_poly(audio.waveform.numpy(), rate // common, audio.sample_rate // common, axis=-1)
    return Audio(torch.from_numpy(resampled).float().contiguous(), rate)


def mono_at(audio: Audio, rate: int) -> Audio:
    """The same sound with one channel at another rate, mixed first."""
    return resample(Audio(mono(audio)[None], audio.sample_rate), rate)


def as_speech(audio: Audio, fps: Fraction) -> Audio:
    """The input of drivers: one channel at 16 kHz, which lasts as many frames of `fps` as the recording does."""
    if audio.sample_rate == SPEECH_RATE and audio.waveform.shape[0] == 1:
        return audio
    wave = mono_at(audio, SPEECH_RATE).waveform
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
