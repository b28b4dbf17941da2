"""The mouth network's hidden states as speech features."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from talking_portrait.models.speech.acoustic_encoder import CHANNELS, AcousticEncoder
from talking_portrait.models.speech.earlier_encoder import EarlierEncoder
from talking_portrait.models.speech.mouth_network import (
    MouthConfig,
    MouthNetwork,
    load_mouth_network,
    save_mouth_network,
)
from talking_portrait.pipelines.audio import mouth_states
from talking_portrait.pipelines.audio.mouth_states import MouthEncoder, shipped_encoder
from talking_portrait.pipelines.files.example import example_speech
from talking_portrait.pipelines.types import Audio


def tiny(seed: int = 0, blocks: int = 0, earlier: int = 0) -> MouthEncoder:
    torch.manual_seed(seed)
    config = MouthConfig(mels=10, channels=8, dilations=(1, 2, 1), acoustic_blocks=earlier, transformer_blocks=blocks)
    return MouthEncoder(MouthNetwork(config).eval())


@pytest.mark.parametrize("blocks", [(0, 0), (1, 0), (0, 1)])
def test_an_encoder_is_named_by_its_weights(tmp_path: Path, blocks: tuple[int, int]):
    encoder = tiny(0, *blocks)
    again = MouthEncoder.of_weights(encoder.weights, encoder.config)
    assert again.name == encoder.name == tiny(0, *blocks).name
    assert encoder.name.startswith("mouth-")
    assert encoder.name != tiny(1, *blocks).name
    features = again.encode(example_speech(), 25)
    assert features.model == encoder.name
    save_mouth_network(again.network, tmp_path / "mouth.safetensors", {})
    loaded = MouthEncoder(load_mouth_network(tmp_path / "mouth.safetensors"))
    assert (loaded.name, loaded.config) == (encoder.name, encoder.config)
    torch.testing.assert_close(loaded.encode(example_speech(), 25).states, features.states)


@pytest.mark.parametrize("rate", [Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(60)])
def test_there_is_a_row_for_each_frame_at_any_rate(rate: Fraction):
    audio = Audio(example_speech().waveform[:, :16000], 16000)
    for blocks, shape in (((0, 0), (2, 8)), ((1, 0), (1, CHANNELS)), ((0, 1), (1, EarlierEncoder.channels))):
        features = tiny(0, *blocks).encode(audio, rate)
        assert features.states.shape == (rate.__ceil__(), *shape)
        assert features.fps == rate


def test_the_shipped_encoder_takes_long_sound_in_segments(monkeypatch: pytest.MonkeyPatch):
    """So that memory does not grow with the length but for the states themselves."""
    taken, done = [], []
    forward = AcousticEncoder.forward
    monkeypatch.setattr(
        AcousticEncoder, "forward", lambda self, bands: taken.append(bands.shape[1]) or forward(self, bands)
    )
    encoder = tiny(0, 1)
    states = encoder.encode(
        Audio(0.1 * torch.randn(1, 20 * 16000), 16000), 25, progress=lambda i, n, _=None: done.append(i / n)
    ).states
    assert len(states) == 500
    assert max(taken) <= 600, "more than 4 s, and 1 s to either side"
    assert len(taken) == len(done) > 4
    assert done[-1] == 1


@pytest.mark.parametrize("blocks", [0, 1])
def test_a_change_in_the_sound_shows_in_the_frames_of_its_time(blocks: int):
    """Frame i belongs to the time i / fps."""
    encoder, rate = tiny(0, blocks), Fraction(30)
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
