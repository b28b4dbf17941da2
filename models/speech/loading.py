"""Speech encoders from files: wav2vec2 or HuBERT, base or large, recognised by names and shapes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..checkpoints import expect_kind, layer_count, read_checkpoint, rename_keys, sizes_of, strict_load
from ..errors import TalkingPortraitError
from ..json_file import read_json
from .encoder import SpeechEncoder

WANTED = "a wav2vec2 or HuBERT encoder"
FOLDER_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
)
KERNELS, STRIDES = [10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2]

WEIGHT_NORM = (
    (r"(pos_conv_embed\.conv\.)weight_g$", r"\1parametrizations.weight.original0"),
    (r"(pos_conv_embed\.conv\.)weight_v$", r"\1parametrizations.weight.original1"),
)
"""The old spelling of the positional convolution's weight norm, as torch 2.0 and earlier saved it, to the new one."""
_HEADS = (
    r"lm_head\.",
    r"quantizer\.",
    r"project_(q|hid)\.",
    r"projector\.",
    r"classifier\.",
    r"final_proj\.",
    r"label_embs",
)
"""Training heads that files carry beside the encoder."""


def load_speech_encoder(path: str | Path) -> SpeechEncoder:
    """A speech encoder from a .safetensors or .bin file, or from a Hugging Face folder, in float32 on the CPU.

    Sizes come from the tensors; what shapes leave open (heads, strides, place of layer norm) from a config.json
    beside the file, or else by the rule that all published models follow. The wave is normalised unless a
    preprocessor_config.json sets otherwise. The encoder inside AniPortrait's audio2mesh or audio2pose loads as well.

    Raises TalkingPortraitError for a file that is something else or incomplete.
    """
    path = Path(path)
    folder, file = path.parent, path
    if os.path.isdir(path):
        folder = path
        file = next((path / name for name in FOLDER_FILES if (path / name).is_file()), path / FOLDER_FILES[0])
        if not file.is_file():
            raise TalkingPortraitError(
                f"The folder {path.name} holds neither {' nor '.join(FOLDER_FILES)}; put the whole model folder there."
            )
    state = read_checkpoint(file)
    expect_kind(state, ("speech_encoder", "audio2mesh", "audio2pose"), WANTED, file, unused=_HEADS)
    anchor = "feature_projection.projection.weight"
    prefix = next(name for name in state if name.endswith(anchor)).removesuffix(anchor)
    state = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    state = rename_keys(state, WEIGHT_NORM)

    given = _beside(folder, "config.json")
    given = given if given.get("model_type") in ("wav2vec2", "hubert") else {}
    # Both families have the same tensors and the same arithmetic; without any other sign the name decides.
    title = (folder.name if file.name in FOLDER_FILES else file.stem).lower()
    hubert = "hubert" in (*prefix.split("."), given.get("model_type")) or (not given and "hubert" in title)
    with sizes_of(state, file):
        model = build(derive_config(state) | _known(given), hubert=hubert)
    strict_load(model, state, path=file, unused=_HEADS)

    channels = model.config.hidden_size
    size = {768: "base", 1024: "large", 1280: "xlarge"}.get(channels, str(channels))
    normalise = bool(_beside(folder, "preprocessor_config.json").get("do_normalize", True))
    return SpeechEncoder(model, f"{'hubert' if hubert else 'wav2vec2'}-{size}", normalise)


def wrap_audio_encoder(audio_encoder: Any) -> SpeechEncoder:
    """ComfyUI's AUDIO_ENCODER as a speech encoder, its wave normalised as for the published base and large models.

    Raises TalkingPortraitError for one of another family, for instance Whisper.
    """
    model: Any = getattr(audio_encoder, "model", None)
    if not all(hasattr(model, part) for part in ("feature_extractor", "feature_projection", "encoder")):
        raise TalkingPortraitError(
            f"The audio encoder is a {type(model).__name__}, but {WANTED} is expected; load one of those."
        )
    channels = int(model.feature_projection.projection.weight.shape[0])
    return SpeechEncoder(model, f"wav2vec2-{'base' if channels == 768 else 'large' if channels == 1024 else channels}")


def derive_config(state: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The configuration of an encoder whose names carry no prefix, as arguments of transformers' configurations.

    Heads are 64 channels wide up to 1024 channels and sixteen beyond. A network that normalises every convolution has
    its layer norms before attention ("stable"), one that normalises only the first has them after.
    """
    hidden = len(state["encoder.layer_norm.weight"])
    layers = range(layer_count(state, "feature_extractor.conv_layers."))
    convolutions = [state[f"feature_extractor.conv_layers.{layer}.conv.weight"] for layer in layers]
    every_norm = "feature_extractor.conv_layers.1.layer_norm.weight" in state
    position = state.get("encoder.pos_conv_embed.conv.parametrizations.weight.original1")
    if position is None:
        position = state.get(
            "encoder.pos_conv_embed.conv.weight", torch.zeros(hidden, hidden // 16, 128, device="meta")
        )
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layer_count(state, "encoder.layers."),
        "num_attention_heads": 16 if hidden > 1024 else max(hidden // 64, 1),
        "intermediate_size": len(state["encoder.layers.0.feed_forward.intermediate_dense.weight"]),
        "conv_dim": [len(weight) for weight in convolutions],
        "conv_kernel": [int(weight.shape[-1]) for weight in convolutions],
        "conv_stride": STRIDES[: len(convolutions)],
        "conv_bias": "feature_extractor.conv_layers.0.conv.bias" in state,
        "feat_extract_norm": "layer" if every_norm else "group",
        "do_stable_layer_norm": every_norm,
        "num_conv_pos_embeddings": int(position.shape[-1]),
        "num_conv_pos_embedding_groups": hidden // int(position.shape[1]),
        "mask_time_prob": 0.05 if "masked_spec_embed" in state else 0.0,
        "feat_proj_layer_norm": "feature_projection.layer_norm.weight" in state,
        "conv_pos_batch_norm": "encoder.pos_conv_embed.batch_norm.weight" in state,
    }


_TAKEN_FROM_CONFIG = (
    "num_attention_heads", "conv_stride", "do_stable_layer_norm",
    "layer_norm_eps", "hidden_act", "feat_extract_activation",
)  # fmt: skip


def _known(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: config[name] for name in _TAKEN_FROM_CONFIG if name in config}


def build(config: Mapping[str, Any], *, hubert: bool = False) -> Any:
    """An empty encoder (on the meta device) of transformers, ready for `strict_load`, in evaluation mode."""
    from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model

    with torch.device("meta"):
        model: Any = HubertModel(HubertConfig(**config)) if hubert else Wav2Vec2Model(Wav2Vec2Config(**config))
    return model.eval().requires_grad_(False)


def _beside(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    return read_json(path) if path.is_file() else {}
