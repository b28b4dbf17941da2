"""Audio to mouth controls: closed where nothing is said, the same whole or in pieces, like a real speaker."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from talking_portrait.models.face_mesh import mouth_opening
from talking_portrait.models.instant.mouth_network import CONTROLS
from talking_portrait.models.instant.mouth_shapes import neutral_vertices
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.instant.mouth import MouthControls, mouth_controls
from talking_portrait.pipelines.types import Audio

SPEECH = Path(__file__).parents[3] / "shared" / "data" / "speech"


def opening(controls: MouthControls, fps: int = 25) -> np.ndarray:
    return mouth_opening(neutral_vertices() + controls.vertices_at(fps))


def vowels(seconds: float, rate: int = 16000, syllables: float = 2) -> torch.Tensor:
    """Something voice-like: a buzz of 120 Hz through two resonances that comes and goes `syllables` times a second."""
    from scipy.signal import lfilter

    t = np.arange(int(seconds * rate)) / rate
    sound = (np.diff(np.floor(t * 120), prepend=0) > 0).astype(float)
    for hertz in (700, 1200):
        pole = 0.97 * np.exp(2j * np.pi * hertz / rate)
        sound = lfilter([1], [1, -2 * pole.real, abs(pole) ** 2], sound)
    sound *= np.clip(np.sin(2 * np.pi * syllables * t), 0, None)
    return torch.from_numpy(0.3 * sound / np.abs(sound).max()).float()


def test_a_voice_opens_the_mouth_and_its_pauses_close_it():
    gap = opening(mouth_controls(Audio(vowels(6.0, syllables=0.5)[None], 16000)))  # a second of voice, one of silence
    for second in (0, 2, 4):
        assert gap[second * 25 + 8 : second * 25 + 18].mean() > 0.05
        assert gap[second * 25 + 35 : second * 25 + 45].max() < 0.01


def test_the_same_audio_gives_the_same_controls():
    audio = Audio(vowels(2.0)[None], 16000)
    assert np.array_equal(mouth_controls(audio).values, mouth_controls(audio).values)


def test_pieces_make_the_whole_without_a_seam():
    audio = Audio(vowels(9.0)[None], 16000)
    whole = mouth_controls(audio)
    for chunk in (37, 150):
        pieces = mouth_controls(audio, chunk=chunk)
        np.testing.assert_allclose(pieces.values, whole.values, atol=2e-4)
        np.testing.assert_allclose(pieces.activity, whole.activity, atol=2e-4)


def _noise(colour: float) -> torch.Tensor:
    rng = np.random.default_rng(1)
    spectrum = np.fft.rfft(rng.standard_normal(64000))
    spectrum *= np.maximum(np.arange(len(spectrum)), 20.0) ** -colour
    sound = np.fft.irfft(spectrum)
    return torch.from_numpy(0.1 * sound / sound.std()).float()


def _chords() -> torch.Tensor:
    t = torch.arange(64000) / 16000
    root = 220 * 2 ** (torch.tensor([0, 5, 7, 3])[(t * 1.5).long() % 4] / 12)
    beat = torch.exp(-3 * (t * 1.5 % 1))
    return 0.1 * beat * sum(torch.sin(2 * np.pi * root * r * k * t) / k for r in (1, 1.25, 1.5) for k in range(1, 6))


@pytest.mark.parametrize(
    "sound",
    [
        torch.zeros(64000),
        1e-5 * _noise(0.0),
        torch.full((64000,), 0.3),
        0.3 * torch.sin(2 * np.pi * 440 * torch.arange(64000) / 16000),
        0.3 * torch.sin(2 * np.pi * 50 * torch.arange(64000) / 16000),
        _noise(0.0),
        _noise(0.5),
        _noise(1.0),
        _chords(),
    ],
    ids=["silence", "hiss", "offset", "tone", "hum", "white", "pink", "brown", "music"],
)
def test_what_is_no_speech_leaves_the_mouth_closed_and_still(sound: torch.Tensor):
    gap = opening(mouth_controls(Audio(sound[None], 16000)))
    assert gap.max() < 0.01
    assert np.abs(np.diff(gap)).max() < 0.005


def test_silence_after_speech_is_exactly_closed():
    sound = torch.cat([vowels(2.0), torch.zeros(32000)])
    gap = opening(mouth_controls(Audio(sound[None], 16000)))
    assert gap[:50].max() > 0.05
    assert gap[65:].max() == 0


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16000, 8), (22050, 2), (44100, 1), (48000, 2)])
def test_any_rate_and_number_of_channels(rate: int, channels: int):
    controls = mouth_controls(Audio(vowels(1.3, rate).repeat(channels, 1), rate))
    assert controls.values.shape == (len(controls.activity), len(CONTROLS))
    assert len(controls.values) >= 1.3 * controls.rate
    assert opening(controls).max() > 0.05


@pytest.mark.parametrize("fps", [1, 10, 24, 25, Fraction(30000, 1001), 50, 60, 120])
def test_frames_cover_the_audio_at_every_rate(fps):
    controls = mouth_controls(Audio(vowels(1.01)[None], 16000))
    assert len(controls.at(fps)) == np.ceil(Fraction(16160, 16000) * fps)


@pytest.mark.parametrize("fps", [10, 12.5, 24, 25, 30, 60])
def test_no_closure_falls_between_two_frames(fps: float):
    for place in range(20, 40):
        values = np.zeros((80, len(CONTROLS)), np.float32)
        values[:, CONTROLS.index("jaw")] = 0.5
        values[place : place + 2, CONTROLS.index("press")] = 1
        controls = MouthControls(values, np.ones(80, np.float32), 50, Fraction(8, 5))
        gap = mouth_opening(neutral_vertices() + controls.vertices_at(fps))
        assert gap.min() < 0.03
        assert (gap > 0.1).sum() >= len(gap) - 4


@pytest.mark.parametrize(
    ("audio", "words"),
    [
        (Audio(torch.zeros(1, 1), 16000), "1 samples"),
        (Audio(torch.full((1, 16000), float("nan")), 16000), "NaN"),
        (Audio(torch.zeros(1, 0), 16000), "empty"),
        (None, "no audio"),
    ],
)
def test_bad_audio_is_refused_in_one_sentence(audio, words: str):
    with pytest.raises(TalkingPortraitError, match=words) as caught:
        mouth_controls(audio)
    assert str(caught.value).endswith(".")


def test_progress_is_told_and_can_cancel():
    class CancelledError(Exception):
        pass

    seen = []

    def watch(done: int, total: int, preview: torch.Tensor | None = None) -> None:
        seen.append((done, total))
        if len(seen) == 2:
            raise CancelledError

    with pytest.raises(CancelledError):
        mouth_controls(Audio(vowels(5.0)[None], 16000), progress=watch, chunk=50)
    assert [done for done, _ in seen] == [50, 100]


def _score(clip: int) -> tuple[float, float]:
    """Correlation with the real speaker's lip opening, at lag 0 and the best within 120 ms."""
    import soundfile

    truth = np.load(SPEECH / f"clip{clip}.npz")
    sound, rate = soundfile.read(SPEECH / f"clip{clip}.flac", dtype="float32", always_2d=True)
    guess = opening(mouth_controls(Audio(torch.from_numpy(sound.T.copy()), rate)))
    real = mouth_opening(truth["landmarks"].astype(np.float32))
    seconds = min(len(real) / float(truth["fps"]), len(guess) / 25)
    times = np.arange(int(seconds * 25)) / 25
    real = np.interp(times, np.arange(len(real)) / float(truth["fps"]), real)
    guess = np.interp(times, np.arange(len(guess)) / 25, guess)
    lags = [np.corrcoef(real[10:-10], np.roll(guess, lag)[10:-10])[0, 1] for lag in range(-3, 4)]
    return lags[3], max(lags)


@pytest.mark.skipif(not SPEECH.is_dir(), reason="no recordings of real speech beside the repository")
def test_it_follows_real_speakers():
    scores = np.array([_score(clip) for clip in (1, 2, 3)])
    at_zero, best = scores.mean(axis=0)
    assert best >= 0.50
    assert at_zero >= 0.40
