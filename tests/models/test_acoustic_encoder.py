"""The mouth network's acoustic encoder: the published recogniser's bands, its states, and what they add."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from talking_portrait.models.face import face_mesh
from talking_portrait.models.speech import acoustic_encoder, mouth_network, voice_detector
from talking_portrait.models.speech.acoustic_encoder import (
    BANDS,
    CHANNELS,
    HEADS,
    LEVEL_DB,
    AcousticEncoder,
    acoustic_filters,
    acoustic_input,
    restored_weights,
    shipped_weights,
    stored_weights,
)
from talking_portrait.models.speech.earlier_encoder import EarlierEncoder
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
from talking_portrait.models.weight_files import save_tensors
from talking_portrait.pipelines.audio.mouth_weights import open_mouth
from talking_portrait.pipelines.errors import TalkingPortraitError
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

DRIVER = Path(mouth_network.__file__).with_name("mouth.safetensors")
"""A file as one of one's own is: the pack's encoder is not in it."""


@pytest.fixture
def network() -> MouthNetwork:
    torch.manual_seed(0)
    network = MouthNetwork(MouthConfig(channels=16, dilations=(1, 2), transformer_blocks=1)).eval()
    torch.nn.init.normal_(network.acoustic_head.out.weight, std=0.1)
    return network


@pytest.fixture(scope="module")
def published() -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=BANDS)


def test_the_bands_are_the_published_ones(published: WhisperFeatureExtractor):
    torch.testing.assert_close(acoustic_filters(), torch.from_numpy(published.mel_filters.T).float(), atol=1e-6, rtol=0)


def test_speech_at_the_recognisers_level_is_taken_as_published(published: WhisperFeatureExtractor):
    sound = 0.05 * torch.randn(16000, generator=torch.Generator().manual_seed(0))
    theirs = torch.from_numpy(published(sound.numpy(), sampling_rate=16000, padding=False).input_features[0]).T
    own = acoustic_input(mel_power(torch.nn.functional.pad(sound, (200, 200)), acoustic_filters()), LEVEL_DB)
    # The first and the last frame differ: beyond the ends is silence here, a mirror image there.
    torch.testing.assert_close(own[3:-4], theirs[3:-3], atol=0.01, rtol=0)


def test_states_are_those_of_the_published_architecture():
    torch.manual_seed(0)
    sizes = {"encoder_layers": 3, "decoder_layers": 1, "d_model": CHANNELS, "encoder_attention_heads": HEADS}
    theirs = WhisperModel(
        WhisperConfig(**sizes, encoder_ffn_dim=4 * CHANNELS, max_source_positions=30, vocab_size=9, pad_token_id=0)
    ).encoder.eval()
    own, weights = AcousticEncoder(2).eval(), theirs.state_dict()
    for name, parameter in own.named_parameters():
        parameter.data.copy_(_published(weights, name))
    bands = torch.randn(1, 60, BANDS)
    with torch.no_grad():
        expected = theirs(bands.transpose(1, 2), output_hidden_states=True).hidden_states[2]
        torch.testing.assert_close(
            own(bands), torch.nn.functional.layer_norm(expected, (CHANNELS,)), atol=1e-4, rtol=1e-4
        )


def _published(weights: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """A parameter of ours in transformers' names; keys have no bias there."""
    kinds = {"stem": "conv1", "halve": "conv2", "attention_norm": "self_attn_layer_norm", "norm": "final_layer_norm"}
    kinds |= {"mix": "self_attn.out_proj", "wider": "fc1", "narrower": "fc2"}
    *block, layer, end = name.split(".")
    theirs = "".join(f"layers.{block[1]}." if block else "")
    if layer != "queries_keys_values":
        return weights[f"{theirs}{kinds[layer]}.{end}"]
    parts = [weights.get(f"{theirs}self_attn.{part}_proj.{end}") for part in "qkv"]
    return torch.cat([torch.zeros(CHANNELS) if part is None else part for part in parts])


