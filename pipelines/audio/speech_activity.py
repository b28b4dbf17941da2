"""Where there is speech: as the mouth network predicts it, without sounds that have no words.

Those are separated from speech over several seconds; the mouth network takes in about 1.3 s.

Of speech most frames with sound are classified as speech, of music only some. And the spectrum of speech changes,
while that of rustling, sawing or the hiss of a machine stays, however their loudness varies.

Tuned on one half of the 1176 recordings of sounds without speech in docs/instant-driver.md; the other half is the test.
What counts at the ends and of a steady background was chosen on recordings of speakers and sounds of games, there too.
"""

from __future__ import annotations

import numpy as np
import torch

from ...models.curves import smoothstep
from ...models.speech.mouth_network import FRAME_RATE, QUIETEST_DB, frame_level, speech_level
from ..types import Audio
from .mouth_states import convolved_logits
from .mouth_weights import DEFAULT_WEIGHTS, open_mouth
from .phrase_level import levelled_sound
from .waveform import check_audio

SPOKEN = (0.06, 0.20)
"""Speech activity under which there is none, and from which it is certain."""
_SILENT = -40.0
"""dB under the speech level of a moment that is silent whatever the network predicts in it."""
_WINDOW = 4 * FRAME_RATE + 1
_LOUD = (-23.0, -17.0)
"""dB relative to the speech level at which a frame begins to count as sound, and at which it counts in full."""
_FLOOR, _FLOOR_REACH = 20, 8
"""Percentile of the level, over so many seconds, that is a steady background's."""
_OVER_FLOOR, _LOUDER_FLOOR = (8.0, 4.0), 11.0
"""dB over it from which a frame is no background, and up to which it is; by how much louder that must be to count."""
_FLOOR_STEP = 5
"""Frames over which the background's level is averaged, and after which it is taken again."""
_WORDS = (0.55, 0.70)
"""Share of the sound in a window that must be classified as speech."""
_COLOUR_FLOOR = -45.0
_STEADY = 11
"""Mel frames over which a noise's fast changes are averaged out of its spectrum."""
_CHANGING = (0.50, 0.65)
"""Slow changes of the spectrum over fast ones: up to 0.5 in steady noises, above 0.7 in speech."""
_PART = FRAME_RATE
"""Frames of the recording that a window holds at least: a phrase before music may be all of a window at its start."""
_STRICTER = (0.50, 0.35)
"""By how much, per part of a window that lies beyond the recording's ends, more of its sound must be speech."""
_WELL_FILLED = 0.7
"""Of the windows around a frame, those with less than this part of the most sound don't count."""
_JUDGEABLE = (0.6, 1.0)
"""Seconds of sound in a window from which its spectrum is measured: one word is too short."""


@torch.inference_mode()
def speech_activity(audio: Audio) -> np.ndarray:
    """Speech activity (T,) in 0..1 of any sound, 50 a second, by the mouth network that ships.

    Raises TalkingPortraitError for audio that `check_audio` refuses.
    """
    network = open_mouth(DEFAULT_WEIGHTS)
    sound = levelled_sound(network, check_audio(audio))
    return certain_activity(torch.sigmoid(convolved_logits(network, sound)[:, -1]).numpy(), sound.power)


def certain_activity(predicted: np.ndarray, power: torch.Tensor) -> np.ndarray:
    """Speech activity (T,) as the network predicts it, without what is silent or has no words in mel `power`."""
    level = frame_level(power)
    usual = float(speech_level(level))
    sounding = predicted * (_loudest(level.numpy()) > max(usual + _SILENT, QUIETEST_DB))
    return sounding * speech_likelihood(sounding, power.numpy(), usual)


def _loudest(level: np.ndarray) -> np.ndarray:
    """For each control frame, the loudest mel frame within 0.3 s, for the mouth leads and trails the sound."""
    from scipy.ndimage import maximum_filter1d

    return maximum_filter1d(level, 61, mode="nearest")[::2]


