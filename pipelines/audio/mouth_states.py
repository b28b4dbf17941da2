"""Speech features that need no download: states of the mouth network, which the pack ships.

Those of its acoustic encoder, where it has one, predict a person's lips best (docs/measurements/persons.md); those of a
network without one were trained to move lips, too. The gain of a recording is taken out before both. The weights change
from one version of the pack to the next; what is trained on the states keeps them (`MouthEncoder.weights`), and
`MouthEncoder.name` says which they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch

from ...models.speech.acoustic_encoder import fingerprint
from ...models.speech.mouth_network import (
    FRAME_RATE,
    HOP,
    SAMPLE_RATE,
    MouthNetwork,
    add_acoustic_logits,
    average_spectrum,
    build_mouth_network,
    frame_level,
    mel_filters,
    mel_power,
    mouth_config,
    mouth_weights,
    normalise,
    normalise_by,
    normalise_channels,
    speech_level,
)
from ..progress import check_between_layers, shared_out
from ..timing import as_rate, frame_count
from ..types import Audio, Progress, SpeechFeatures, no_progress
from .mouth_weights import DEFAULT_WEIGHTS, open_mouth
from .waveform import check_audio, mono_at

CHUNK = 1500
"""Control frames (30 s) that the network computes in one go; memory does not grow with the length of the audio."""
_MEL_CHUNK = 6000
_SEGMENT, _CONTEXT = 200, 50
"""Control frames (4 s) that the acoustic encoder takes at once, and those around them (1 s) it attends to."""
HALF = Fraction(1, 2)
NAME = "mouth"
"""How the names of all mouth encoders begin."""


@dataclass(frozen=True)
class MouthEncoder:
    """A mouth network as an encoder of speech."""

    network: MouthNetwork

    @cached_property
    def name(self) -> str:
        """ "mouth-" and the fingerprint of the weights."""
        return f"{NAME}-{fingerprint(self.weights)}"

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """The network's weights as a file has them."""
        return mouth_weights(self.network)

    @property
    def config(self) -> dict[str, Any]:
        """What `of_weights` makes the same encoder from, with the weights, in JSON's types."""
        return mouth_config(self.network)

    @classmethod
    def of_weights(cls, weights: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> MouthEncoder:
        """Raises LookupError, TypeError or RuntimeError for those of something else."""
        return cls(build_mouth_network(weights, config))

    def encode(self, audio: Audio, fps: float | Fraction, *, progress: Progress = no_progress) -> SpeechFeatures:
        """(frames, 1, 384) at `fps`: the state of the acoustic encoder; 144 of that of an earlier version.

        Of a network without one (frames, 2, channels): the state in the middle of the network and the last one. All
        are on one scale. Frame i is the mean over its duration about the time i / fps. Raises TalkingPortraitError for
        audio that `check_audio` refuses.
        """
        rate = as_rate(fps)
        audio = check_audio(audio)
        frames = frame_count(audio.samples, audio.sample_rate, rate)
        return SpeechFeatures(
            self.by_frames(audio, rate, progress=progress)(range(frames)), rate, self.name, "resampled"
        )

    def by_frames(
        self, audio: Audio, fps: Fraction, *, progress: Progress = no_progress
    ) -> Callable[[range], torch.Tensor]:
        """What gives the states (n, steps, channels) of any consecutive frames of a recording.

        They are those of the whole, within rounding, at any frame rate: the level and the average spectrum are the
        whole recording's, and segments are the same ones.
        """
        recording = _Recording.of(self.network, check_audio(audio))

        @torch.inference_mode()
        def states(frames: range) -> torch.Tensor:
            low, high = ((frames[end] + side) * FRAME_RATE / fps for end, side in ((0, -HALF), (-1, HALF)))
            values, first = recording.states(max(math.floor(low), 0), math.ceil(high), progress)
            pieces = [
                readings(values, FRAME_RATE, fps, frames[start : start + CHUNK], first).mean(axis=1)
                for start in range(0, len(frames), CHUNK)
            ]
            return torch.from_numpy(np.concatenate(pieces)).float()

        return states


@cache
def shipped_encoder() -> MouthEncoder:
    """The mouth network of this version of the pack."""
    return MouthEncoder(open_mouth(DEFAULT_WEIGHTS))


def _middle_and_last(network: MouthNetwork, mel: torch.Tensor) -> torch.Tensor:
    """(batch, frames, mels) to (batch, control frames, 2, channels)."""
    states = network.hidden_states(mel)
    return normalise_channels(torch.stack([states[(len(states) - 1) // 2 + 1], states[-1]], dim=2))


def _acoustic_state(states: torch.Tensor) -> torch.Tensor:
    """(batch, control frames, channels) to (batch, control frames, 1, channels)."""
    return normalise_channels(states)[:, :, None]


@dataclass(frozen=True)
class _Recording:
    """Sound (samples,) at 16 kHz, of which any part can be computed as that of the whole: the `offset` of its samples,
    its speech `level` (1,) in dB and its average `spectrum` (mels,)."""

    network: MouthNetwork
    waveform: torch.Tensor
    offset: torch.Tensor
    level: torch.Tensor
    spectrum: torch.Tensor

    @classmethod
    def of(cls, network: MouthNetwork, audio: Audio) -> _Recording:
        waveform = mono_at(audio, SAMPLE_RATE).waveform[0]
        offset = waveform.mean()
        power = _band_power(waveform, mel_filters(network.config.mels), offset)
        level = speech_level(frame_level(power))
        return cls(network, waveform, offset, level, average_spectrum(power, level, network.average))

    def states(self, low: int, high: int, progress: Progress) -> tuple[np.ndarray, int]:
        """States (n, steps, channels) of the control frames `low` to `high` and some around them; the first's number.

        What is computed reaches further, as spectra and networks depend on what is around.
        """
        frames = (math.ceil(len(self.waveform) / HOP) + 2) // 2
        encoder = self.network.acoustic_encoder
        step, context = (
            (_SEGMENT, _SEGMENT) if encoder is not None else (1, math.ceil(self.network.config.context / 2) + 2)
        )
        begin, end = min(low, frames - 1) // step * step, min(frames, (high // step + 1) * step)
        first, last = max(0, begin - context), min(frames, end + context)
        part = self.waveform[2 * HOP * first : None if last == frames else 2 * HOP * last]
        wanted = range(begin - first, end - first)
        if encoder is not None:
            power = _band_power(part, encoder.filters(), self.offset)
            values = _in_segments(self.network, power, self.level, wanted, _acoustic_state, progress)
        else:
            power = _band_power(part, mel_filters(self.network.config.mels), self.offset)
            mel = normalise_by(power, self.level, self.spectrum)
            values = in_chunks(self.network, mel, _middle_and_last, progress=progress)[wanted.start : wanted.stop]
        return values.numpy(), begin


@dataclass(frozen=True)
class SpeechSound:
    """Mel power at 100 Hz: `power` (frames, mels) for the network, `acoustic_power` (frames, 80) for its encoder."""

    power: torch.Tensor
    acoustic_power: torch.Tensor | None = None
    """None for a network without an acoustic encoder."""

    def louder(self, gain: torch.Tensor) -> SpeechSound:
        """The same with each frame's power `gain` (frames,) times as high."""
        return SpeechSound(
            self.power * gain[:, None], None if self.acoustic_power is None else self.acoustic_power * gain[:, None]
        )


def speech_sound(network: MouthNetwork, audio: Audio) -> SpeechSound:
    """Audio of any rate and channels as the network takes it."""
    waveform = mono_at(audio, SAMPLE_RATE).waveform[0]
    offset = waveform.mean()
    power = _band_power(waveform, mel_filters(network.config.mels), offset)
    encoder = network.acoustic_encoder
    return SpeechSound(power, None if encoder is None else _band_power(waveform, encoder.filters(), offset))


def _band_power(waveform: torch.Tensor, filters: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """Mel power (frames, bands) of `waveform` (samples,) without its `offset`, which is no sound; piece by piece."""
    samples, reach = len(waveform), filters.shape[1] - 1
    frames = math.ceil(samples / HOP) + 1
    pieces = []
    for start in range(0, frames, _MEL_CHUNK):
        stop = min(start + _MEL_CHUNK, frames)
        first, last = start * HOP - reach, (stop - 1) * HOP + reach
        there = waveform[max(first, 0) : min(last, samples)] - offset
        padded = torch.nn.functional.pad(there, (max(-first, 0), max(last - samples, 0)))
        pieces.append(mel_power(padded, filters))
    return torch.cat(pieces)


def mouth_logits(
    network: MouthNetwork, sound: SpeechSound, *, chunk: int = CHUNK, progress: Progress = no_progress
) -> torch.Tensor:
    """The network's logits (control frames, 7), 50 a second, with those of its acoustic head where it has one."""
    if network.acoustic_head is None:
        return convolved_logits(network, sound, chunk=chunk, progress=progress)
    parts = shared_out(progress, {"convolutions": 0.2, "encoder": 0.8})  # as the time that they take
    logits = convolved_logits(network, sound, chunk=chunk, progress=parts["convolutions"])
    return add_acoustic_logits(logits, in_segments(network, sound, network.acoustic_logits, progress=parts["encoder"]))


def convolved_logits(
    network: MouthNetwork, sound: SpeechSound, *, chunk: int = CHUNK, progress: Progress = no_progress
) -> torch.Tensor:
    """The logits (control frames, 7) of the network without its acoustic encoder."""
    mel = normalise(sound.power, network.average)
    return in_chunks(network, mel, lambda network, mel: network(mel)[0], chunk=chunk, progress=progress)


def in_segments(
    network: MouthNetwork,
    sound: SpeechSound,
    compute: Callable[[torch.Tensor], torch.Tensor],
    *,
    progress: Progress = no_progress,
) -> torch.Tensor:
    """What `compute` returns (1, frames, ...) for acoustic states (1, frames, channels), for each control frame.

    Segments are encoded one after another, each with the frames around it. After the end there is silence, so that a
    word alone is encoded as it is in a long silence. The network has an acoustic encoder, and `sound` is its own.
    """
    assert sound.acoustic_power is not None
    frames = range((len(sound.acoustic_power) + 1) // 2)
    power = torch.nn.functional.pad(sound.acoustic_power, (0, 0, 0, 2 * (_SEGMENT + _CONTEXT)))
    return _in_segments(network, power, speech_level(frame_level(sound.power)), frames, compute, progress)


def _in_segments(
    network: MouthNetwork,
    power: torch.Tensor,
    level: torch.Tensor,
    wanted: range,
    compute: Callable[[torch.Tensor], torch.Tensor],
    progress: Progress,
) -> torch.Tensor:
    """As `in_segments`, of the `wanted` control frames of `power` (frames, 80); the first begins a segment."""
    encoder = network.acoustic_encoder
    assert encoder is not None
    check_between_layers(network)
    frames = (len(power) + 1) // 2
    made = []
    for start in range(wanted.start, wanted.stop, _SEGMENT):
        stop = min(start + _SEGMENT, wanted.stop)
        first, last = max(0, start - _CONTEXT), min(frames, start + _SEGMENT + _CONTEXT)
        states = encoder(encoder.input(power[None, 2 * first : 2 * last], level))
        made.append(compute(states)[0, start - first : stop - first])
        progress(stop - wanted.start, len(wanted))
    return torch.cat(made)


def in_chunks(
    network: MouthNetwork,
    mel: torch.Tensor,
    compute: Callable[[MouthNetwork, torch.Tensor], torch.Tensor],
    *,
    chunk: int = CHUNK,
    progress: Progress = no_progress,
) -> torch.Tensor:
    """What `compute` makes of normalised log-mel (frames, mels), for each control frame, 50 a second.

    `compute` takes the network and (1, frames, mels) and returns (1, control frames, ...). Each piece of `chunk`
    control frames is computed with all the context that its frames depend on.
    """
    frames = (len(mel) + 1) // 2
    context = math.ceil(network.config.context / 2)
    values = []
    for start in range(0, frames, chunk):
        stop = min(start + chunk, frames)
        first, last = max(0, start - context), min(frames, stop + context)
        values.append(compute(network, mel[None, 2 * first : 2 * last])[0, start - first : stop - first])
        progress(stop, frames)
    return torch.cat(values)


def readings(values: np.ndarray, values_rate: int, rate: Fraction, frames: range, first: int = 0) -> np.ndarray:
    """(frames, places, ...) of `values` (T, ...): interpolated at places within the duration of each video frame.

    Value j belongs to the time (`first` + j) / `values_rate`. Frame i lasts half a frame to either side of the time
    i / `rate`; its places are evenly spread over that, at least two for each value. Beyond the ends is the first or the
    last value.
    """
    half = Fraction(values_rate) / rate / 2
    places = np.linspace(-1, 1, 2 * max(1, math.ceil(half * 2)) + 1)
    centres = np.asarray(frames) * float(values_rate / rate) - first
    times = np.clip(centres[:, None] + places[None] * float(half), 0, len(values) - 1)
    low = np.minimum(times.astype(int), len(values) - 1)
    high = np.minimum(low + 1, len(values) - 1)
    part = (times - low).reshape(*times.shape, *[1] * (values.ndim - 1))
    interpolated: np.ndarray = values[low] * (1 - part) + values[high] * part
    return interpolated
