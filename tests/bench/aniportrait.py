r"""AniPortrait's diffusion at its real size: seconds, arithmetic and peak memory, beside the reference implementation.

    python -m tests.bench.aniportrait                        # one window on a CPU, ours alone
    ANIPORTRAIT_DIR=… python -m tests.bench.aniportrait      # and the reference, one after the other, over and over
    python -m tests.bench.aniportrait --device cuda --dtype float16 --size 512 --steps 25 --frames 48

Weights are random (10 GB below --weights, made once), the same for both, so that their frames can be compared too. Each
runs in a process of its own. CLIP, and the VAE without --vae, are left out of both. ANIPORTRAIT_DIR names a checkout of
Zejun-Yang/AniPortrait; ANIPORTRAIT_SITE a folder with the packages it needs:

    pip install --no-deps --target FOLDER diffusers==0.24.0 huggingface_hub==0.19.4 \
        transformers==4.30.2 tokenizers==0.13.3
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

CONTEXT = 768
FILES = ("reference_unet", "denoising_unet", "pose_guider", "vae")
VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
}
DDIM = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "linear",
    "clip_sample": False,
    "steps_offset": 1,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}
"""Arguments of diffusers' DDIMScheduler in both AniPortrait's and Hallo's published settings."""
REFERENCE = Path(__file__).with_name("aniportrait_reference.py")


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--size", type=int, default=256, help="pixels along each side")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--cfg", type=float, default=3.5)
    parser.add_argument("--threads", type=int, default=0, help="of a CPU; 0 leaves the choice to torch")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each, in turn; the median counts")
    parser.add_argument("--weights", type=Path, default=Path(tempfile.gettempdir(), "aniportrait-bench"))
    parser.add_argument("--window-batch", type=int, default=1)
    parser.add_argument("--variants", nargs="*", default=["exact"], choices=list(VARIANTS), help="of ours")
    parser.add_argument("--vae", action="store_true", help="encode and decode pictures too")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser


VARIANTS: dict[str, dict[str, Any]] = {
    "exact": {},
    "seamless": {"mode": "seamless"},
    "compiled": {"compiled": True},
    "fast": {"mode": "seamless", "scheduler": "dpmpp_2m", "steps": 8, "deep_every": 2, "guided": (0.0, 0.5)},
}
"""What is changed from the published settings."""


# --- weights ---


def make_weights(folder: Path) -> None:
    """Random numbers of the published names and shapes, scaled so that values neither vanish nor explode."""
    from diffusers import AutoencoderKL
    from talking_portrait.models.aniportrait.pose_guider import PoseGuider
    from talking_portrait.models.diffusion.unet import UNet, UNetConfig

    folder.mkdir(parents=True, exist_ok=True)
    unet = UNetConfig(context=CONTEXT)
    networks: dict[str, Callable[[], torch.nn.Module]] = {
        "reference_unet": lambda: UNet(replace(unet, output=False)),
        "denoising_unet": lambda: UNet(replace(unet, motion_frames=32)),
        "pose_guider": PoseGuider,
        "vae": lambda: AutoencoderKL(**VAE),
    }
    for number, name in enumerate(FILES):
        path = folder / f"{name}.safetensors"
        if path.exists():
            continue
        with torch.device("meta"):
            shapes = networks[name]().state_dict()
        generator = torch.Generator().manual_seed(number)
        state = {key: random_weight(key, tensor, generator) for key, tensor in shapes.items()}
        save_file(state, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)


