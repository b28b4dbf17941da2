from __future__ import annotations

import numpy as np
import pytest
import torch
from talking_portrait.pipelines.instant.driver.prosody import RATE, analyse, find_accents, find_phrases, gaussian
from talking_portrait.pipelines.types import Audio


def voice(f0: np.ndarray, loudness: np.ndarray | float = 1.0, rate: int = 16000, noise: float = 0.0) -> Audio:
    """A buzz with 20 falling harmonics; `f0` and `loudness` a value for each sample."""
    phase = 2 * np.pi * np.cumsum(f0) / rate
    wave = sum(np.sin(k * phase) / k * (k * f0 < rate / 2) for k in range(1, 21)) * 0.1 * loudness
    wave = wave + noise * np.random.default_rng(0).standard_normal(len(f0))
    return Audio(torch.from_numpy(wave).float()[None], rate)


def everywhere(audio: Audio) -> np.ndarray:
    return np.ones(int(audio.seconds * 50) + 2)


@pytest.mark.parametrize("pitch", [75, 120, 210, 330])
@pytest.mark.parametrize("rate", [16000, 44100])
def test_pitch_follows_a_glide(pitch, rate):
    seconds = np.arange(3 * rate) / rate
    f0 = pitch * 2 ** (np.sin(2 * np.pi * 0.7 * seconds) / 4)  # +-3 semitones
    prosody = analyse(voice(f0, rate=rate), np.ones(200), 50)
    expected = 12 * np.log2(np.interp(np.arange(prosody.frames) / RATE, seconds, f0) / np.median(f0))
    inner = slice(10, -10)
    assert prosody.voiced[inner].mean() > 0.98
    assert np.abs(prosody.pitch - expected)[inner].max() < 0.5


def test_pitch_survives_noise_and_a_telephone():
    from scipy.signal import butter, sosfilt

    seconds = np.arange(48000) / 16000
    f0 = 140 + 25 * np.sin(2 * np.pi * 0.8 * seconds)
    noisy = voice(f0, noise=0.05)
    band = butter(4, [300, 3400], "band", fs=16000, output="sos")
    phone = Audio(torch.from_numpy(sosfilt(band, noisy.waveform.numpy()).copy()).float(), 16000)
    for audio in (noisy, phone):
        prosody = analyse(audio, np.ones(200), 50)
        expected = 12 * np.log2(np.interp(np.arange(prosody.frames) / RATE, seconds, f0) / np.median(f0))
        error = np.abs(prosody.pitch - expected)[prosody.voiced][10:-10]
        assert prosody.voiced.mean() > 0.7
        assert np.percentile(error, 95) < 1.0


def test_noise_and_silence_have_no_pitch():
    noise = Audio(torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, 48000)).float()[None], 16000)
    for audio in (noise, Audio(torch.zeros(1, 48000), 16000)):
        prosody = analyse(audio, everywhere(audio), 50)
        assert prosody.voiced.mean() < 0.1
        assert np.isfinite(prosody.pitch).all()
        assert np.isfinite(prosody.loudness).all()


def test_blocks_change_nothing(monkeypatch):
    audio = voice(np.linspace(100, 180, 50000), noise=0.01)
    whole = analyse(audio, everywhere(audio), 50)
    monkeypatch.setattr("talking_portrait.pipelines.instant.driver.prosody._BLOCK", 37)
    pieces = analyse(audio, everywhere(audio), 50)
    assert np.allclose(whole.pitch, pieces.pitch)
    assert np.allclose(whole.loudness, pieces.loudness)


def test_phrases_close_short_gaps_and_drop_blips():
    talking = np.zeros(1000, dtype=bool)
    talking[100:200] = talking[230:300] = talking[400:500] = talking[800:804] = True
    assert find_phrases(talking).tolist() == [[1.0, 3.0], [4.0, 5.0]]
    assert find_phrases(np.zeros(50, dtype=bool)).shape == (0, 2)
    assert find_phrases(np.ones(50, dtype=bool)).tolist() == [[0, 0.5]]


def test_the_louder_higher_syllables_carry_the_accents():
    talking = np.ones(1000, dtype=bool)
    syllables = np.arange(30, 1000, 40)
    strong = syllables[::4]
    loudness, pitch = np.full(1000, -18.0), np.zeros(1000)
    for at in syllables:
        loudness += (24.0 if at in strong else 18.0) * np.exp(-0.5 * ((np.arange(1000) - at) / 7) ** 2)
    for at in strong:
        pitch += 5 * np.exp(-0.5 * ((np.arange(1000) - at) / 10) ** 2)
    accents = find_accents(loudness, pitch, talking)
    strengths = dict(zip((accents[:, 0] * RATE).round().astype(int).tolist(), accents[:, 1], strict=True))
    assert all(min(abs(found - at) for found in strengths) <= 2 for at in strong)
    strongest = sorted(strengths, key=lambda at: -strengths[at])[: len(strong)]
    assert all(min(abs(at - other) for other in strong) <= 2 for at in strongest)
    assert len(find_accents(loudness, pitch, ~talking)) == 0


def test_audio_frames_are_covered():
    for samples in (400, 16000, 16001):
        prosody = analyse(Audio(torch.zeros(1, samples), 16000), np.zeros(3), 50)
        assert prosody.frames >= samples / 160
        assert len(prosody.phrases) == len(prosody.accents) == 0


def test_gaussian_has_no_delay():
    pulse = np.zeros(101)
    pulse[50] = 1
    smooth = gaussian(pulse, 5)
    assert smooth.argmax() == 50
    assert smooth.sum() == pytest.approx(1)
