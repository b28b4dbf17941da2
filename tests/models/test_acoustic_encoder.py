"""The mouth network's acoustic encoder: the published recogniser's bands, its states, and what they add."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from talking_portrait.models.speech.acoustic_encoder import (
    BANDS,
    CHANNELS,
    AcousticEncoder,
    acoustic_filters,
    acoustic_input,
)
from talking_portrait.models.speech.mouth_network import (
    ACOUSTIC_CONTROLS,
    CONTROLS,
    MouthConfig,
    MouthNetwork,
    add_acoustic_logits,
    build_mouth_network,
    load_mouth_network,
    mel_power,
    save_mouth_network,
    without_acoustic_encoder,
)


@pytest.fixture
def network() -> MouthNetwork:
    torch.manual_seed(0)
    network = MouthNetwork(MouthConfig(channels=16, dilations=(1, 2), acoustic_blocks=1)).eval()
    torch.nn.init.normal_(network.acoustic_head.out.weight, std=0.1)
    return network


def test_the_bands_are_the_published_ones():
    filters = acoustic_filters()
    assert filters.shape == (BANDS, 201)
    # Where corners fall into one bin, a band is that bin or the next alone. Published bins and heights:
    assert [one.nonzero().flatten().tolist() for one in filters[[0, 1, 2, 10, 11]]] == [[2], [2], [3], [11], [11]]
    assert filters[0].max() == pytest.approx(0.02767681, rel=1e-5)
    assert filters[79].max() == pytest.approx(0.00366446, rel=1e-5)
    assert filters[79].nonzero().flatten()[[0, -1]].tolist() == [177, 189]


def test_a_recordings_level_makes_no_difference_to_the_encoder():
    power = mel_power(0.1 * torch.randn(4000, generator=torch.Generator().manual_seed(0)), acoustic_filters())
    torch.testing.assert_close(acoustic_input(power, -30.0), acoustic_input(power / 100, -50.0), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("frames", [1, 2, 31, 40])
def test_states_come_at_half_the_rate(frames: int):
    torch.manual_seed(0)
    states = AcousticEncoder(2).eval()(torch.randn(2, frames, BANDS))
    assert states.shape == (2, (frames + 1) // 2, CHANNELS)
    assert torch.isfinite(states).all()


def test_the_encoder_changes_the_mouths_shape_and_nothing_else(network: MouthNetwork):
    mel, bands = torch.randn(1, 60, 40), torch.randn(1, 60, BANDS)
    with torch.no_grad():
        alone, _ = network(mel)
        both = add_acoustic_logits(alone, network.acoustic_head(network.acoustic_encoder(bands)))
    changed = (both - alone).abs().amax(dim=(0, 1)) > 1e-4
    assert changed.tolist() == [index < ACOUSTIC_CONTROLS for index in range(len(CONTROLS) + 1)]


def test_a_network_comes_back_with_its_encoder_and_goes_on_without_it(network: MouthNetwork, tmp_path: Path):
    save_mouth_network(network, tmp_path / "encoder.safetensors", {})
    again = load_mouth_network(tmp_path / "encoder.safetensors")
    assert again.config == network.config
    bands, mel = torch.randn(1, 60, BANDS), torch.randn(1, 60, 40)
    with torch.no_grad():
        torch.testing.assert_close(again.acoustic_encoder(bands), network.acoustic_encoder(bands), atol=0.02, rtol=0.02)
        bare = without_acoustic_encoder(network)
        assert bare.acoustic_encoder is None
        assert bare.config.acoustic_blocks == 0
        torch.testing.assert_close(bare(mel)[0], network(mel)[0])
    assert without_acoustic_encoder(bare) is bare


@pytest.mark.parametrize("blocks", [-1, 10**9, 1.5, True])
def test_an_encoder_of_no_possible_size_is_refused(network: MouthNetwork, blocks: object):
    config = {"channels": 16, "dilations": (1, 2), "acoustic_blocks": blocks}
    with pytest.raises(ValueError, match="its acoustic encoder is none"):
        build_mouth_network(network.state_dict(), config)
