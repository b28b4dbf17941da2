"""Frames out are frames expected, by each renderer's own counting, for a thousand random lengths, rates and chunks."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from talking_portrait.pipelines.aniportrait.audio_motion import plan_chunks
from talking_portrait.pipelines.aniportrait.settings import Settings as AniPortraitSettings
from talking_portrait.pipelines.apasco.animate import plan_clips
from talking_portrait.pipelines.audio.overlapping_windows import blended_windows
from talking_portrait.pipelines.audio.waveform import as_speech
from talking_portrait.pipelines.diffusion.context_windows import open_windows, uniform_windows
from talking_portrait.pipelines.diffusion.segments import plan_segments
from talking_portrait.pipelines.instant.driver.mouth_controls import MouthControls
from talking_portrait.pipelines.instant.dub.film import frame_order
from talking_portrait.pipelines.memory import HalvingBatches
from talking_portrait.pipelines.person.head_frames import forwards_and_backwards
from talking_portrait.pipelines.syncanimation import speech as syncanimation
from talking_portrait.pipelines.timing import as_rate, frame_count
from talking_portrait.pipelines.types import Audio

TIMES = 1000
RATES = (8000, 11025, 16000, 22050, 24000, 44100, 48000)
FPS = (1, 7, 12.5, 15, 23.976, 24, 25, 29.97, 30, 50, 59.94, 60, 120, 240)


def instant(samples: int, rate: int, fps: Fraction, chunk: int) -> int:
    seconds = Fraction(samples, rate)
    values = np.zeros((math.ceil(seconds * 50) + 1, 6), np.float32)
    return len(MouthControls(values, values[:, 0], 50, seconds).at(fps))


def dub(samples: int, rate: int, fps: Fraction, chunk: int) -> int:
    """`chunk` is the film's length."""
    frames = frame_count(samples, rate, fps)
    held, played = (frame_order(chunk, frames, end) for end in ("hold", "back and forth"))  # type: ignore[arg-type]
    assert len(held) == len(played)
    assert {*held, *played} <= set(range(chunk))
    assert len(frame_order(chunk, frames, "cut")) == min(chunk, frames)
    return len(played)


def aniportrait(samples: int, rate: int, fps: Fraction, chunk: int) -> int:
    frames, window = frame_count(samples, rate, fps), AniPortraitSettings().window
    at_16_khz = math.ceil(Fraction(samples * 16000, rate))
    assert sum(piece.frames for piece in plan_chunks(at_16_khz, frame_count(at_16_khz, 16000, Fraction(30)))) == (
        frame_count(at_16_khz, 16000, Fraction(30))
    )
    for windows in (uniform_windows, open_windows):
        assert {number for span in windows(frames, window) for number in span} == set(range(frames))
    return sum(segment.last - segment.first for segment in plan_segments(frames, chunk, reach=window))


def anitalker(samples: int, rate: int, fps: Fraction, chunk: int) -> int:
    """Windows of `chunk` frames, whose weights add up to one in each."""
    frames = frame_count(samples, rate, fps)
    whole = torch.zeros(frames)
    for start, end, weight in blended_windows(frames, chunk / float(fps), fps):
        whole[start:end] += weight
    torch.testing.assert_close(whole, torch.ones(frames))
    return round(float(whole.sum()))


def apasco(samples: int, rate: int, fps: Fraction, chunk: int) -> int:
    return sum(plan_clips(frame_count(samples, rate, fps), chunk + 1, chunk // 2))


def audiodvp(samples: int, rate: int, fps: Fraction, chunk: int) -> int:
    """Batches of `chunk` frames, of which the first does not fit into memory."""
    numbers = forwards_and_backwards(50, frame_count(samples, rate, fps), 7)
    full = min(chunk, len(numbers)) > 1

    def generate(start: int, end: int) -> np.ndarray:
        nonlocal full
        if full:
            full = False
            raise torch.OutOfMemoryError("out of memory")
        return numbers[start:end]

    return sum(map(len, HalvingBatches(chunk, "frame").each(len(numbers), generate)))


def sync_animation(samples: int, rate: int, fps: Fraction, chunk: int) -> int:
    scale: Any = SimpleNamespace(encoder=lambda given: None, standardised=lambda features: features)
    audio = Audio(torch.zeros(1, samples), rate)
    pieces = list(syncanimation.speech_pieces(audio, fps, scale))
    assert [piece.start for piece in pieces] == [0, *(piece.stop for piece in pieces[:-1])]
    return pieces[-1].stop


COUNTS: dict[str, Callable[[int, int, Fraction, int], int]] = {
    "instant": instant,
    "dub": dub,
    "aniportrait": aniportrait,
    "anitalker": anitalker,
    "apasco": apasco,
    "audiodvp": audiodvp,
    "syncanimation": sync_animation,
}


@pytest.mark.parametrize("renderer", COUNTS)
def test_frames_are_exact(renderer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syncanimation, "features_by_frames", lambda audio, fps, encoder: lambda frames: None)
    for number in range(TIMES):
        drawn = random.Random(f"{renderer} {number}")
        rate, fps, chunk = drawn.choice(RATES), as_rate(drawn.choice(FPS)), drawn.randint(1, 64)
        samples = drawn.choice((drawn.randint(rate // 40, rate), drawn.randint(1, 6 * rate // max(1, round(fps / 30)))))
        samples = max(samples, rate // 40)
        made = COUNTS[renderer](samples, rate, fps, chunk)
        expected = -(-samples * fps.numerator // (rate * fps.denominator))
        assert made == expected, f"{samples} samples at {rate} Hz, {fps} frames a second, {chunk} at once"


def test_speech_lasts_as_many_frames_as_the_recording() -> None:
    for number in range(TIMES // 20):
        drawn = random.Random(number)
        rate, fps = drawn.choice(RATES), as_rate(drawn.choice(FPS))
        samples = drawn.randint(rate // 40, rate // 4)
        speech = as_speech(Audio(torch.zeros(1, samples), rate), fps)
        assert frame_count(speech.samples, speech.sample_rate, fps) == frame_count(samples, rate, fps)
