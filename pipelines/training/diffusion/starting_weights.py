"""Initial weights of diffusion training: an earlier stage's files, a reference UNet, motion modules without effect."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import TalkingPortraitError
from ...files.input_paths import is_file

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ....models.diffusion.unet import UNet


ENDINGS = (".safetensors", ".pth", ".bin", ".pt", ".ckpt")


def reference_from(state: Mapping[str, torch.Tensor], path: Path) -> UNet:
    """A reference UNet that begins as a whole one, whose last layers it lacks, with tensors of its own."""
    from ....models.diffusion.loading import load_unet

    left_out = ("conv_norm_out.", "conv_out.")
    inner = {name: tensor.clone() for name, tensor in state.items() if not name.startswith(left_out)}
    return load_unet(inner, path=path)


def find_file(folder: Path, name: str) -> Path:
    """A network's file in a folder, whatever its ending. Raises TalkingPortraitError where there is none."""
    for ending in ENDINGS:
        if is_file(folder / f"{name}{ending}"):
            return folder / f"{name}{ending}"
    raise TalkingPortraitError(f"{folder} holds no {name}.safetensors or .pth; give the folder of a finished stage 1.")


def begin_motion(network: nn.Module) -> None:
    """Sets the last layers of untrained motion modules to zeros, so that they change nothing."""
    from torch import nn

    from ....models.diffusion.motion_module import MotionModule

    for module in network.modules():
        if isinstance(module, MotionModule):
            last = module.temporal_transformer.proj_out
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
