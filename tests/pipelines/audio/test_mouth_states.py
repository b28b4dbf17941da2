"""The mouth network's hidden states as speech features."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from talking_portrait.models.speech.mouth_network import MouthConfig, MouthNetwork
from talking_portrait.pipelines.audio import mouth_states
from talking_portrait.pipelines.audio.mouth_states import MouthEncoder, shipped_encoder
from talking_portrait.pipelines.files.example import example_speech
from talking_portrait.pipelines.types import Audio


def tiny(seed: int = 0) -> MouthEncoder:
    torch.manual_seed(seed)
    return MouthEncoder(MouthNetwork(MouthConfig(mels=10, channels=8, dilations=(1, 2, 1))).eval())


def test_an_encoder_is_named_by_its_weights():
    encoder = tiny()
    again = MouthEncoder.of_weights(encoder.weights, encoder.config)
    assert again.name == encoder.name == tiny().name
    assert encoder.name.startswith("mouth-")
    assert encoder.name != tiny(1).name
    assert again.encode(example_speech(), 25).model == encoder.name


@pytest.mark.parametrize("rate", [Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(60)])
def test_there_is_a_row_for_each_frame_at_any_rate(rate: Fraction):
    audio = Audio(example_speech().waveform[:, :16000], 16000)
    features = tiny().encode(audio, rate)
    assert features.states.shape == (rate.__ceil__(), 2, 8)
    assert features.fps == rate


def test_a_change_in_the_sound_shows_in_the_frames_of_its_time():
    """Frame i belongs to the time i / fps."""
    encoder, rate = tiny(), Fraction(30)
    quiet = 0.01 * torch.randn(1, 6 * 16000, generator=torch.Generator().manual_seed(0))
    clicked = quiet.clone()
    clicked[:, 3 * 16000 - 40 : 3 * 16000 + 40] += 0.05
    change = encoder.encode(Audio(clicked, 16000), rate).states - encoder.encode(Audio(quiet, 16000), rate).states
    size = change.flatten(1).norm(dim=1)
    weight = size * (size > 0.2 * size.max())
    assert float((weight * torch.arange(len(size))).sum() / weight.sum()) == pytest.approx(90, abs=1)


def test_neither_gain_nor_the_length_of_pieces_changes_features(monkeypatch: pytest.MonkeyPatch):
    audio, encoder = example_speech(), shipped_encoder()
    states = encoder.encode(audio, 25).states
    assert 0.5 < float(states.square().mean().sqrt()) < 2
    louder = encoder.encode(replace(audio, waveform=audio.waveform * 3), 25).states
    torch.testing.assert_close(louder, states, rtol=0, atol=0.02)
    monkeypatch.setattr(mouth_states, "CHUNK", 40)
    monkeypatch.setattr(mouth_states, "_MEL_CHUNK", 70)
    torch.testing.assert_close(encoder.encode(audio, 25).states, states, rtol=0, atol=1e-3)