def speech_likelihood(activity: np.ndarray, power: np.ndarray, speech_level: float) -> np.ndarray:
    """The likelihood (T,) in 0..1 that what is classified as speech around each frame is speech.

    Args:
        activity: (T,) in 0..1, the network's speech activity, 50 a second.
        power: (2 T or 2 T - 1, mels) mel power, 100 frames a second.
        speech_level: dB of full scale (`models/speech/mouth_network.speech_level`).

    Each frame is judged by the best of the windows of four seconds that it lies in, so that the last word before music
    is still said. At the recording's ends windows are shorter, and stricter unless all of the recording is as short.
    """
    from scipy.ndimage import maximum_filter1d

    beyond = _WINDOW // 2 - _PART
    level = 10 * np.log10(power[::2].mean(axis=1) + 1e-14)[: len(activity)] - speech_level
    sounding = np.pad(_sounding(level), beyond)
    inside = np.maximum(_around(np.pad(np.ones(len(activity)), beyond)), 1 / _WINDOW)
    amount = np.maximum(_around(sounding), 0)
    share = _around(sounding * np.pad(activity, beyond)) / np.maximum(amount, 1e-6)
    least, most = (words + more * (inside.max() - inside) for words, more in zip(_WORDS, _STRICTER, strict=True))
    spoken = np.where(amount > 1e-6, smoothstep(least, most, share), 1.0)
    loud = np.pad(smoothstep(*_LOUD, level), beyond)
    judgeable = smoothstep(*_JUDGEABLE, np.maximum(_around(loud), 0) * _WINDOW / FRAME_RATE)
    changing = 1 - judgeable * (1 - smoothstep(*_CHANGING, _colour_change(power, loud, speech_level)))
    filled = amount / inside
    well_filled = filled >= _WELL_FILLED * maximum_filter1d(filled, _WINDOW)
    best = maximum_filter1d(np.where(well_filled, np.minimum(spoken, changing), 0.0), _WINDOW)
    likelihood: np.ndarray = np.where(maximum_filter1d(well_filled, _WINDOW), best, 1.0)
    return likelihood[beyond : beyond + len(activity)]


def _sounding(level: np.ndarray) -> np.ndarray:
    """How much the frames of `level` (T,), dB relative to the speech level, count as sound, in 0..1.

    Noise of a room or a microphone is none between words, as it would outweigh them; where it is loud it is.
    """
    from scipy.ndimage import percentile_filter, uniform_filter1d

    slow = uniform_filter1d(level, _FLOOR_STEP, mode="nearest")[::_FLOOR_STEP]
    floor = percentile_filter(slow, _FLOOR, size=_FLOOR_REACH * FRAME_RATE // _FLOOR_STEP + 1, mode="nearest")
    steady = smoothstep(*_OVER_FLOOR, level - floor.repeat(_FLOOR_STEP)[: len(level)])
    low, high = _LOUD
    return smoothstep(low + _LOUDER_FLOOR * steady, high + _LOUDER_FLOOR * steady, level)


def _around(values: np.ndarray) -> np.ndarray:
    """Mean (T,) over the window around each frame; beyond the ends there is silence."""
    from scipy.ndimage import uniform_filter1d

    mean: np.ndarray = uniform_filter1d(values, _WINDOW, mode="constant")
    return mean


def _colour_change(power: np.ndarray, sounding: np.ndarray, speech_level: float) -> np.ndarray:
    """Standard deviation (T + 2 n,) of the bands' levels over a window, slow over fast, for `sounding` (T + 2 n,).

    `power` (2 T, mels) lacks the n frames before and after. Band by band, as memory is scarce.
    """
    from scipy.ndimage import uniform_filter1d

    floor = 10 ** ((speech_level + _COLOUR_FLOOR) / 10)
    frames, bands = len(sounding), power.shape[1]
    beyond = frames - (len(power) + 1) // 2

    def decibels(band: int) -> np.ndarray:
        """A band's level (2, mel frames): averaged, and how it deviates from that."""
        now = np.pad(power[:, band].astype(np.float64), beyond)
        steady = 10 * np.log10(np.maximum(uniform_filter1d(now, _STEADY), 0) + floor)
        return np.stack([steady, 10 * np.log10(now + floor) - steady])

    average = np.zeros((2, len(power) + 2 * beyond))
    for band in range(bands):
        average += decibels(band)
    average /= bands
    weight = np.repeat(sounding, 2)[: average.shape[1]]
    amount = np.maximum(_around(sounding), 1e-6)
    slow, fast = np.zeros(frames), np.zeros(frames)
    for band in range(bands):
        steady, flutter = decibels(band) - average
        middle = _around((steady * weight)[::2]) / amount
        slow += np.maximum(_around((steady**2 * weight)[::2]) / amount - middle**2, 0)
        fast += _around((flutter**2 * weight)[::2]) / amount
    return np.sqrt(slow / np.maximum(fast, 1e-6))