def random_weight(name: str, like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A float32 tensor of this shape, on the generator's device, that neither shrinks nor enlarges what passes it."""
    from talking_portrait.models.diffusion.motion_module import sinusoidal_table

    if name.endswith(".pe"):
        return sinusoidal_table(*like.shape[1:])
    if not like.is_floating_point():
        return torch.zeros(like.shape, dtype=like.dtype)
    if like.ndim <= 1:
        return torch.full(like.shape, float(name.endswith(("weight", "running_var", "scale"))))
    return torch.randn(like.shape, generator=generator, device=generator.device) * like[0].numel() ** -0.5


def read(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """The file's tensors, memory-mapped until they are moved."""
    return load_file(folder / f"{name}.safetensors")


# --- inputs, for both ---


def portrait(size: int) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    return torch.stack([rows, columns, 1 - rows], dim=-1).mul(255).round() / 255


def drawings(frames: int, size: int) -> torch.Tensor:
    """A coloured square that moves: (F, size, size, 3)."""
    pictures = torch.zeros(frames, size, size, 3)
    for frame in range(frames):
        left = size // 4 + 2 * frame % (size // 4)
        pictures[frame, left : left + size // 3, size // 3 : size // 2] = torch.tensor([10, 200, 180]) / 255
    return pictures


class Embedding:
    """Stands for CLIP's image encoder."""

    def embed(self, picture: torch.Tensor) -> torch.Tensor:
        return torch.linspace(-1, 1, CONTEXT)[None]


class NoCodec:
    """Stands for the VAE: eight by eight pixels to a latent, by their mean colour."""

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        colours = F.avg_pool2d(2 * pictures.permute(0, 3, 1, 2) - 1, 8)
        return torch.cat([colours, colours.mean(dim=1, keepdim=True)], dim=1) * 0.18215

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        pixels = F.interpolate(latents[:, :3].float().cpu() / 0.18215, scale_factor=8)
        return (pixels / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)


class Codec:
    """A VAE by diffusers."""

    def __init__(self, vae: Any, device: torch.device) -> None:
        self.vae, self.device = vae, device

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        pixels = (2 * pictures - 1).permute(0, 3, 1, 2).to(self.device, self.vae.dtype)
        return self.vae.encode(pixels).latent_dist.mean.float() * 0.18215

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        pixels = self.vae.decode(latents.to(self.device, self.vae.dtype) / 0.18215).sample
        return (pixels.float() / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).cpu()


# --- measuring, for both ---


def measured(device: torch.device, work: Callable[[], Any], *, elapsed: bool = False) -> tuple[float, Any]:
    """Seconds, and what the work gave. On a CPU those of the processor, which other processes delay less, unless those
    that elapsed are to be measured."""
    clock = time.process_time if device.type == "cpu" and not elapsed else time.perf_counter
    synchronise(device)
    start = clock()
    result = work()
    synchronise(device)
    return clock() - start, result


def counted(work: Callable[[], Any]) -> float:
    """Floating-point operations of matrices, convolutions and attention, in 1e12."""
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    def attention(query: Any, key: Any, value: Any, *rest: Any, **options: Any) -> int:
        return sdpa_flop_count(query, key, value)

    on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={on_cpu: attention}) as counter:
        work()
    return counter.get_total_flops() / 1e12


def peak_memory(device: torch.device) -> float:
    """GB of the device, or of the process on a CPU."""
    if device.type == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return torch.cuda.max_memory_allocated(device) / 1e9


def synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()


def report(arguments: argparse.Namespace, run: Callable[[], torch.Tensor], path: Path) -> None:
    """Runs, measures and writes frames and figures for the parent process."""
    device = torch.device(arguments.device)
    operations = counted(run)  # the first run finds kernels and fills caches; counting slows it
    if device.type != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
    seconds, frames = measured(device, run)
    peak = peak_memory(device)
    save_file({"frames": frames.float().contiguous().cpu()}, path)
    print(json.dumps({"seconds": seconds, "tflop": operations, "peak": peak}), flush=True)


def figures(name: str, seconds: float, runs: Sequence[Mapping[str, float]], frames: int) -> str:
    """The line of one side: median seconds, and what `report` printed in each of its runs."""
    return (
        f"{name}: {seconds:.2f} s, {frames / seconds:.3f} frames a second, {runs[0]['tflop'] / frames:.3f} TFLOP a "
        f"frame, peak {max(run['peak'] for run in runs):.2f} GB"
    )


def difference(frames: torch.Tensor, others: torch.Tensor) -> str:
    return f"frames differ by at most {float((frames - others).abs().max()):.1e}"


# --- ours ---


def ours(arguments: argparse.Namespace, variant: str) -> Callable[[], torch.Tensor]:
    from diffusers import AutoencoderKL
    from talking_portrait.models.aniportrait.loading import build_pose_guider
    from talking_portrait.models.diffusion.loading import load_unet
    from talking_portrait.pipelines.aniportrait.animate import Networks, Settings, animate
    from talking_portrait.pipelines.memory import Resident

    dtype, device, folder = getattr(torch, arguments.dtype), torch.device(arguments.device), arguments.weights
    unets = [
        Resident(load_unet(read(folder, name), path=name, dtype=dtype), device)
        for name in ("reference_unet", "denoising_unet")
    ]
    guider = Resident(build_pose_guider(read(folder, "pose_guider"), path="pose_guider", dtype=dtype), device)
    codec: Any = NoCodec()
    if arguments.vae:
        with torch.device("meta"):
            vae: Any = AutoencoderKL(**VAE)
        vae.load_state_dict(read(folder, "vae"), assign=True)
        codec = Codec(vae.to(device, dtype).eval().requires_grad_(False), device)
    settings = Settings(
        size=(arguments.size, arguments.size),
        steps=arguments.steps,
        cfg=arguments.cfg,
        seed=0,
        window_batch=arguments.window_batch,
        **{key: value for key, value in VARIANTS[variant].items() if key != "steps"},
    )
    settings = replace(settings, steps=min(arguments.steps, VARIANTS[variant].get("steps", arguments.steps)))
    picture, drawn = portrait(arguments.size), drawings(arguments.frames, arguments.size)

    def run() -> torch.Tensor:
        return torch.cat(list(animate(Networks(*unets, guider, dtype), codec, Embedding(), picture, drawn, settings)))

    return run


# --- both ---


def child(arguments: argparse.Namespace, name: str, path: Path) -> dict[str, float]:
    """Runs one of them in a process of its own; its last line of output is the figures."""
    script = [str(REFERENCE)] if name == "reference" else ["-m", "tests.bench.aniportrait"]
    passed = [
        *("--device", arguments.device, "--dtype", arguments.dtype, "--size", str(arguments.size)),
        *("--frames", str(arguments.frames), "--steps", str(arguments.steps), "--cfg", str(arguments.cfg)),
        *("--threads", str(arguments.threads), "--weights", str(arguments.weights)),
        *("--window-batch", str(arguments.window_batch), "--child", f"{name}:{path}"),
        *(["--vae"] if arguments.vae else []),
    ]
    output = subprocess.run([sys.executable, *script, *passed], stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(output.splitlines()[-1])


def lines(arguments: argparse.Namespace) -> Iterator[str]:
    names = [*arguments.variants, *(["reference"] if os.environ.get("ANIPORTRAIT_DIR") else [])]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.repeats):
            for name in names:
                found[name].append(child(arguments, name, Path(folder, name)))
        frames = {name: load_file(Path(folder, name))["frames"] for name in names}
    clock = "processor seconds, of all threads" if arguments.device == "cpu" else "seconds"
    yield (
        f"{arguments.frames} frames of {arguments.size} x {arguments.size}, {arguments.steps} steps, cfg "
        f"{arguments.cfg}, {arguments.dtype} on {arguments.device}, in {clock}"
    )
    seconds = {name: statistics.median(run["seconds"] for run in runs) for name, runs in found.items()}
    for name, runs in found.items():
        line = figures(name, seconds[name], runs, arguments.frames)
        if "reference" in frames and name != "reference":
            times = seconds["reference"] / seconds[name]
            line += f"; {times:.2f} x as fast as the reference, {difference(frames[name], frames['reference'])}"
        yield line


def main() -> None:
    arguments = options().parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.child:
        name, _, path = arguments.child.partition(":")
        report(arguments, ours(arguments, name), Path(path))
        return
    make_weights(arguments.weights)
    for line in lines(arguments):
        print(line, flush=True)


if __name__ == "__main__":
    main()
