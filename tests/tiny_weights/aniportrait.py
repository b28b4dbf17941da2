"""AniPortrait's files as small random ones: published names, layout and structure, with fewer channels.

    python tests/tiny_weights/aniportrait.py FOLDER     # a folder of models for --models or TALKING_PORTRAIT_MODELS

Videos made with them are noise, but every step on the way is the real one.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from talking_portrait.models.aniportrait.audio2mesh import Audio2Mesh
from talking_portrait.models.aniportrait.audio2pose import Audio2Pose
from talking_portrait.models.aniportrait.pose_guider import PoseGuider, PoseGuiderConfig
from talking_portrait.models.diffusion.motion_module import sinusoidal_table
from talking_portrait.models.diffusion.unet import UNet, UNetConfig

from .weight_norm import old_names

CHANNELS = 32
CONTEXT = 24
UNET = UNetConfig(channels=(CHANNELS, 2 * CHANNELS, 4 * CHANNELS, 4 * CHANNELS), context=CONTEXT, motion_frames=32)
REPEATED = 500_000
"""Tensors larger than this repeat one row, which a file stores once: some widths are fixed, not tiny at all."""
ENCODER = {
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 64,
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}


def write_aniportrait(models: Path, *, context: int = CONTEXT, seed: int = 0) -> None:
    """All files but FILM's below `models`; `context` is the width of CLIP's embedding, which the UNets fit."""
    folder = models / "talking_portrait" / "aniportrait"
    folder.mkdir(parents=True, exist_ok=True)
    config = replace(UNET, context=context)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reference = _random(UNet, replace(config, motion_frames=0, output=False))
        denoising = _random(UNet, config)
        torch.save(reference, folder / "reference_unet.pth")
        motion = {name: tensor for name, tensor in denoising.items() if ".motion_modules." in name}
        torch.save(motion, folder / "motion_module.pth")
        torch.save({k: v for k, v in denoising.items() if k not in motion}, folder / "denoising_unet.pth")
        torch.save(_random(PoseGuider, PoseGuiderConfig(channels=CHANNELS)), folder / "pose_guider.pth")
        mesh = Audio2Mesh(_speech_encoder(), width=16).state_dict()
        mesh["out_fn.weight"] *= 0.2
        torch.save(old_names(mesh), folder / "audio2mesh.pt")
        pose = Audio2Pose(_speech_encoder(), width=64, inner=64, layers=2).state_dict()
        torch.save({**old_names(pose), "PPE.pe": sinusoidal_table(600, 64)}, folder / "audio2pose.pt")


def write_vae(models: Path, *, seed: int = 0) -> None:
    """sd-vae-ft-mse.safetensors."""
    from diffusers import AutoencoderKL

    (models / "vae").mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKL(
            block_out_channels=(32,) * 4,
            layers_per_block=1,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        )
    save_file(vae.state_dict(), models / "vae" / "sd-vae-ft-mse.safetensors")


def write_clip_vision(models: Path, *, context: int = CONTEXT, seed: int = 0) -> None:
    """sd-image-variations-image-encoder.bin; `context` is the width of the projected embedding."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    (models / "clip_vision").mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1}
        clip = CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes, patch_size=56, projection_dim=context))
    torch.save(clip.state_dict(), models / "clip_vision" / "sd-image-variations-image-encoder.bin")


def write_for_comfyui(models: Path) -> None:
    """As `write_all`, but with a VAE and a CLIP of the sizes that ComfyUI accepts, each as random.pt."""
    from diffusers import AutoencoderKL
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    write_aniportrait(models, context=768)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    sizes = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for folder, network, config in (
            (
                "vae",
                AutoencoderKL.from_config,
                {**blocks, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2},
            ),
            (
                "clip_vision",
                CLIPVisionModelWithProjection,
                CLIPVisionConfig(**sizes, patch_size=14, projection_dim=768),
            ),
        ):
            (models / folder).mkdir(parents=True, exist_ok=True)
            torch.save(_random(network, config), models / folder / "random.pt")


def write_all(models: Path) -> None:
    """Everything that AniPortrait's example workflows load."""
    write_aniportrait(models)
    write_vae(models)
    write_clip_vision(models)


def _random(network: Any, config: Any) -> dict[str, torch.Tensor]:
    """A state dict of small numbers, without ever building the network in full."""
    with torch.device("meta"):
        empty = network(config).state_dict()
    return {name: _tensor(name, tensor) for name, tensor in empty.items()}


def _tensor(name: str, like: torch.Tensor) -> torch.Tensor:
    if name.endswith(".pos_encoder.pe"):
        return sinusoidal_table(*like.shape[1:])
    if not like.is_floating_point():
        return torch.zeros(like.shape, dtype=like.dtype)
    if like.ndim <= 1:
        is_scale = "norm" in name or name.endswith(("running_var", "scale")) or _is_batch_norm(name)
        centre = 1.0 if is_scale and not name.endswith("bias") else 0.0
        return centre + 0.02 * torch.randn(like.shape)
    deviation = like[0].numel() ** -0.5
    if like.numel() > REPEATED:
        return (deviation * torch.randn(1, *like.shape[1:])).expand(like.shape)
    return deviation * torch.randn(like.shape)


def _is_batch_norm(name: str) -> bool:
    """Whether a vector is the scale of one of the pose guider's norms, which stand second of three in their stacks."""
    parts = name.split(".")
    return parts[0].startswith("conv_layers") and parts[-1] == "weight" and int(parts[1]) % 3 == 1


def _speech_encoder() -> Any:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    return Wav2Vec2Model(Wav2Vec2Config(**ENCODER)).eval()


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
