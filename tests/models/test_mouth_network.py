"""The mouth network and its shipped weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from talking_portrait.models.speech import mouth_network
from talking_portrait.models.speech.mouth_network import (
    CONTROLS,
    HOP,
    QUIETEST_DB,
    SAMPLE_RATE,
    MouthConfig,
    MouthNetwork,
    load_mouth_network,
    mel_filters,
    mel_power,
    normalise,
    save_mouth_network,
    speech_level,
)

WEIGHTS = Path(mouth_network.__file__).with_name("mouth.safetensors")


def test_the_shipped_weights_are_small_and_have_metadata():
    assert WEIGHTS.stat().st_size <= 4_000_000
    with safe_open(WEIGHTS, framework="pt") as file:
        metadata = file.metadata()
    assert {"config", "data", "training", "licence"} <= metadata.keys()
    network = load_mouth_network(WEIGHTS)
    assert network.config.channels == json.loads(metadata["config"])["channels"]
    assert not network.training
    assert network.average.abs().max() > 1


@pytest.mark.parametrize("change", ["missing", "surplus", "reshaped"])
def test_weights_load_strictly(tmp_path: Path, change: str):
    weights = load_file(WEIGHTS)
    with safe_open(WEIGHTS, framework="pt") as file:
        metadata = file.metadata()
    if change == "missing":
        del weights["head.bias"]
    elif change == "surplus":
        weights["tail.bias"] = torch.zeros(1)
    else:
        weights["head.bias"] = torch.zeros(3)
    save_file(weights, tmp_path / "mouth.safetensors", metadata=metadata)
    with pytest.raises(RuntimeError, match="bias"):
        load_mouth_network(tmp_path / "mouth.safetensors")


def test_saved_weights_come_back_without_the_training_head(tmp_path: Path):
    network = MouthNetwork(MouthConfig(channels=8, dilations=(1, 2), phones=5)).eval()
    save_mouth_network(network, tmp_path / "small.safetensors", {"seed": "1"})
    again = load_mouth_network(tmp_path / "small.safetensors")
    assert again.config == MouthConfig(channels=8, dilations=(1, 2), phones=0)
    mel = torch.randn(1, 50, 40)
    torch.testing.assert_close(again(mel)[0], network(mel)[0], atol=0.02, rtol=0.02)
    assert again(mel)[1] is None


def test_no_frame_depends_on_more_than_the_stated_context():
    network = load_mouth_network(WEIGHTS)
    context = network.config.context
    mel = torch.randn(1, 4 * context + 2, 40)
    changed = mel.clone()
    changed[:, : context + 1] += 1
    here, there = network(mel)[0], network(changed)[0]
    assert not torch.allclose(here[:, : context // 2], there[:, : context // 2], atol=0.1)
    first_free = context + 1
    torch.testing.assert_close(here[:, first_free:], there[:, first_free:], atol=1e-5, rtol=1e-5)
    assert here.shape == (1, 2 * context + 1, len(CONTROLS) + 1)


def test_a_tone_lands_in_its_band_at_its_level():
    filters = mel_filters(40)
    tone = 0.5 * torch.sin(2 * torch.pi * 1000 * torch.arange(SAMPLE_RATE) / SAMPLE_RATE)
    power = mel_power(tone, filters)
    bins = torch.arange(filters.shape[1]) * SAMPLE_RATE / 512
    loudest = int(power.mean(0).argmax())
    assert abs(float((filters[loudest] * bins).sum()) - 1000) < 80
    assert power.shape[0] == (SAMPLE_RATE - 512) // HOP + 1


def test_gain_and_colour_of_a_recording_are_taken_out():
    generator = torch.Generator().manual_seed(0)
    power = torch.rand(2000, 40, generator=generator) ** 4 * 1e-3
    average = torch.full((40,), -10.0)
    plain = normalise(power, average)
    torch.testing.assert_close(normalise(power * 25, average), plain, atol=1e-4, rtol=1e-4)
    coloured = normalise(power * torch.logspace(-0.5, 0.5, 40), average)
    assert (coloured - plain).abs().mean() < 0.25 * (power.log10() * 10 / 15).std()


def test_silence_does_not_count_towards_the_speech_level():
    generator = torch.Generator().manual_seed(0)
    energy = -30 + 5 * torch.randn(2000, generator=generator)
    level = speech_level(energy)
    assert abs(float(level - torch.quantile(energy, 0.95))) < 1e-4
    surrounded = torch.cat([torch.full((90000,), -120.0), energy, torch.full((3000,), -80.0)])
    torch.testing.assert_close(speech_level(surrounded), level)
    assert float(speech_level(torch.full((100,), -140.0))) == QUIETEST_DB
