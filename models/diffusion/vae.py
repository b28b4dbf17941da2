"""Stable Diffusion's image VAE from a file, as diffusers' AutoencoderKL.

Three spellings of the same network are about: diffusers' own of today, the one of its first releases (attention with
`query`, `key`, `value`, `proj_attn`), and that of the original programs, alone or inside a whole checkpoint
(`first_stage_model.`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..checkpoints import State, expect_kind, layer_count, read_checkpoint, rename_keys, sizes_of, strict_load
from ..errors import TalkingPortraitError

LATENT_CHANNELS = 4
_IN_CHECKPOINT = "first_stage_model."
_TRAINING = (r"loss\.", r"model_ema\.")
"""What training leaves in a file beside the VAE."""
_FIRST_DIFFUSERS = (
    (r"(attentions\.0\.)query\.", r"\1to_q."),
    (r"(attentions\.0\.)key\.", r"\1to_k."),
    (r"(attentions\.0\.)value\.", r"\1to_v."),
    (r"(attentions\.0\.)proj_attn\.", r"\1to_out.0."),
)
_ORIGINAL = (
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.norm\.", ".mid_block.attentions.0.group_norm."),
    (r"\.mid\.attn_1\.([qkv])\.", r".mid_block.attentions.0.to_\1."),
    (r"\.mid\.attn_1\.proj_out\.", ".mid_block.attentions.0.to_out.0."),
    (r"\.down\.(\d+)\.block\.(\d+)\.", r".down_blocks.\1.resnets.\2."),
    (r"\.down\.(\d+)\.downsample\.", r".down_blocks.\1.downsamplers.0."),
    (r"\.up\.(\d+)\.block\.(\d+)\.", r".up_blocks.\1.resnets.\2."),
    (r"\.up\.(\d+)\.upsample\.", r".up_blocks.\1.upsamplers.0."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"\.norm_out\.", ".conv_norm_out."),
)


def load_vae(path: str | Path) -> Any:
    """An AutoencoderKL in float32 on the CPU, for inference, from any of the spellings; sizes come from the tensors.

    Raises TalkingPortraitError for another kind of file, missing or surplus tensors, and latents of other than four
    channels, which belong to other systems than Stable Diffusion 1.x.
    """
    state = expect_kind(read_checkpoint(path), ("vae", "sd_checkpoint"), "an image VAE of Stable Diffusion 1.x", path)
    if any(name.startswith(_IN_CHECKPOINT) for name in state):
        state = {k.removeprefix(_IN_CHECKPOINT): v for k, v in state.items() if k.startswith(_IN_CHECKPOINT)}
    state = _in_diffusers_spelling(state)
    with sizes_of(state, path):
        channels = state["decoder.conv_in.weight"].shape[1]
    if channels != LATENT_CHANNELS:
        raise TalkingPortraitError(
            f"{Path(path).name} is a VAE with {channels} latent channels, but one with {LATENT_CHANNELS}, of Stable "
            "Diffusion 1.x, is expected here."
        )
    from diffusers import AutoencoderKL

    with sizes_of(state, path), torch.device("meta"):
        vae: Any = AutoencoderKL(**derive_vae_config(state))
    strict_load(vae, state, path=path, unused=_TRAINING)
    return vae.eval().requires_grad_(False)


def derive_vae_config(state: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Arguments of AutoencoderKL for tensors in its spelling. Norm groups (32) leave no trace in them."""
    levels = layer_count(state, "encoder.down_blocks.")
    return {
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": tuple(
            len(state[f"encoder.down_blocks.{level}.resnets.0.conv1.weight"]) for level in range(levels)
        ),
        "layers_per_block": layer_count(state, "encoder.down_blocks.0.resnets."),
        "latent_channels": state["decoder.conv_in.weight"].shape[1],
    }


def _in_diffusers_spelling(state: State) -> State:
    if "encoder.mid.block_1.conv1.weight" not in state:
        return rename_keys(state, _FIRST_DIFFUSERS)
    state = rename_keys(state, _ORIGINAL)
    # The original decoder counts its levels from the finest, diffusers from the first that is computed.
    levels = layer_count(state, "decoder.up_blocks.")
    turned = {}
    for name, tensor in state.items():
        name = re.sub(
            r"^decoder\.up_blocks\.(\d+)", lambda match: f"decoder.up_blocks.{levels - 1 - int(match[1])}", name
        )
        # Its attention is made of 1 x 1 convolutions.
        is_linear = ".attentions.0.to_" in name and tensor.ndim == 4
        turned[name] = tensor[:, :, 0, 0] if is_linear else tensor
    return turned
