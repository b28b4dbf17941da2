"""AniTalker's published files, recognised by what they hold and loaded strictly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from ..checkpoints import State, expect_kind, layer_count, read_checkpoint, sizes_of, strict_load
from .encoder import EncoderConfig
from .renderer import RendererConfig
from .stage1 import Stage1
from .stage2 import ConformerConfig, Stage2, Stage2Config

_LIA = "lia."
_UNUSED = (r"(?!enc\.(net_app|fc)\.|dec\.(convs|to_flows|to_rgbs)\.)", r"dec\.convs\.\d+\.noise\.")
"""Training heads and what nothing reads may have any name, but not one of the layers that the size is counted by."""


def load_stage1(path: str | Path) -> Stage1:
    """stage1.ckpt, in float32. Raises TalkingPortraitError for another file; so do all functions here."""
    state = expect_kind(read_checkpoint(path), ("anitalker_stage1",), "AniTalker's stage 1 (stage1.ckpt)", path)
    return build_stage1(state, path=path)


def build_stage1(state: Mapping[str, torch.Tensor], *, path: str | Path) -> Stage1:
    """Names may begin with `lia.` or not; where both are there, the plain one counts."""
    plain = {name.replace(_LIA, ""): tensor for name, tensor in state.items()}
    plain |= {name: tensor for name, tensor in state.items() if _LIA not in name}
    with sizes_of(state, path), torch.device("meta"):
        model = Stage1(_encoder_config(plain), _renderer_config(plain))
    strict_load(model, plain, path=path, unused=_UNUSED)
    return model.eval().requires_grad_(False)


def _encoder_config(state: State) -> EncoderConfig:
    style, motion = state["dec.direction.weight"].shape
    layers = layer_count(state, "enc.net_app.convs.")
    blocks = [state[f"enc.net_app.convs.{layer}.conv2.1.weight"] for layer in range(1, layers - 1)]
    return EncoderConfig((len(state["enc.net_app.convs.0.0.weight"]), *map(len, blocks)), style, motion)


def _renderer_config(state: State) -> RendererConfig:
    style, motion = state["dec.direction.weight"].shape
    flows = [state[f"dec.to_flows.{layer}.conv.weight"] for layer in range(layer_count(state, "dec.to_flows."))]
    return RendererConfig((state["dec.input.input"].shape[1], *(flow.shape[2] for flow in flows)), style, motion)


def load_stage2(path: str | Path) -> Stage2:
    """Any stage2_*.ckpt, in float32, recognised by its tensors. Only the averaged copy in it counts, as published."""
    state = expect_kind(read_checkpoint(path), ("anitalker_stage2",), "an AniTalker stage 2 (stage2_*.ckpt)", path)
    return build_stage2(state, path=path)


def build_stage2(state: Mapping[str, torch.Tensor], *, path: str | Path) -> Stage2:
    """The network of the averaged copy's names, without their prefix."""
    with sizes_of(state, path), torch.device("meta"):
        model = Stage2(derive_stage2_config(state))
    strict_load(model, state, path=path)
    return model.eval().requires_grad_(False)


def derive_stage2_config(state: Mapping[str, torch.Tensor]) -> Stage2Config:
    """The sizes and the variant, from names and shapes."""
    down = state["down_sample1.weight"]
    layers = len(state["weights"]) if "weights" in state else 0
    last = down if layers else state["down_sample2.weight"]
    recurrent = state.get("pose_predictor.lstm.weight_hh_l0", torch.empty(0, Stage2Config.hidden))
    return Stage2Config(
        features=down.shape[1],
        layers=layers,
        middle=0 if layers else len(down),
        audio_channels=len(last),
        speech=_conformer_config(state, "speech_encoder") if layers else None,
        decoder=_conformer_config(state, "coarse_decoder"),
        hidden=recurrent.shape[1],
        projection=len(state["encoder_direction_code.bias"]),
        style=state["init_code_proj.0.weight"].shape[1],
        motion=len(state["out_proj.bias"]),
        pose="pose_predictor.fc.bias" in state,
        placement="location_predictor.fc.bias" in state,
    )


def _conformer_config(state: Mapping[str, torch.Tensor], name: str) -> ConformerConfig:
    block = f"{name}.encoders.0."
    inner, width = state[block + "feed_forward.w_1.weight"].shape
    return ConformerConfig(
        width=width,
        inner=inner,
        heads=len(state[block + "self_attn.pos_bias_u"]),
        kernel=state[block + "conv_module.depthwise_conv.weight"].shape[-1],
        blocks=layer_count(state, f"{name}.encoders."),
    )
