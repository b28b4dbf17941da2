"""Lips against sound, on curves whose right numbers are known."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from talking_portrait.pipelines.evaluation.speech_lips import (
    RATE,
    at_rate,
    closures,
    compare_closures,
    silence_movement,
    sound_curves,
    speech_correlation,
)
from talking_portrait.pipelines.types import Audio

SECONDS = 8


def syllables(rate: int = 16000) -> np.ndarray:
    """Loudness (n,) of syllables of uneven lengths, with a pause from 4 to 5.5 s."""
    time = np.arange(SECONDS * rate) / rate
    loud = np.square(np.sin(np.pi * (2 * time + 0.4 * np.sin(2 * np.pi * 0.7 * time))))
    return np.where((time >= 4) & (time < 5.5), 0, loud)


def voice(rate: int = 16000, loudest: float = 0.3) -> Audio:
    time = np.arange(SECONDS * rate) / rate
    tone = sum(np.sin(2 * np.pi * 150 * number * time) for number in range(1, 12))
    wave = loudest / 11 * tone * syllables(rate) + 1e-5 * np.sin(2 * np.pi * 50 * time)
    return Audio(torch.from_numpy(wave).float()[None], rate)


def lips(late: float = 0.0) -> np.ndarray:
    """Openings at `RATE` that follow the syllables."""
    time = np.arange(SECONDS * RATE) / RATE - late
    return 0.2 * np.interp(time, np.arange(SECONDS * 100) / 100, syllables(100))


@pytest.mark.parametrize("late", [-0.12, 0.0, 0.08, 0.2])
def test_lips_that_follow_the_sound_correlate_at_their_lag(late: float) -> None:
    found = speech_correlation(lips(late), sound_curves(voice()).syllables)
    assert found is not None
    assert found.best > 0.9
    assert found.lag == pytest.approx(late, abs=0.021)
    assert found.clear


def test_lips_of_other_words_correlate_less() -> None:
    right = speech_correlation(lips(), sound_curves(voice()).syllables)
    other = speech_correlation(lips()[::-1].copy(), sound_curves(voice()).syllables)
    assert right is not None
    assert other is not None
    assert other.best < right.best - 0.3


@pytest.mark.parametrize(("rate", "loudest"), [(16000, 0.003), (44100, 0.3), (8000, 0.3)])
def test_curves_depend_neither_on_the_level_nor_on_the_rate(rate: int, loudest: float) -> None:
    curves, usual = sound_curves(voice(rate, loudest)), sound_curves(voice())
    assert np.abs(curves.syllables[: len(usual.syllables)] - usual.syllables[: len(curves.syllables)]).mean() < 0.05


@pytest.mark.parametrize("start", [0.0, 2.0, 5.5])
def test_a_lag_that_says_nothing_is_not_clear(start: float) -> None:
    sound = sound_curves(voice()).syllables
    chance = np.random.default_rng(0).normal(size=len(sound))
    piece = slice(round(start * RATE), round((start + 2.5) * RATE))
    found = speech_correlation(chance[piece], sound[piece])
    assert found is not None
    assert not found.clear, "noise against 2.5 s of speech"
    time = np.arange(SECONDS * RATE) / RATE
    regular = np.sin(2 * np.pi * 4 * time)
    found = speech_correlation(regular, regular)
    assert found is not None
    assert found.best > 0.9
    assert not found.clear, "four syllables a second: 0.25 s later fits as well"
    found = speech_correlation(lips(0.4), sound)
    assert found is not None
    assert not found.clear, "later than what is looked for"


def test_digital_silence_has_curves_of_zeros_and_no_correlation() -> None:
    curves = sound_curves(Audio(torch.zeros(1, 48000), 16000))
    assert not curves.loudness.any()
    found = speech_correlation(np.full(150, 0.1), curves.syllables)
    assert found is not None
    assert found.best == 0


def test_less_than_two_seconds_have_no_correlation() -> None:
    assert speech_correlation(lips()[:80], sound_curves(voice()).syllables) is None


def test_movement_in_a_pause_counts_against_that_in_speech() -> None:
    loud = sound_curves(voice()).loudness
    still = lips()
    assert silence_movement(still, loud) == pytest.approx(0, abs=0.05)
    time = np.arange(len(still)) / RATE
    chewing = still + 0.1 * np.sin(2 * np.pi * 3 * time) * ((time >= 4) & (time < 5.5))
    assert silence_movement(chewing, loud) > 0.5  # type: ignore[operator]
    assert silence_movement(still[: 4 * RATE], loud) is None, "there is no pause"


def test_closures_are_matched_one_to_one() -> None:
    time = np.arange(6 * RATE) / RATE
    opening = 0.1 * (1 - np.cos(2 * np.pi * time)) / 2
    assert len(closures(opening)) == 7
    assert closures(opening)[1:-1] == pytest.approx([1, 2, 3, 4, 5], abs=0.03)
    same = compare_closures(opening, opening)
    assert same is not None
    assert (same.recall, same.f1) == (1, 1)
    fewer = np.where((time > 1.5) & (time < 3.5), np.maximum(opening, 0.08), opening)
    found = compare_closures(fewer, opening)
    assert found is not None
    assert found.recall == pytest.approx(5 / 7)
    assert found.f1 == pytest.approx(2 * 5 / 12)
    late = compare_closures(np.roll(opening, 15), opening)
    assert late is not None
    assert late.recall < 0.3, "0.3 s late is another closure"
    assert compare_closures(opening, opening + 0.05) is None, "such lips never close"


def test_a_curve_keeps_its_time_at_any_rate() -> None:
    for fps in (Fraction(25), Fraction(30000, 1001), Fraction(60)):
        count = round(4 * fps)
        values = np.sin(2 * np.pi * np.arange(count) / float(fps))
        moved = at_rate(values, fps, 3.5)
        assert len(moved) == 175
        assert np.abs(moved - np.sin(2 * np.pi * np.arange(175) / RATE)).max() < 0.02
