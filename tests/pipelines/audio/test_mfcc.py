"""MFCC: shapes and rates of both recipes, edges, and bad input. The numbers themselves are compared in tests/parity."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from talking_portrait.pipelines.audio import mfcc as module
from talking_portrait.pipelines.audio.mfcc import cepstra, filterbank, mfcc, row_count, slope, with_slopes
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.types import Audio


def sound(samples: int, rate: int = 16000) -> Audio:
    time = torch.arange(samples) / rate
    return Audio((0.2 * torch.sin(2 * torch.pi * 300 * time) * torch.sin(2 * torch.pi * 2 * time))[None], rate)


@pytest.mark.parametrize(
    ("samples", "rows"), [(200, 1), (400, 1), (401, 2), (560, 2), (561, 3), (16000, 99), (48000, 299)]
)
def test_rows_cover_the_sound(samples: int, rows: int) -> None:
    assert row_count(samples) == rows
    assert len(cepstra(sound(samples).waveform[0].numpy())) == rows


def test_anitalker_has_four_rows_to_a_video_frame() -> None:
    features = mfcc(sound(16000), recipe="anitalker")
    assert features.states.shape == (96, 1, 39)
    assert (features.fps, features.model) == (Fraction(100), "mfcc-anitalker")
    assert features.states.dtype == torch.float32


def test_audiodvp_has_a_window_for_each_video_frame() -> None:
    features = mfcc(sound(32000), recipe="audiodvp")
    assert features.states.shape == (49, 28, 12)
    assert features.fps == 25
    torch.testing.assert_close(features.states[1, :24], features.states[0, 4:])


@pytest.mark.parametrize("fps", [Fraction(24), Fraction(30000, 1001), Fraction(50), Fraction(60)])
def test_audiodvp_has_windows_at_any_rate(fps: Fraction) -> None:
    features = mfcc(sound(32000), recipe="audiodvp", fps=fps)
    assert features.fps == fps
    assert 2 * fps - 2 <= features.frames <= 2 * fps
    rows = cepstra(torch.nn.functional.pad(sound(32000).waveform[0], (1920, 1920)).numpy())
    for frame in (0, 7, features.frames - 1):
        first = round(100 * frame / float(fps))
        np.testing.assert_allclose(features.states[frame], rows[first : first + 28, 1:], atol=1e-4)


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    wave = sound(9000).waveform[0].numpy()
    whole = cepstra(wave)
    monkeypatch.setattr(module, "BLOCK_ROWS", 7)
    calls: list[tuple[int, int]] = []
    parts = cepstra(wave, lambda done, total, preview=None: calls.append((done, total)))
    np.testing.assert_allclose(parts, whole, rtol=1e-12)
    assert calls[-1] == (len(whole), len(whole))
    assert len(calls) == -(-len(whole) // 7)


def test_filters_are_triangles_that_reach_one_and_overlap() -> None:
    bank = filterbank()
    assert bank.shape == (26, 257)
    assert bank.min() == 0
    assert np.all(bank.max(axis=1) == 1)
    peaks = bank.argmax(axis=1)
    assert np.all(np.diff(peaks) > 0)
    np.testing.assert_allclose(bank[:, peaks[0] : peaks[-1] + 1].sum(axis=0), 1)


def test_slopes_of_a_line_are_its_steepness_and_ends_are_repeated() -> None:
    line = 3.0 * np.arange(20)[:, None] * np.ones((1, 13))
    np.testing.assert_allclose(slope(line, 1)[1:-1], 3)
    np.testing.assert_allclose(slope(line, 2)[2:-2], 3)
    np.testing.assert_allclose(slope(line, 1)[0], 1.5)
    columns = with_slopes(line)
    np.testing.assert_allclose(columns[5, 13:], 3)  # the slope of a slope would be 0


def test_louder_is_more_energy_and_the_same_spectrum() -> None:
    quiet, loud = cepstra(sound(8000).waveform[0].numpy()), cepstra(2 * sound(8000).waveform[0].numpy())
    np.testing.assert_allclose(loud[:, 0] - quiet[:, 0], np.log(4), atol=1e-4)
    np.testing.assert_allclose(loud[:, 1:], quiet[:, 1:], atol=1e-3)


@pytest.mark.parametrize("recipe", ["anitalker", "audiodvp"])
def test_silence_is_finite_and_other_rates_give_as_many_frames(recipe: module.Recipe) -> None:
    silent = mfcc(Audio(torch.zeros(2, 16000), 16000), recipe=recipe)
    assert torch.isfinite(silent.states).all()
    assert mfcc(sound(44100, 44100), recipe=recipe).frames == silent.frames


@pytest.mark.parametrize(("recipe", "shortest"), [("anitalker", 721), ("audiodvp", 721)])
def test_too_short_a_sound_is_refused_with_the_needed_length(recipe: module.Recipe, shortest: int) -> None:
    with pytest.raises(TalkingPortraitError, match=f"needs? at least {shortest}"):
        mfcc(sound(shortest - 1), recipe=recipe)
    assert mfcc(sound(shortest), recipe=recipe).frames > 0


def test_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(TalkingPortraitError, match="anitalker or audiodvp"):
        mfcc(sound(16000), recipe="plain")  # type: ignore[arg-type]
