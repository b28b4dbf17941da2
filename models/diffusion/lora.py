"""LoRA (Hu et al. 2021) files for Stable Diffusion 1.5's UNet, added to its weights once and for all.

Two spellings are about: that of diffusers (`unet.down_blocks.0…to_q.lora_A.weight`, older `.lora.down.weight`) and that
of kohya's trainer (`lora_unet_down_blocks_0_…_to_q.lora_down.weight`), which LCM's published file has too.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from ..errors import TalkingPortraitError, one_line

_PARTS = {
    "lora_down.weight": "down",
    "lora_up.weight": "up",
    "lora_A.weight": "down",
    "lora_B.weight": "up",
    "lora.down.weight": "down",
    "lora.up.weight": "up",
    "alpha": "alpha",
}
_NAME = re.compile(rf"(.+)\.({'|'.join(map(re.escape, _PARTS))})")
_OTHERS = ("lora_te", "text_encoder", "te_")
"""How the names of other networks begin, which such files may hold as well."""
_UNPLAIN = re.compile(r"lora_unet_.*|.*\.(dora_scale|lora_magnitude_vector|hada_|lokr_|oft_).*")
"""Names of other changes than a LoRA's two matrices, which would be wrong without them."""
_OLDEST = re.compile(r"(.+)\.processor\.(to_[qkv]|to_out)_lora\.(down|up)\.weight")


def merge_lora(unet: nn.Module, state: Mapping[str, torch.Tensor], *, path: str | Path, strength: float = 1.0) -> int:
    """Adds `strength` times the file's changes to the weights; returns how many layers changed.

    Load the network anew to undo it. `path` names the file in errors.

    Raises TalkingPortraitError for a file without such changes, and for layers that the network lacks.
    """
    layers = {
        name.replace(".", "_"): module
        for name, module in unet.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }
    changes, others = _grouped(state)
    if others:
        raise TalkingPortraitError(
            f"{Path(path).name} is no plain LoRA but DoRA, LoHa, LoKr or the like ({one_line(others[0])}); a LoRA of "
            "two matrices for each layer, for Stable Diffusion 1.5, is expected."
        )
    unknown = [name for name in changes if name not in layers]
    unfit = [name for name, parts in changes.items() if name in layers and not _fits(layers[name], parts)]
    if not changes or unknown or unfit:
        problem = "holds no LoRA of a UNet"
        if changes:
            problem = f"changes {len(unknown) + len(unfit)} layers that this UNet lacks ({(unknown + unfit)[0]} …)"
        raise TalkingPortraitError(f"{Path(path).name} {problem}, but one for Stable Diffusion 1.5 is expected.")
    for name, parts in changes.items():
        weight = layers[name].weight
        change = (_change(parts) * strength).reshape(weight.shape)
        weight.data = (weight.float() + change.to(weight.device)).to(weight.dtype)
    return len(changes)


def _grouped(state: Mapping[str, torch.Tensor]) -> tuple[dict[str, dict[str, torch.Tensor]], list[str]]:
    """Layer's name with underscores to its "down", "up" and perhaps "alpha"; names of a UNet's other changes."""
    changes: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)
    others = []
    for name, tensor in state.items():
        if name.startswith(_OTHERS):
            continue
        if match := _OLDEST.fullmatch(name):
            layer, part = f"{match[1]}.{match[2].replace('to_out', 'to_out.0')}", match[3]
        elif match := _NAME.fullmatch(name):
            layer, part = match[1], _PARTS[match[2]]
        else:
            if _UNPLAIN.fullmatch(name):
                others.append(name)
            continue
        layer = layer.removeprefix("unet.").removeprefix("lora_unet_").replace(".", "_")
        changes[layer][part] = tensor
    return changes, others


def _fits(layer: nn.Module, parts: Mapping[str, torch.Tensor]) -> bool:
    if not {"down", "up"} <= parts.keys() or len(parts["down"]) != parts["up"].shape[1]:
        return False
    assert isinstance(layer.weight, torch.Tensor)
    return len(parts["up"]) * parts["down"][0].numel() == layer.weight.numel()


def _change(parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
    down, up = parts["down"].float(), parts["up"].float()
    rank = len(down)
    scale = float(parts["alpha"]) / rank if "alpha" in parts else 1.0
    return scale * up.reshape(len(up), rank) @ down.reshape(rank, -1)
