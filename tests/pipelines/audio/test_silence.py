"""A mouth closes in long silence, and only there."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from talking_portrait.pipelines.audio.silence import silence_weight
from talking_portrait.pipelines.files.example import example_speech
from talking_portrait.pipelines.timing import frame_count
from talking_portrait.pipelines.types import Audio

from ..instant.everyday_sounds import WITHOUT_SPEECH

RATE = 16000
SPANS = ((1.0, 0.0), (1.0, 1.0), (0.4, 0.0), (0.6, 1.0), (3.0, 1e-4), (1.0, 1.0))
"""Seconds, and how loud they are: long silence at the beginning and near the end, and a pause of speech."""
FIRST = 2 * RATE
"""Sample of the shipped speech from which it has no pause."""


def spoken(spans: tuple[tuple[float, float], ...] = SPANS, around: torch.Tensor | None = None) -> Audio:
    """The shipped speech at these loudnesses, with a sound `around` it 20 dB below."""
    loudness = torch.cat([torch.full((round(RATE * seconds),), level) for seconds, level in spans])
    speech = example_speech().waveform[0, FIRST : FIRST + len(loudness)] * loudness
    if around is not None:
        speech = speech + 0.1 * speech.std() * around[: len(speech)] / around.std()
    return Audio(speech[None], RATE)


@pytest.mark.parametrize("around", [None, "pink", "chords"])
@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30000, 1001), Fraction(60)])
def test_only_long_silence_closes_the_mouth(fps: Fraction, around: str | None) -> None:
    audio = spoken(around=None if around is None else WITHOUT_SPEECH[around])
    frames = frame_count(audio.samples, audio.sample_rate, fps)
    weight = silence_weight(audio, frames, fps)
    time = (np.arange(frames) + 0.5) / float(fps)
    loud = ((time > 1) & (time < 3.7)) | (time > 6)
    assert weight.shape == (frames,)
    assert weight[loud].max() < 0.01
    assert weight[time < 0.7].min() > 0.99
    assert weight[(time > 4.2) & (time < 5.7)].min() > 0.99
    assert np.abs(np.diff(weight)).max() < 13 / float(fps) * 0.75  # it closes and opens over some frames
    shifted = silence_weight(Audio(audio.waveform + 0.05, RATE), frames, fps)
    assert np.abs(shifted - weight).max() < 0.01
    short = spoken(((0.5, 0.0), (1.0, 0.2), (0.5, 0.0)))
    assert silence_weight(short, 50, Fraction(25)).max() == 0
    assert silence_weight(Audio(torch.zeros(1, 8000), RATE), 13, Fraction(25)).min() == 1


def test_a_sound_without_any_speech_closes_the_mouth_where_it_is_quiet() -> None:
    """A tone is no speech, but whoever drives a mouth with it wants it to move."""
    tone = WITHOUT_SPEECH["tone"].clone()
    tone[2 * RATE : 5 * RATE] *= 1e-3
    weight = silence_weight(Audio(tone[None], RATE), 200, Fraction(25))
    assert max(weight[:50].max(), weight[125:].max()) < 0.01
    assert weight[80:118].min() > 0.99
