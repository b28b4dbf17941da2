r"""APasco's (and Hallo's) diffusion beside the reference implementation: processor seconds, arithmetic, peak memory.

    python -m tests.bench.apasco                     # ours alone
    HALLO_DIR=… python -m tests.bench.apasco         # and the reference, one after the other
    HALLO_DIR=… python -m tests.bench.apasco --scale 1 --size 512 --frames 16 --steps 40 --device cuda --dtype float16

Weights are random, the same for both, so that their frames can be compared too; each runs in a process of its own. The
VAE is left out of both. `--scale` is the width of the networks over the published one: at 1 their numbers alone take 10
GB in float32. HALLO_DIR names a checkout of fudan-generative-vision/hallo. It runs with this pack's own libraries; its
gradient checkpoints, which cost time and which today's diffusers cannot switch on, are replaced by plain calls.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import json
import os
import statistics
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from .aniportrait import DDIM, NoCodec, difference, figures, portrait, random_weight, report

SEED = 42
AUDIO_LAYERS, AUDIO_CHANNELS = 12, 768


VARIANTS: dict[str, dict[str, Any]] = {
    "exact": {},
    "compiled": {"compiled": True},
    "fast": {"deep_every": 2, "guided": (0.0, 0.5)},
}
"""What is changed from the published settings."""


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--scale", type=float, default=0.5, choices=[0.2, 0.5, 1.0])
    parser.add_argument("--size", type=int, default=256, help="pixels along each side")
    parser.add_argument("--frames", type=int, default=8, help="of each clip")
    parser.add_argument("--clips", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--cfg", type=float, default=3.5)
    parser.add_argument("--threads", type=int, default=0, help="of a CPU; 0 leaves the choice to torch")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each, in turn; the median counts")
    parser.add_argument("--variants", nargs="*", default=["exact"], choices=list(VARIANTS), help="of ours")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    return parser


def channels(arguments: argparse.Namespace) -> tuple[int, ...]:
    return tuple(round(width * arguments.scale) for width in (320, 640, 1280, 1280))


def empty(arguments: argparse.Namespace) -> Any:
    """Our networks without weights."""
    from talking_portrait.models.apasco.networks import Networks, NetworksConfig

    config = NetworksConfig()
    widths = channels(arguments)
    config = replace(
        config,
        reference_unet=replace(config.reference_unet, channels=widths),
        denoising_unet=replace(config.denoising_unet, channels=widths),
    )
    with torch.device("meta"):
        return Networks(config)


def make_weights(arguments: argparse.Namespace) -> None:
    """Random numbers for each network, in files, so that a process that maps them needs no copy."""
    generator = torch.Generator().manual_seed(0)
    for part, network in empty(arguments).named_children():
        state = {name: random_weight(name, like, generator) for name, like in network.state_dict().items()}
        save_file(state, arguments.weights / f"{part}.safetensors")


def part_of(arguments: argparse.Namespace, name: str) -> dict[str, torch.Tensor]:
    return load_file(arguments.weights / f"{name}.safetensors")


def networks(arguments: argparse.Namespace) -> Any:
    made = empty(arguments)
    for part, network in made.named_children():
        network.load_state_dict(part_of(arguments, part), assign=True)
    return made.to(getattr(torch, arguments.dtype)).eval().requires_grad_(False)


def states(arguments: argparse.Namespace) -> torch.Tensor:
    """In place of a speech encoder's features: (frames, layers, channels)."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(arguments.frames * arguments.clips, AUDIO_LAYERS, AUDIO_CHANNELS, generator=generator)


def embedding() -> torch.Tensor:
    return torch.randn(1, 512, generator=torch.Generator().manual_seed(2))


def masks(arguments: argparse.Namespace) -> Any:
    from talking_portrait.models.face.face_mesh import VERTICES, face_mesh
    from talking_portrait.pipelines.apasco.masks import region_masks

    mesh, size = face_mesh().vertices, arguments.size
    points = np.zeros((VERTICES, 2))
    points[:, 0] = size / 2 + mesh[:, 0] * size / 30
    points[:, 1] = size / 2 - mesh[:, 1] * size / 30
    return region_masks(points, (size, size))


