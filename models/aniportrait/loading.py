"""AniPortrait's published files, recognised by what they hold and loaded strictly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..checkpoint_kinds import describe
from ..checkpoints import State, expect_kind, layer_count, read_checkpoint, rename_keys, sizes_of, strict_load
from ..diffusion.loading import load_unet, without_output
from ..diffusion.unet import UNet, UNetConfig
from ..errors import TalkingPortraitError
from ..speech import loading as speech
from .audio2mesh import Audio2Mesh
from .audio2pose import Audio2Pose
from .pose_guider import PoseGuider, PoseGuiderConfig

_ENCODER = "audio_encoder."
_POSITIONS = (r"PPE\.pe$",)
"""A table that a formula gives for any length."""


def load_reference_unet(
    path: str | Path, *, dtype: torch.dtype = torch.float32, config: UNetConfig | None = None
) -> UNet:
    """reference_unet.pth. Raises TalkingPortraitError for another file; so do all functions here."""
    return load_unet(read_reference_unet(path), path=path, dtype=dtype, config=config)


def read_reference_unet(path: str | Path, *, mapped: bool = False) -> State:
    """Its tensors without output layers, which some files have and nothing uses.

    With both of them it has the very names of Stable Diffusion's UNet and of the denoising one; then the file's name
    must say which it is, with "ref" in it.
    """
    wanted = "AniPortrait's reference_unet"
    state = expect_kind(read_checkpoint(path, mapped=mapped), ("reference_unet", "sd_unet"), wanted, path)
    if {"conv_norm_out.weight", "conv_out.weight"} <= state.keys() and "ref" not in Path(path).name.lower():
        raise TalkingPortraitError(
            f"{Path(path).name} is {describe(state)}, but {wanted} is expected here; choose such a file, or give one "
            "that was saved with its output layers a name with reference_unet in it."
        )
    return without_output(state)


def load_denoising_unet(
    path: str | Path,
    motion: str | Path | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    config: UNetConfig | None = None,
) -> UNet:
    """denoising_unet.pth with motion_module.pth, or one file that holds both; the first wins where they overlap."""
    state = read_checkpoint(path)
    if motion is None:
        state = expect_kind(state, ("motion_unet",), "a UNet with motion modules, or motion_module beside it,", path)
    else:
        state = expect_kind(state, ("sd_unet", "motion_unet"), "AniPortrait's denoising_unet", path)
        modules = expect_kind(read_checkpoint(motion), ("motion_module",), "AniPortrait's motion_module", motion)
        state = {**modules, **state}
        path = f"{Path(path).name} with {Path(motion).name}"
    return load_unet(state, path=path, dtype=dtype, config=config)


def load_pose_guider(path: str | Path, *, dtype: torch.dtype = torch.float32) -> PoseGuider:
    """pose_guider.pth."""
    state = expect_kind(read_checkpoint(path), ("pose_guider",), "AniPortrait's pose_guider", path)
    return build_pose_guider(state, path=path, dtype=dtype)


def build_pose_guider(
    state: Mapping[str, torch.Tensor], *, path: str | Path, dtype: torch.dtype = torch.float32
) -> PoseGuider:
    with sizes_of(state, path), torch.device("meta"):
        config = PoseGuiderConfig(len(state["final_proj.weight"]), len(state["cross_attn1.proj_in.weight"]))
        guider = PoseGuider(config).to(dtype)
    strict_load(guider, state, path=path)
    return guider.eval().requires_grad_(False)


def load_audio2mesh(path: str | Path) -> Audio2Mesh:
    """audio2mesh.pt, in float32."""
    state = expect_kind(read_checkpoint(path), ("audio2mesh",), "AniPortrait's audio2mesh", path)
    return build_audio2mesh(state, path=path)


def build_audio2mesh(
    state: Mapping[str, torch.Tensor], *, path: str | Path, encoder: Mapping[str, Any] | None = None
) -> Audio2Mesh:
    """`encoder` completes the wav2vec2's configuration where shapes do not determine it."""
    state = rename_keys(state, speech.WEIGHT_NORM)
    with sizes_of(state, path), torch.device("meta"):
        model = Audio2Mesh(_build_encoder(state, encoder), len(state["in_fn.weight"]))
    strict_load(model, state, path=path)
    return model.eval().requires_grad_(False)


def load_audio2pose(path: str | Path) -> Audio2Pose:
    """audio2pose.pt, in float32."""
    state = expect_kind(read_checkpoint(path), ("audio2pose",), "AniPortrait's audio2pose", path)
    return build_audio2pose(state, path=path)


def build_audio2pose(
    state: Mapping[str, torch.Tensor], *, path: str | Path, encoder: Mapping[str, Any] | None = None
) -> Audio2Pose:
    """As `build_audio2mesh`."""
    state = rename_keys(state, speech.WEIGHT_NORM)
    with sizes_of(state, path), torch.device("meta"):
        width, inner = len(state["in_fn.weight"]), len(state["transformer_decoder.layers.0.linear1.weight"])
        layers = layer_count(state, "transformer_decoder.layers.")
        model = Audio2Pose(_build_encoder(state, encoder), width, inner, layers)
    strict_load(model, state, path=path, unused=_POSITIONS)
    return model.eval().requires_grad_(False)


def _build_encoder(state: State, given: Mapping[str, Any] | None) -> Any:
    own = {name.removeprefix(_ENCODER): tensor for name, tensor in state.items() if name.startswith(_ENCODER)}
    return speech.build({**speech.derive_config(own), **(given or {})})
