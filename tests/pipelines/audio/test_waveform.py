"""What is accepted as sound, and the errors for everything else."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from talking_portrait.pipelines.audio.waveform import MonoMixer, Resampler, check_audio, mono, resample
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.files.example import example_speech
from talking_portrait.pipelines.types import Audio


def clip(*shape: int, rate: int = 16000, dtype: torch.dtype = torch.float32) -> dict:
    return {"waveform": torch.zeros(*shape, dtype=dtype), "sample_rate": rate}


@pytest.mark.parametrize("shape", [(8000,), (1, 8000), (2, 8000), (1, 1, 8000), (1, 8, 8000)])
def test_every_common_layout_is_accepted(shape):
    audio = check_audio(clip(*shape))
    assert audio.waveform.shape == (shape[-2] if len(shape) > 1 else 1, 8000)
    assert mono(audio).shape == (8000,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int16, torch.int32, torch.uint8])
def test_every_sample_type_becomes_float(dtype):
    half = {torch.int16: 2**14, torch.int32: 2**30, torch.uint8: 192}.get(dtype, 0.5)
    audio = check_audio({"waveform": torch.full((1, 4000), half, dtype=dtype), "sample_rate": 8000})
    assert audio.waveform.dtype == torch.float32
    assert torch.allclose(audio.waveform, torch.tensor(0.5), atol=1e-3)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (None, "no audio"),
        ("speech.wav", "mapping with waveform"),
        (torch.zeros(8000), "is a Tensor, but a mapping with waveform"),
        ({"waveform": torch.zeros(1, 1, 800)}, "mapping with waveform"),
        (clip(1, 1, 0), "empty"),
        (clip(1, 0, 100), "empty"),
        (clip(1, 1, 1), "1 samples"),
        (clip(3, 1, 8000), "batch of 3"),
        (clip(1, 1, 8000, rate=0), "sample rate is 0"),
        ({"waveform": torch.zeros(1, 8000), "sample_rate": float("nan")}, "sample rate is nan"),
        ({"waveform": torch.full((1, 8000), float("nan")), "sample_rate": 16000}, "NaN"),
        ({"waveform": torch.zeros(1, 1).expand(1, 3 * 3600 * 8000), "sample_rate": 8000}, "longer than 60 minutes"),
    ],
)
def test_bad_sound_is_refused_in_one_sentence(bad, words, recwarn):
    with pytest.raises(TalkingPortraitError, match=words) as caught:
        check_audio(bad)
    assert "\n" not in str(caught.value)
    assert not recwarn.list


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_resampling_keeps_a_tone(rate):
    time = np.arange(rate) / rate
    tone = torch.from_numpy(np.sin(2 * np.pi * 440 * time)).float()[None]
    resampled = resample(Audio(tone, rate), 16000)
    assert resampled.sample_rate == 16000
    assert resampled.samples == 16000
    expected = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert np.abs(resampled.waveform[0].numpy() - expected)[200:-200].max() < 0.01


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"waveform": torch.zeros(1, 1, 8000)}, r"has \['waveform'\], but a mapping"),
        ({"waveform": "text", "sample_rate": 8000}, "but a mapping with waveform"),
        ({"waveform": torch.ones(1, 1, 8000, dtype=torch.bool), "sample_rate": 8000}, "torch.bool, but real numbers"),
        ({"waveform": torch.ones(1, 8000, dtype=torch.complex64), "sample_rate": 8000}, "complex64, but real numbers"),
        (5, "is a int, but a mapping"),
        ({"waveform": torch.full((1, 8000), 32767.0), "sample_rate": 8000}, "reach 32767, but numbers from -1 to 1"),
        ({"waveform": torch.full((1, 8000), -1e30), "sample_rate": 8000}, r"reach 1e\+30"),
        ({"waveform": torch.full((1, 8000), math.inf), "sample_rate": 8000}, "NaN or infinite"),
        ([torch.zeros(1, 1, 8000)], "is a list, but a mapping"),
    ],
)
def test_what_is_no_sound_is_reported(value, words):
    with pytest.raises(TalkingPortraitError, match=words):
        check_audio(value)


@given(
    given_rate=st.sampled_from([4000, 8000, 16000, 22050, 32000, 44100, 48000, 96000]),
    pieces=st.lists(st.integers(0, 3000), min_size=1, max_size=6),
)
def test_sound_resampled_in_pieces_is_that_of_the_whole(given_rate, pieces):
    wave = np.random.default_rng(0).normal(size=sum(pieces)).astype(np.float32)
    resampler = Resampler(given_rate, 16000)
    found, start = [], 0
    for piece in pieces:
        found.append(resampler.push(wave[start : start + piece]))
        start += piece
    found.append(resampler.finish())
    whole = resample(Audio(torch.from_numpy(wave)[None], given_rate), 16000).waveform[0].numpy() if len(wave) else wave
    np.testing.assert_allclose(np.concatenate(found), whole, atol=2e-6)


RATE = 16000


@pytest.fixture(scope="module")
def voice() -> torch.Tensor:
    return resample(example_speech(), RATE).waveform[0, : 5 * RATE]


def hiss(voice: torch.Tensor, seed: int, level: float = 1.0) -> torch.Tensor:
    noise = torch.randn(len(voice), generator=torch.Generator().manual_seed(seed))
    return noise * level * voice.square().mean().sqrt()


def turned_over(wave: torch.Tensor, start: float, end: float) -> torch.Tensor:
    """`wave` with inverted polarity between two parts of its length."""
    wave = wave.clone()
    wave[round(start * len(wave)) : round(end * len(wave))] *= -1
    return wave


INVERTED = {
    "all": lambda v: [v, -v],
    "first channel": lambda v: [-v, v, v],
    "half as loud": lambda v: [v, -0.5 * v],
    "offset": lambda v: [v + 0.3, -v + 0.3],
    "a sample late": lambda v: [v, -v.roll(1)],
    "noisy": lambda v: [v + hiss(v, 0, 0.3), -v + hiss(v, 1, 0.3)],
    "first half": lambda v: [v, turned_over(v, 0, 0.5)],
    "second half": lambda v: [v, turned_over(v, 0.5, 1)],
    "middle": lambda v: [turned_over(v, 0.3, 0.7), v],
    "front of six": lambda v: [v, -v, 0 * v, hiss(v, 0, 0.01), 0 * v, 0 * v],
    "two of four": lambda v: [v, v, -v, -v],
    "none, but a wide room": lambda v: [v + hiss(v, 0, 0.7), v - hiss(v, 0, 0.7)],
}


CHANGES = {"first half": 1, "second half": 1, "middle": 2}
"""How often the polarity changes while the voice goes on: as many half seconds may suffer."""


@pytest.mark.parametrize(("name", "changes"), [(name, CHANGES.get(name, 0)) for name in INVERTED])
def test_inverted_channels_do_not_cancel_the_voice(voice, name, changes):
    channels = torch.stack(INVERTED[name](voice))
    mix = mono(Audio(channels, RATE))
    # Each half second with speech is there: the voice, of whatever polarity and level.
    poor = 0
    for piece, spoken in zip(mix.split(RATE // 2), voice.split(RATE // 2), strict=True):
        if spoken.square().mean() > 0.25 * voice.square().mean():
            level = float(piece.norm() / spoken.norm())
            alike = torch.corrcoef(torch.stack([piece, spoken]))[0, 1].abs().nan_to_num()
            poor += level < 0.9 / len(channels) or bool(alike < 0.85)
    assert poor <= changes
    # Where the polarity changes there is no click.
    assert mix.diff().abs().max() < 1.2 * channels.diff(dim=1).abs().max()


ORDINARY = {
    "twice the same": lambda v: [v, v],
    "panned": lambda v: [v, 0.2 * v],
    "one silent": lambda v: [0 * v, v],
    "one noise": lambda v: [v, hiss(v, 0)],
    "widened": lambda v: [v + 0.5 * v.roll(300), v - 0.5 * v.roll(300)],
    "two microphones": lambda v: [v, 0.8 * v.roll(7)],
    "far microphones": lambda v: [v, 0.8 * v.roll(70)],
    "echo": lambda v: [v, v.roll(800)],
    "slightly out of phase": lambda v: [v, -0.2 * v],
    "six with a centre": lambda v: [hiss(v, 0, 0.2), hiss(v, 1, 0.2), v, 0 * v, hiss(v, 2, 0.2), -hiss(v, 2, 0.2)],
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_channels_are_averaged(voice, name):
    channels = torch.stack(ORDINARY[name](voice))
    torch.testing.assert_close(mono(Audio(channels, RATE)), channels.mean(dim=0), atol=1e-6, rtol=1e-5)


@given(name=st.sampled_from([*INVERTED, *ORDINARY]), pieces=st.lists(st.integers(0, 30000), max_size=6))
def test_channels_mixed_in_pieces_are_those_of_the_whole(name, pieces):
    voice = resample(example_speech(), RATE).waveform[0, : 2 * RATE]
    channels = torch.stack({**INVERTED, **ORDINARY}[name](voice))
    mixer = MonoMixer(RATE)
    found = [mixer.push(piece) for piece in channels.tensor_split(np.cumsum(pieces).tolist(), dim=1)]
    torch.testing.assert_close(torch.cat([*found, mixer.finish()]), mono(Audio(channels, RATE)), atol=1e-6, rtol=1e-5)