def ours(arguments: argparse.Namespace, variant: str) -> Callable[[], torch.Tensor]:
    from talking_portrait.pipelines.apasco.animate import Inputs, Settings, animate
    from talking_portrait.pipelines.apasco.settings import Networks
    from talking_portrait.pipelines.memory import Resident
    from talking_portrait.pipelines.types import SpeechFeatures

    device = torch.device(arguments.device)
    held = Networks.of(networks(arguments), lambda module: Resident(module, device))
    speech = SpeechFeatures(states(arguments), Fraction(25), "random", "resampled")
    inputs = Inputs(portrait(arguments.size), embedding(), masks(arguments), speech)
    settings = Settings(
        size=(arguments.size, arguments.size),
        clip=arguments.frames,
        steps=arguments.steps,
        cfg=arguments.cfg,
        seed=SEED,
        **VARIANTS[variant],
    )

    def run() -> torch.Tensor:
        return torch.cat([clip.frames for clip in animate(held, NoCodec(), inputs, settings)])

    return run


def reference(arguments: argparse.Namespace) -> Callable[[], torch.Tensor]:
    """The checkout's own pipeline, fed as its inference script does."""
    sys.path.insert(0, os.environ["HALLO_DIR"])
    for name in ("xformers", "xformers.ops"):  # imported and, by default, not used
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)
    from diffusers import DDIMScheduler  # type: ignore[attr-defined]
    from hallo.animate.face_animate import FaceAnimatePipeline

    dtype, device, widths = getattr(torch, arguments.dtype), torch.device(arguments.device), channels(arguments)
    with torch.device("meta"):
        parts = reference_networks(widths)
    for name, module in parts.items():
        state = part_of(arguments, name)
        missing = {key: like for key, like in module.state_dict().items() if key not in state}
        assert name == "reference_unet" or not missing, missing  # its last layers, which are not used
        state |= {key: torch.zeros(like.shape) for key, like in missing.items()}
        module.load_state_dict(state, assign=True)
        module.to(device, dtype).requires_grad_(False)
    denoising = parts["denoising_unet"]
    for module in denoising.modules():  # the published way: training mode, with checkpoints
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = True
    torch.utils.checkpoint.checkpoint = lambda function, *inputs, **_: function(*inputs)  # type: ignore[assignment]

    scheduler = DDIMScheduler(**DDIM)
    pipeline = FaceAnimatePipeline(
        vae=Pooled(dtype, device),
        reference_unet=parts["reference_unet"],
        denoising_unet=denoising,
        face_locator=parts["face_locator"],
        scheduler=scheduler,
        image_proj=parts["imageproj"],
    ).to(device)
    pipeline.set_progress_bar_config(disable=True)
    return lambda: reference_clips(arguments, pipeline, parts["audioproj"])


def reference_networks(widths: tuple[int, ...]) -> dict[str, Any]:
    from hallo.models.audio_proj import AudioProjModel
    from hallo.models.face_locator import FaceLocator
    from hallo.models.image_proj import ImageProjModel
    from hallo.models.unet_2d_condition import UNet2DConditionModel
    from hallo.models.unet_3d import UNet3DConditionModel

    base = {
        "sample_size": 64,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": widths,
        "layers_per_block": 2,
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
        "norm_num_groups": 32,
    }
    motion = {
        "num_attention_heads": 8,
        "num_transformer_block": 1,
        "attention_block_types": ["Temporal_Self", "Temporal_Self"],
        "temporal_position_encoding": True,
        "temporal_position_encoding_max_len": 32,
        "temporal_attention_dim_div": 1,
    }
    denoising = UNet3DConditionModel(
        **base,
        down_block_types=("CrossAttnDownBlock3D",) * 3 + ("DownBlock3D",),
        up_block_types=("UpBlock3D",) + ("CrossAttnUpBlock3D",) * 3,
        mid_block_type="UNetMidBlock3DCrossAttn",
        use_inflated_groupnorm=True,
        unet_use_cross_frame_attention=False,
        unet_use_temporal_attention=False,
        use_motion_module=True,
        motion_module_resolutions=(1, 2, 4, 8),
        motion_module_mid_block=True,
        motion_module_decoder_only=False,
        motion_module_type="Vanilla",
        motion_module_kwargs=motion,
        use_audio_module=True,
        audio_attention_dim=768,
        stack_enable_blocks_name=["up", "down", "mid"],
        stack_enable_blocks_depth=[0, 1, 2, 3],
    )
    writer = UNet2DConditionModel(**{key: value for key, value in base.items() if key != "out_channels"})
    for unet in (writer, denoising):
        unet.register_to_config(center_input_sample=False)  # which a configuration file would have
    return {
        "reference_unet": writer,
        "denoising_unet": denoising,
        "face_locator": FaceLocator(widths[0]),
        "imageproj": ImageProjModel(cross_attention_dim=768, clip_embeddings_dim=512, clip_extra_context_tokens=4),
        "audioproj": AudioProjModel(
            seq_len=5, blocks=12, channels=768, intermediate_dim=512, output_dim=768, context_tokens=32
        ),
    }


