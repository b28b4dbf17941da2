"""wav2vec2 and HuBERT: found from names and shapes, loaded from every spelling, run in parts with the same numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from talking_portrait.models.errors import TalkingPortraitError
from talking_portrait.models.speech import loading
from talking_portrait.models.speech.encoder import SpeechEncoder, normalise_wave, resample_time
from talking_portrait.models.speech.loading import derive_config, load_speech_encoder, wrap_audio_encoder

from ..tiny_weights.weight_norm import old_names

SMALL = {"conv_dim": [16] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "vocab_size": 32}
BASE = SMALL | {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 96}
LARGE = SMALL | {
    "hidden_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 64,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
}
FORMS = {
    "wav2vec2-base": (BASE, False),
    "wav2vec2-large": (LARGE, False),
    "hubert-base": (BASE, True),
    "hubert-large": (LARGE, True),
}


def build(form: str) -> Any:
    """A small random network as transformers makes it, whole and in float32."""
    from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model

    config, hubert = FORMS[form]
    torch.manual_seed(7)
    model: Any = HubertModel(HubertConfig(**config)) if hubert else Wav2Vec2Model(Wav2Vec2Config(**config))
    with torch.no_grad():
        for parameter in model.parameters():  # layer norms begin as the identity, which would hide a forgotten one
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def wave(seconds: float, seed: int = 0) -> torch.Tensor:
    samples = round(seconds * 16000)
    time = torch.arange(samples) / 16000
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(seed))
    return 0.3 * torch.sin(2 * torch.pi * 220 * time) * (1 + torch.sin(2 * torch.pi * 3 * time)) + 0.05 * noise


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("storage", ["safetensors", "old spelling", "bin", "folder", "prefixed", "ctc head", "half"])
@torch.no_grad()
def test_every_spelling_loads_and_computes_what_transformers_computes(tmp_path: Path, form: str, storage: str) -> None:
    model = build(form)
    family = form.split("-")[0]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    if storage in ("old spelling", "bin", "prefixed"):
        state = old_names(state)
    path = tmp_path / f"{form}.safetensors"
    if storage == "bin":
        path = tmp_path / f"{form}.bin"
        torch.save(state, path)
    elif storage == "folder":
        path = tmp_path / "some model"
        path.mkdir()
        torch.save(state, path / "pytorch_model.bin")
        (path / "config.json").write_text(json.dumps(model.config.to_dict(), default=str))
        (path / "preprocessor_config.json").write_text('{"do_normalize": false}')
    else:
        if storage == "prefixed":
            state = {f"audio_encoder.{k}": v for k, v in state.items()} | {
                "in_fn.weight": torch.zeros(1),
                "out_fn.weight": torch.zeros(1),
            }
        elif storage == "ctc head":
            state = {f"{family}.{k}": v for k, v in state.items()} | {"lm_head.weight": torch.zeros(32, 4)}
        elif storage == "half":
            state = {k: v.half() for k, v in state.items()}
        save_file(state, path)

    encoder = load_speech_encoder(path)
    assert encoder.name.startswith(family)
    assert encoder.normalise is (storage != "folder")
    assert (encoder.layers, encoder.channels) == (FORMS[form][0]["num_hidden_layers"], FORMS[form][0]["hidden_size"])
    assert not any(p.requires_grad or p.is_meta or p.dtype != torch.float32 for p in encoder.model.parameters())

    sound = wave(0.25)
    states = encoder.transform(encoder.convolve(sound))
    reference = model(sound[None], output_hidden_states=True)
    tolerance = {"atol": 2e-2, "rtol": 2e-2} if storage == "half" else {"atol": 2e-5, "rtol": 1e-4}
    torch.testing.assert_close(states[-1:], reference.last_hidden_state, **tolerance)
    torch.testing.assert_close(states[:-1], torch.cat(reference.hidden_states[:-1]), **tolerance)


@pytest.mark.parametrize(("large", "hubert"), [(False, False), (True, False), (True, True)])
def test_published_sizes_are_determined_from_shapes(large: bool, hubert: bool) -> None:
    from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model

    config: dict[str, Any] = {}
    if large:
        config = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
        config |= {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
    with torch.device("meta"):
        model: Any = HubertModel(HubertConfig(**config)) if hubert else Wav2Vec2Model(Wav2Vec2Config(**config))
    derived = derive_config(model.state_dict())
    for name, value in derived.items():
        expected = getattr(model.config, name, value)
        assert value == (list(expected) if isinstance(expected, tuple) else expected), name


def test_a_config_beside_the_file_sets_what_shapes_do_not_determine(tmp_path: Path) -> None:
    model = build("wav2vec2-base")
    save_file({k: v.clone() for k, v in model.state_dict().items()}, tmp_path / "model.safetensors")
    assert load_speech_encoder(tmp_path).model.config.num_attention_heads == 2
    (tmp_path / "config.json").write_text('{"model_type": "wav2vec2", "num_attention_heads": 4}')
    assert load_speech_encoder(tmp_path).model.config.num_attention_heads == 4
    (tmp_path / "config.json").write_text('{"model_type": "bert", "num_attention_heads": 8}')
    assert load_speech_encoder(tmp_path).model.config.num_attention_heads == 2
    (tmp_path / "config.json").write_text("{broken")
    with pytest.raises(TalkingPortraitError, match="no readable JSON"):
        load_speech_encoder(tmp_path)


def test_an_incomplete_or_foreign_file_is_refused_in_words(tmp_path: Path) -> None:
    state = {k: v.clone() for k, v in build("wav2vec2-base").state_dict().items()}
    missing = {k: v for k, v in state.items() if "encoder.layers.1.attention.q_proj" not in k}
    save_file(missing, tmp_path / "a.safetensors")
    with pytest.raises(TalkingPortraitError, match=r"a wav2vec2 or HuBERT encoder that does not fit .*2 missing"):
        load_speech_encoder(tmp_path / "a.safetensors")
    save_file(state | {"surprise": torch.zeros(1)}, tmp_path / "b.safetensors")
    with pytest.raises(TalkingPortraitError, match=r"1 unknown \(surprise\)"):
        load_speech_encoder(tmp_path / "b.safetensors")
    save_file(
        {"encoder.conv_in.weight": torch.zeros(1), "decoder.conv_out.weight": torch.zeros(1)},
        tmp_path / "c.safetensors",
    )
    with pytest.raises(TalkingPortraitError, match="c.safetensors is an image VAE, but a wav2vec2 or HuBERT encoder"):
        load_speech_encoder(tmp_path / "c.safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TalkingPortraitError, match="holds neither model.safetensors nor pytorch_model.bin"):
        load_speech_encoder(tmp_path / "empty")


@pytest.mark.parametrize("form", ["wav2vec2-base", "hubert-large"])
@torch.no_grad()
def test_convolution_in_chunks_is_exact(form: str) -> None:
    encoder = SpeechEncoder(build(form), form)
    sound = wave(0.9)
    whole = encoder.model.feature_extractor(sound[None]).transpose(1, 2)
    assert whole.shape[1] == encoder.frames(len(sound))
    for chunk in (1, 7, 10_000):
        torch.testing.assert_close(encoder.convolve(sound, chunk_frames=chunk), whole, atol=2e-6, rtol=1e-4)


@torch.no_grad()
def test_every_chunk_and_layer_is_a_step_and_a_step_may_stop() -> None:
    encoder = SpeechEncoder(build("hubert-base"), "hubert-base")
    steps: list[int] = []
    features = encoder.convolve(wave(1), chunk_frames=10, step=lambda: steps.append(1))
    assert len(steps) >= 5
    steps.clear()
    encoder.transform(features, step=lambda: steps.append(1))
    assert len(steps) == encoder.layers

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encoder.transform(features, step=stop)
    assert not any(layer._forward_pre_hooks for layer in encoder.model.encoder.layers)


@torch.no_grad()
def test_the_last_state_alone_is_the_last_of_all() -> None:
    encoder = SpeechEncoder(build("wav2vec2-large"), "wav2vec2-large")
    features = encoder.convolve(wave(0.5))
    torch.testing.assert_close(
        encoder.transform(features, every_layer=False), encoder.transform(features)[-1:], atol=1e-4, rtol=1e-4
    )


def test_frames_and_too_short_a_wave() -> None:
    encoder = SpeechEncoder(build("wav2vec2-base"), "wav2vec2-base")
    assert [encoder.frames(n) for n in (0, 399, 400, 719, 720, 16000, 160000)] == [0, 0, 1, 1, 2, 49, 499]
    with pytest.raises(
        TalkingPortraitError, match="399 samples at 16000 Hz, but the speech encoder needs at least 400"
    ):
        encoder.convolve(torch.zeros(399))


def test_normalising_is_over_the_whole_sound_and_keeps_silence_silent() -> None:
    normal = normalise_wave(wave(1) + 0.3)
    assert abs(float(normal.mean())) < 1e-6
    assert float(normal.var(correction=0)) == pytest.approx(1, abs=1e-5)
    assert not normalise_wave(torch.zeros(1000)).any()


def test_resampling_in_time_keeps_both_ends() -> None:
    features = torch.arange(10.0).reshape(1, 5, 2)
    stretched = resample_time(features, 9)
    torch.testing.assert_close(stretched[0, ::2], features[0])
    torch.testing.assert_close(stretched[0, 1], (features[0, 0] + features[0, 1]) / 2)
    assert resample_time(features, 1).shape == (1, 1, 2)


class HostModel(torch.nn.Module):
    """ComfyUI's form of the network: plain tuples and tensors where transformers returns objects and pairs."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.feature_extractor, self.encoder = model.feature_extractor, Tuples(model.encoder)
        self.feature_projection = First(model.feature_projection)


