"""UNets from state dicts: sizes read off the tensors, then a strict load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from ..checkpoints import strict_load
from .motion_module import sinusoidal_table
from .unet import UNet, UNetConfig

POSITIONS = 32
"""Longest window of the published motion modules, for a file that leaves the tables of positions out."""
_TABLE = ".pos_encoder.pe"


def derive_unet_config(state: Mapping[str, torch.Tensor]) -> UNetConfig:
    """The sizes of a UNet, from its names and shapes.

    Heads (8) and norm groups (32) leave no trace there; they are the same in all published ones.
    """
    levels, layers = 0, 0
    while f"down_blocks.{levels}.resnets.0.conv1.weight" in state:
        levels += 1
    while f"down_blocks.0.resnets.{layers}.conv1.weight" in state:
        layers += 1
    tables = [tensor for name, tensor in state.items() if name.endswith(_TABLE)]
    has_motion = any(".motion_modules." in name for name in state)

    def width(ending: str) -> int:
        return next((tensor.shape[1] for name, tensor in state.items() if name.endswith(ending)), 0)

    return UNetConfig(
        channels=tuple(len(state[f"down_blocks.{i}.resnets.0.conv1.weight"]) for i in range(levels)),
        attention=tuple(f"down_blocks.{i}.attentions.0.proj_in.weight" in state for i in range(levels)),
        layers=layers,
        context=width(".attn2.to_k.weight"),
        latent=state["conv_in.weight"].shape[1],
        motion_frames=(tables[0].shape[1] if tables else POSITIONS) if has_motion else 0,
        output="conv_out.weight" in state,
        audio=width(".attn2_0.to_k.weight"),
        geometry=width(".attn2_geo.to_k.weight"),
        learnt_weights=any(name.endswith(".alpha") for name in state),
    )


def load_unet(
    state: Mapping[str, torch.Tensor],
    *,
    path: str | Path,
    dtype: torch.dtype = torch.float32,
    config: UNetConfig | None = None,
) -> UNet:
    """A UNet with these weights, on the CPU, for inference.

    Args:
        state: every parameter by name; tables of positions may be missing, as a formula gives them.
        path: names the file in errors.
        config: where the sizes cannot be derived, as with fewer norm groups.

    Raises TalkingPortraitError for missing, surplus or misshapen tensors.
    """
    with torch.device("meta"):
        unet = UNet(config or derive_unet_config(state)).to(dtype)
    strict_load(unet, complete_tables(unet, state), path=path)
    return unet.eval().requires_grad_(False)


def complete_tables(module: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state with every table of positions that `module` has and the file may lack."""
    own = module.state_dict()
    tables = {name: sinusoidal_table(*tensor.shape[1:]) for name, tensor in own.items() if name.endswith(_TABLE)}
    return {**tables, **state}