@torch.no_grad()
def reference_clips(arguments: argparse.Namespace, pipeline: Any, audioproj: Any) -> torch.Tensor:
    size, frames = arguments.size, arguments.frames
    own = masks(arguments)
    levels = [mask.flatten(2).expand(-1, frames, -1) for mask in own.levels((size // 8, size // 8))]
    source = 2 * portrait(size).permute(2, 0, 1)[None] - 1
    speech, generator, made = states(arguments), torch.manual_seed(SEED), []
    around = torch.arange(len(speech))[:, None] + torch.arange(-2, 3)
    windows = speech[around.clamp(0, len(speech) - 1)].to(audioproj.proj1.weight)
    for clip in range(arguments.clips):
        before = made[-1][:, -2:].transpose(0, 1) * 2 - 1 if made else source.repeat(2, 1, 1, 1)
        video = pipeline(
            ref_image=torch.cat([source, before])[None],
            audio_tensor=audioproj(windows[clip * frames : (clip + 1) * frames][None]),
            face_emb=embedding(),
            face_mask=own.located((size, size))[:, :, 0],
            pixel_values_full_mask=[level[0] for level in levels],
            pixel_values_face_mask=[level[1] for level in levels],
            pixel_values_lip_mask=[level[2] for level in levels],
            width=size,
            height=size,
            video_length=frames,
            num_inference_steps=arguments.steps,
            guidance_scale=arguments.cfg,
            generator=generator,
            motion_scale=[1.0, 1.0, 1.0],
        ).videos
        made.append(video[0].float())
    return torch.cat(made, dim=1).permute(1, 2, 3, 0)


class Pooled(torch.nn.Module):
    """`NoCodec` as the reference's VAE."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.dtype, self.device = dtype, device
        self.config = SimpleNamespace(block_out_channels=(1,) * 4)

    def encode(self, pixels: torch.Tensor) -> Any:
        latents = NoCodec().encode((pixels.permute(0, 2, 3, 1) + 1) / 2) / 0.18215
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=latents))

    def decode(self, latents: torch.Tensor) -> Any:
        return SimpleNamespace(sample=2 * NoCodec().decode(latents * 0.18215).permute(0, 3, 1, 2) - 1)


def child(arguments: argparse.Namespace, name: str, path: Path) -> dict[str, float]:
    """Runs one of them in a process of its own; its last line of output is the figures."""
    given = {key: value for key, value in vars(arguments).items() if key not in ("child", "repeats", "variants")}
    passed = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    command = [sys.executable, "-m", "tests.bench.apasco", *passed, "--child", f"{name}:{path}"]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(output.splitlines()[-1])


def lines(arguments: argparse.Namespace) -> Iterator[str]:
    names = [*arguments.variants, *(["reference"] if os.environ.get("HALLO_DIR") else [])]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        arguments.weights = Path(folder)
        make_weights(arguments)
        for _ in range(arguments.repeats):
            for name in names:
                found[name].append(child(arguments, name, Path(folder, name)))
        frames = {name: load_file(Path(folder, name))["frames"] for name in names}
    count = arguments.frames * arguments.clips
    yield (
        f"{count} frames of {arguments.size} x {arguments.size} in {arguments.clips} clips, {arguments.steps} steps, "
        f"cfg {arguments.cfg}, networks {arguments.scale} times as wide as published, {arguments.dtype} on "
        f"{arguments.device}, in {'processor ' if arguments.device == 'cpu' else ''}seconds"
    )
    seconds = {name: statistics.median(run["seconds"] for run in runs) for name, runs in found.items()}
    for name, runs in found.items():
        line = figures(name, seconds[name], runs, count)
        if "reference" in frames and name != "reference":
            times = seconds["reference"] / seconds[name]
            line += f"; {times:.2f} x as fast, {difference(frames[name], frames['reference'])}"
        yield line


def main() -> None:
    arguments = options().parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.child:
        name, _, path = arguments.child.partition(":")
        report(arguments, reference(arguments) if name == "reference" else ours(arguments, name), Path(path))
        return
    for line in lines(arguments):
        print(line, flush=True)


if __name__ == "__main__":
    main()