class Tuples(torch.nn.Module):
    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.inner, self.layers = encoder, encoder.layers

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, tuple[()]]:
        return self.inner(hidden).last_hidden_state, ()


class First(torch.nn.Module):
    def __init__(self, projection: Any) -> None:
        super().__init__()
        self.inner, self.projection = projection, projection.projection

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.inner(features)[0]


@torch.no_grad()
def test_the_hosts_audio_encoder_gives_the_same_states() -> None:
    model = build("wav2vec2-base")
    own = SpeechEncoder(model, "wav2vec2-base")

    class AudioEncoder:
        def __init__(self) -> None:
            self.model = HostModel(model)

    wrapped = wrap_audio_encoder(AudioEncoder())
    assert wrapped.normalise
    features = own.convolve(wave(0.6))
    torch.testing.assert_close(wrapped.convolve(wave(0.6)), features, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(wrapped.transform(features), own.transform(features), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("value", [None, object(), torch.nn.Linear(1, 1)])
def test_another_audio_encoder_is_refused(value: object) -> None:
    class AudioEncoder:
        model = value

    with pytest.raises(TalkingPortraitError, match="a wav2vec2 or HuBERT encoder is expected"):
        wrap_audio_encoder(AudioEncoder())


def test_building_takes_no_memory_for_weights() -> None:
    real = {name for name, parameter in loading.build(BASE).named_parameters() if not parameter.is_meta}
    assert real <= {"masked_spec_embed"}
