"""UNets from state dicts: sizes read off the tensors, then a strict load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from ..checkpoints import State, layer_count, sizes_of, strict_load
from ..errors import TalkingPortraitError
from .motion_module import sinusoidal_table
from .unet import UNet, UNetConfig

POSITIONS = 32
"""Longest window of the published motion modules, for a file that leaves the tables of positions out."""
MAX_POSITIONS = 1024
_TABLE = ".pos_encoder.pe"


def derive_unet_config(state: Mapping[str, torch.Tensor]) -> UNetConfig:
    """The sizes of a UNet, from its names and shapes.

    Heads (8) and norm groups (32) leave no trace there; they are the same in all published ones.
    """
    levels, layers = layer_count(state, "down_blocks."), layer_count(state, "down_blocks.0.resnets.")
    positions = [tensor.shape[1] for name, tensor in state.items() if name.endswith(_TABLE)]
    if max(positions, default=0) > MAX_POSITIONS:
        raise TalkingPortraitError(
            f"The file's motion modules have a table of {max(positions)} positions, but at most {MAX_POSITIONS} are "
            "expected; take the published file."
        )
    has_motion = any(".motion_modules." in name for name in state)

    def width(ending: str) -> int:
        return next((tensor.shape[1] for name, tensor in state.items() if name.endswith(ending)), 0)

    return UNetConfig(
        channels=tuple(len(state[f"down_blocks.{i}.resnets.0.conv1.weight"]) for i in range(levels)),
        attention=tuple(f"down_blocks.{i}.attentions.0.proj_in.weight" in state for i in range(levels)),
        layers=layers,
        context=width(".attn2.to_k.weight"),
        latent=state["conv_in.weight"].shape[1],
        motion_frames=(positions[0] if positions else POSITIONS) if has_motion else 0,
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
    with sizes_of(state, path), torch.device("meta"):
        unet = UNet(config or derive_unet_config(state)).to(dtype)
    strict_load(unet, complete_tables(unet, state), path=path)
    return unet.eval().requires_grad_(False)


def complete_tables(module: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state with every table of positions that `module` has and the file may lack."""
    missing = {name: t for name, t in module.state_dict().items() if name.endswith(_TABLE) and name not in state}
    return {**{name: sinusoidal_table(*tensor.shape[1:]) for name, tensor in missing.items()}, **state}


def without_output(state: Mapping[str, torch.Tensor], prefix: str = "") -> State:
    """A reference UNet's tensors without its last norm and convolution, whose result nothing uses."""
    layers = (f"{prefix}conv_norm_out.", f"{prefix}conv_out.")
    return {name: tensor for name, tensor in state.items() if not name.startswith(layers)}
