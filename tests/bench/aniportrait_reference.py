"""The reference implementation of AniPortrait, run by `aniportrait.py` with the same weights and inputs.

It needs packages of its own time, which come from the folder ANIPORTRAIT_SITE; torchvision, which it imports and does
not use on this way, is replaced by an empty module.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path[:0] = [os.environ[name] for name in ("ANIPORTRAIT_SITE", "ANIPORTRAIT_DIR") if name in os.environ]
for _name in ("torchvision", "torchvision.transforms"):
    sys.modules[_name] = types.ModuleType(_name)
    sys.modules[_name].__spec__ = importlib.machinery.ModuleSpec(_name, None)
sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]  # type: ignore[attr-defined]

import numpy as np  # noqa: E402
import torch  # noqa: E402

_spec = importlib.util.spec_from_file_location("bench", Path(__file__).with_name("aniportrait.py"))
assert _spec is not None
assert _spec.loader is not None
bench = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(bench)

UNET = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "center_input_sample": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "act_fn": "silu",
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "cross_attention_dim": bench.CONTEXT,
    "attention_head_dim": 8,
}
MOTION = {
    "use_inflated_groupnorm": True,
    "unet_use_cross_frame_attention": False,
    "unet_use_temporal_attention": False,
    "use_motion_module": True,
    "motion_module_resolutions": (1, 2, 4, 8),
    "motion_module_mid_block": True,
    "motion_module_decoder_only": False,
    "motion_module_type": "Vanilla",
    "motion_module_kwargs": {
        "num_attention_heads": 8,
        "num_transformer_block": 1,
        "attention_block_types": ("Temporal_Self", "Temporal_Self"),
        "temporal_position_encoding": True,
        "temporal_position_encoding_max_len": 32,
        "temporal_attention_dim_div": 1,
    },
}


class Embedding(torch.nn.Module):
    """Stands for CLIP's image encoder."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, pixels: torch.Tensor) -> Any:
        return SimpleNamespace(image_embeds=bench.Embedding().embed(pixels).to(pixels))


class NoVae(torch.nn.Module):
    """Stands for the VAE, with the few names that the pipeline uses of it."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.dtype, self.device, self.codec = dtype, device, bench.NoCodec()
        self.config = SimpleNamespace(block_out_channels=bench.VAE["block_out_channels"])

    def encode(self, pixels: torch.Tensor) -> Any:
        latents = self.codec.encode(pixels.permute(0, 2, 3, 1) / 2 + 0.5) / 0.18215
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=latents))

    def decode(self, latents: torch.Tensor) -> Any:
        return SimpleNamespace(sample=2 * self.codec.decode(latents * 0.18215).permute(0, 3, 1, 2) - 1)


def _filled(network: Any, state: dict[str, torch.Tensor], device: torch.device, dtype: torch.dtype) -> Any:
    network.load_state_dict(state, strict=True, assign=True)
    return network.to(device, dtype).requires_grad_(False)


def pipeline(arguments: Any) -> Any:
    """The published pipeline; as there, its networks are left in the mode of training."""
    from diffusers import AutoencoderKL, DDIMScheduler
    from src.models.pose_guider import PoseGuider
    from src.models.unet_2d_condition import UNet2DConditionModel
    from src.models.unet_3d import UNet3DConditionModel
    from src.pipelines.pipeline_pose2vid_long import Pose2VideoPipeline

    dtype, device = getattr(torch, arguments.dtype), torch.device(arguments.device)
    with torch.device("meta"):
        networks = {
            "reference_unet": UNet2DConditionModel(**UNET),
            "denoising_unet": UNet3DConditionModel(**UNET, **MOTION, mid_block_type="UNetMidBlock3DCrossAttn"),
            "pose_guider": PoseGuider(noise_latent_channels=320, use_ca=True),
        }
        if arguments.vae:
            networks["vae"] = AutoencoderKL(**bench.VAE)
    for name, network in networks.items():
        _filled(network, bench.read(arguments.weights, name), device, dtype)
    networks.setdefault("vae", NoVae(dtype, device))
    scheduler = DDIMScheduler(**bench.DDIM)
    found = Pose2VideoPipeline(image_encoder=Embedding(dtype), scheduler=scheduler, **networks)
    found.set_progress_bar_config(disable=True)
    return found


def reference(arguments: Any) -> Callable[[], torch.Tensor]:
    from PIL import Image

    published = pipeline(arguments)
    picture = Image.fromarray((bench.portrait(arguments.size) * 255).byte().numpy())
    drawn = [np.asarray((d * 255).round().byte()) for d in bench.drawings(arguments.frames, arguments.size)]

    def run() -> torch.Tensor:
        video = published(
            picture,
            drawn,
            drawn[0],
            arguments.size,
            arguments.size,
            arguments.frames,
            arguments.steps,
            arguments.cfg,
            generator=torch.manual_seed(0),
        ).videos
        return video[0].permute(1, 2, 3, 0)

    return run


if __name__ == "__main__":
    chosen = bench.options().parse_args()
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    bench.report(chosen, reference(chosen), Path(chosen.child.partition(":")[2]))
