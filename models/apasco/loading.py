"""net.pth of Hallo and APasco: five networks in one file, loaded strictly, and APasco's additions where it has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from ..checkpoints import State, expect_kind, read_checkpoint, rename_keys, sizes_of, strict_load
from ..diffusion.loading import complete_tables, derive_unet_config, without_output
from ..errors import TalkingPortraitError
from .networks import Networks, NetworksConfig

ALIASES = ((r"^image_proj\.", "imageproj."), (r"^audio_proj\.", "audioproj."))
"""APasco's later scripts name two networks otherwise."""
PREFIXES = ("reference_unet", "denoising_unet", "face_locator", "imageproj", "audioproj")


def load_net(path: str | Path, *, dtype: torch.dtype = torch.float32) -> Networks:
    """net.pth, or the same as .safetensors, in either project's names; on the CPU, for inference.

    Raises TalkingPortraitError for another file, and for tensors that are missing, surplus or misshapen.
    """
    state = expect_kind(read_checkpoint(path), ("hallo_net",), "net.pth of Hallo or APasco", path)
    return build_net(state, path=path, dtype=dtype)


def build_net(
    state: Mapping[str, torch.Tensor],
    *,
    path: str | Path,
    dtype: torch.dtype = torch.float32,
    config: NetworksConfig | None = None,
) -> Networks:
    """`config` where the sizes cannot be derived, as with fewer norm groups."""
    state = without_output(rename_keys(state, ALIASES), "reference_unet.")
    if not any(name.startswith("denoising_unet.") and ".audio_modules." in name for name in state):
        raise TalkingPortraitError(
            f"{Path(path).name} has no audio modules in its denoising UNet, as after the first stage of training, "
            "so speech cannot drive it; take net.pth of the second stage, or Hallo's."
        )
    with sizes_of(state, path), torch.device("meta"):
        networks = Networks(config or derive_config(state, path)).to(dtype)
    strict_load(networks, complete_tables(networks, state), path=path)
    return networks.eval().requires_grad_(False)


def derive_config(state: Mapping[str, torch.Tensor], path: str | Path) -> NetworksConfig:
    """The sizes, from names and shapes.

    Raises TalkingPortraitError when a whole network is missing.
    """
    parts: dict[str, State] = {}
    for name, tensor in state.items():
        prefix, _, rest = name.partition(".")
        parts.setdefault(prefix, {})[rest] = tensor
    try:
        locator, face, audio = (parts[name] for name in PREFIXES[2:])
        later = [
            locator[f"blocks.{i}.weight"] for i in range(1, sum(name.startswith("blocks.") for name in locator) // 2, 2)
        ]
        mesh = parts.get("mesh_encoder")
        return NetworksConfig(
            reference_unet=derive_unet_config(parts["reference_unet"]),
            denoising_unet=derive_unet_config(parts["denoising_unet"]),
            locator_widths=(len(locator["conv_in.weight"]), *map(len, later)),
            face_embedding=face["proj.weight"].shape[1],
            face_tokens=len(face["proj.weight"]) // len(face["norm.weight"]),
            audio_inputs=audio["proj1.weight"].shape[1],
            audio_inner=len(audio["proj1.weight"]),
            audio_tokens=len(audio["proj3.weight"]) // len(audio["norm.weight"]),
            mesh_tokens=len(mesh["w_n.weight"]) if mesh else 0,
        )
    except KeyError as error:
        raise TalkingPortraitError(
            f"{Path(path).name} lacks {error.args[0]}, but net.pth of Hallo or APasco holds {', '.join(PREFIXES)}; "
            "take the whole file."
        ) from None