def test_the_bands_of_earlier_files_are_those_that_their_recogniser_had():
    filters = EarlierEncoder.filters()
    assert filters.shape == (80, 201)
    # Where corners fall into one bin, a band is that bin or the next alone. Published bins and heights:
    assert [one.nonzero().flatten().tolist() for one in filters[[0, 1, 2, 10, 11]]] == [[2], [2], [3], [11], [11]]
    assert filters[0].max() == pytest.approx(0.02767681, rel=1e-5)
    assert filters[79].max() == pytest.approx(0.00366446, rel=1e-5)
    assert filters[79].nonzero().flatten()[[0, -1]].tolist() == [177, 189]


@pytest.mark.parametrize("kind", [AcousticEncoder, EarlierEncoder])
def test_a_recordings_level_makes_no_difference_to_the_encoder(kind: type[AcousticEncoder | EarlierEncoder]):
    power = mel_power(0.1 * torch.randn(4000, generator=torch.Generator().manual_seed(0)), kind.filters())
    torch.testing.assert_close(kind.input(power, -30.0), kind.input(power / 100, -50.0), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", [AcousticEncoder, EarlierEncoder])
@pytest.mark.parametrize("frames", [1, 2, 31, 40])
def test_states_come_at_half_the_rate(kind: type[AcousticEncoder | EarlierEncoder], frames: int):
    torch.manual_seed(0)
    states = kind(2).eval()(torch.randn(2, frames, BANDS))
    assert states.shape == (2, (frames + 1) // 2, kind.channels)
    assert torch.isfinite(states).all()


def test_the_encoder_changes_the_mouths_shape_and_nothing_else(network: MouthNetwork):
    mel, bands = torch.randn(1, 60, 40), torch.randn(1, 60, BANDS)
    with torch.no_grad():
        alone, _ = network(mel)
        both = add_acoustic_logits(alone, network.acoustic_logits(network.acoustic_encoder(bands)))
    changed = (both - alone).abs().amax(dim=(0, 1)) > 1e-4
    assert changed.tolist() == [index < ACOUSTIC_CONTROLS for index in range(len(CONTROLS) + 1)]


def test_a_closure_head_adds_to_lip_press_and_comes_back(network: MouthNetwork, tmp_path: Path):
    torch.manual_seed(0)
    closing = MouthNetwork(replace(network.config, closure_head=True)).eval()
    closing.load_state_dict(network.state_dict(), strict=False)
    torch.nn.init.normal_(closing.closure_head.out.weight, std=0.1)
    save_mouth_network(closing, tmp_path / "closing.safetensors", {})
    again = load_mouth_network(tmp_path / "closing.safetensors")
    assert again.config.closure_head
    with torch.no_grad():
        states = network.acoustic_encoder(torch.randn(1, 60, BANDS))
        added = [each.acoustic_logits(states) for each in (network, closing, again)]
    changed = (added[1] - added[0]).abs().amax(dim=(0, 1)) > 1e-3
    assert [name for name, moved in zip(CONTROLS, changed.tolist(), strict=False) if moved] == ["press"]
    torch.testing.assert_close(added[2], added[1], atol=0.02, rtol=0.02)  # eight and sixteen bits
    assert not without_acoustic_encoder(closing).config.closure_head


@pytest.mark.parametrize("config", [{"closure_head": True}, {"transformer_blocks": 1, "closure_head": 1}])
def test_a_closure_head_without_an_encoder_is_refused(config: dict[str, Any]):
    given = asdict(MouthConfig(channels=16, dilations=(1, 2))) | config
    with pytest.raises(ValueError, match="closure head is none of a mouth network"):
        build_mouth_network({"stem.weight": torch.zeros(1), "stem.bias": torch.zeros(1)}, given)


def test_a_network_comes_back_with_its_encoder_and_goes_on_without_it(network: MouthNetwork, tmp_path: Path):
    save_mouth_network(network, tmp_path / "encoder.safetensors", {})
    again = load_mouth_network(tmp_path / "encoder.safetensors")
    assert again.config == network.config
    bands, mel = torch.randn(1, 60, BANDS), torch.randn(1, 60, 40)
    with torch.no_grad():
        torch.testing.assert_close(again.acoustic_encoder(bands), network.acoustic_encoder(bands), atol=0.02, rtol=0.02)
        bare = without_acoustic_encoder(network)
        assert bare.acoustic_encoder is None
        assert bare.config.transformer_blocks == 0
        torch.testing.assert_close(bare(mel)[0], network(mel)[0])
    assert without_acoustic_encoder(bare) is bare


def test_the_packs_own_encoder_is_left_out_of_a_file_unless_it_is_to_be_whole(tmp_path: Path):
    network = MouthNetwork(MouthConfig(channels=16, dilations=(1, 2), transformer_blocks=2))
    network.acoustic_encoder.load_state_dict(restored_weights(shipped_weights()))
    part, whole = tmp_path / "part.safetensors", tmp_path / "whole.safetensors"
    save_mouth_network(network, part, {})
    save_mouth_network(network, whole, {}, whole=True)
    assert part.stat().st_size < 300_000 < 4_000_000 < whole.stat().st_size
    for again in map(load_mouth_network, (part, whole)):
        for name, value in network.acoustic_encoder.state_dict().items():
            torch.testing.assert_close(again.acoustic_encoder.state_dict()[name], value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "is missing"),
        (b"", "is damaged or of another version"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (voice_detector.SHIPPED.read_bytes(), "is damaged or of another version"),
    ],
)
def test_a_fault_of_the_packs_own_encoder_is_none_of_the_file_that_needs_it(
    content: bytes | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shipped = tmp_path / "acoustic_encoder.safetensors"
    if content is not None:
        shipped.write_bytes(content)
    monkeypatch.setattr(acoustic_encoder, "SHIPPED", shipped)
    monkeypatch.setattr(mouth_network, "shipped_weights", shipped_weights.__wrapped__)
    with pytest.raises(
        TalkingPortraitError, match=rf"acoustic_encoder\.safetensors.* {reason}.*install the pack again"
    ):
        open_mouth(DRIVER)


@pytest.mark.parametrize("module", [voice_detector, face_mesh])
def test_a_part_of_the_pack_that_is_missing_is_named(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "SHIPPED", tmp_path / "absent.safetensors")
    read = module.load_voice_detector if module is voice_detector else module.face_mesh.__wrapped__
    with pytest.raises(TalkingPortraitError, match=r"absent\.safetensors.* is missing; install the pack again"):
        read()


def test_eight_bits_and_their_scales_belong_together(network: MouthNetwork):
    weights = stored_weights(network.acoustic_encoder)
    for changed in (
        {name: value for name, value in weights.items() if name != "stem.weight_scale"},
        weights | {"stem.bias_scale": torch.ones(CHANNELS, 1)},
        weights | {"stem.weight_scale": torch.ones(1, 1, 1)},
        weights | {"other_scale": torch.ones(1)},
    ):
        with pytest.raises(ValueError, match="scale"):
            restored_weights(changed)


def test_a_file_for_another_acoustic_encoder_is_refused(tmp_path: Path):
    path = tmp_path / "other.safetensors"
    config = json.dumps({"channels": 16, "dilations": [1, 2], "transformer_blocks": 2})
    save_tensors({"average": torch.zeros(40)}, path, {"config": config, "acoustic_encoder": "01234567"})
    with pytest.raises(
        TalkingPortraitError, match=r"other\.safetensors .* acoustic encoder of another version.*train it again"
    ):
        open_mouth(path)


@pytest.mark.parametrize("kind", ["acoustic_blocks", "transformer_blocks"])
@pytest.mark.parametrize("blocks", [-1, 10**9, 1.5, True])
def test_an_encoder_of_no_possible_size_is_refused(network: MouthNetwork, kind: str, blocks: object):
    config = {"channels": 16, "dilations": (1, 2), kind: blocks}
    with pytest.raises(ValueError, match="its acoustic encoder is none"):
        build_mouth_network(network.state_dict(), config)
