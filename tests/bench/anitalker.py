r"""AniTalker at its real size: portrait, frames a second and seconds of motion, beside the reference implementation.

    python -m tests.bench.anitalker                       # ours alone
    ANITALKER_DIR=... python -m tests.bench.anitalker     # and the reference, in turns, in the same process
    python -m tests.bench.anitalker --device cuda --frames 200 --batch 32

Weights are random and the same for both, so results are compared too. Neither writes files: the reference's PNG for
each frame is left out. ANITALKER_DIR names a checkout of X-LANCE/AniTalker; its motion model needs ESPnet's conformer
from the folder ANITALKER_SITE, and is left out without it:

    pip install --no-deps --target FOLDER espnet==202301
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import sys
import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from talking_portrait.models.anitalker.loading import build_stage1, build_stage2
from talking_portrait.models.anitalker.stage1 import Stage1
from talking_portrait.models.anitalker.stage2 import Stage2, Stage2Config
from talking_portrait.pipelines.anitalker.motion import generate_motion
from talking_portrait.pipelines.anitalker.noise import seeded_noise
from talking_portrait.pipelines.anitalker.portrait import Portrait, portrait_pixels, prepare_portrait
from talking_portrait.pipelines.anitalker.rendering import render
from talking_portrait.pipelines.files.example import example_portrait
from talking_portrait.pipelines.memory import Resident
from talking_portrait.pipelines.types import MotionLatents, SpeechFeatures

from ..tiny_weights.anitalker import filled
from .aniportrait import measured

VARIANTS = {"hubert_audio_only": Stage2Config(pose=False, placement=False), "hubert_full_control": Stage2Config()}
Work = Callable[[], torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="of a CPU; 0 leaves the choice to torch")
    parser.add_argument("--frames", type=int, default=16, help="to render")
    parser.add_argument("--batch", type=int, default=8, help="frames that ours renders at once")
    parser.add_argument("--seconds", type=float, default=5.0, help="of speech to make motion of")
    parser.add_argument("--steps", type=int, default=50, help="of the diffusion")
    parser.add_argument("--repeats", type=int, default=3, help="of each, in turns; the median counts")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    device = torch.device(options.device)
    print(f"{device}, torch {torch.__version__}, {torch.get_num_threads()} thread(s), float32")
    bench_stage1(options, device)
    for variant in VARIANTS:
        bench_stage2(options, device, variant)


def bench_stage1(options: argparse.Namespace, device: torch.device) -> None:
    with torch.device("meta"):
        empty = Stage1()
    state = filled(empty.state_dict(), 0)
    stage1 = Resident(build_stage1(state, path="generated"), device)
    picture = example_portrait()[0]
    codes = torch.randn(options.frames, 20, generator=torch.Generator().manual_seed(1)) * 0.5
    motion = MotionLatents(codes, Fraction(25))
    portrait = prepare_portrait(stage1, picture)
    encodes: dict[str, Work] = {"ours": lambda: prepare_portrait(stage1, picture).code}
    renders: dict[str, Work] = {"ours": lambda: torch.cat(list(render(stage1, portrait, motion, batch=options.batch)))}
    reference = reference_stage1(state, device)
    if reference is not None:
        pixels = portrait_pixels(picture[None], 256).to(device)
        start, _, maps = reference.get_start_direction_code(pixels, pixels, pixels, pixels)

        def frame(code: torch.Tensor) -> torch.Tensor:
            return ((reference.render(start, code[None].to(device), maps).clamp(-1, 1) + 1) / 2).cpu()

        encodes["reference"] = lambda: reference.get_start_direction_code(pixels, pixels, pixels, pixels)[1].cpu()
        renders["reference"] = lambda: torch.cat([frame(code) for code in codes]).permute(0, 2, 3, 1)
    compare("portrait encoded", encodes, device, options.repeats, lambda seconds: f"{seconds * 1000:.0f} ms")
    title = f"rendered, {options.frames} frames, batch {options.batch}"
    compare(title, renders, device, options.repeats, lambda seconds: f"{options.frames / seconds:.2f} frames a second")


def bench_stage2(options: argparse.Namespace, device: torch.device, variant: str) -> None:
    with torch.device("meta"):
        empty = Stage2(VARIANTS[variant])
    state = filled(empty.state_dict(), 1)
    network = build_stage2(state, path="generated")
    frames = round(options.seconds * 25)
    generator = torch.Generator().manual_seed(2)
    config = network.config
    states = torch.randn(2 * frames, config.layers, config.features, generator=generator)
    features = SpeechFeatures(states, Fraction(50), "hubert-large", "paired")
    face = Portrait(torch.randn(1, 512, generator=generator) * 0.5, torch.randn(1, 20, generator=generator) * 0.5, [])
    noise = seeded_noise(frames, config.motion, 0)
    stage2 = Resident(network, device)
    works: dict[str, Work] = {
        "ours": lambda: generate_motion(stage2, features, face, steps=options.steps, noise=noise).codes
    }
    reference = reference_stage2(state, variant, device)
    if reference is not None:
        audio = states.transpose(0, 1)[None].to(device)
        zeros = [torch.zeros(1, frames, n, device=device) for n in (1, 1, 3)]
        works["reference"] = lambda: reference(
            options.steps, noise.to(device), face.start.to(device), face.code.to(device), audio, *zeros
        )[0].cpu()
    title = f"motion, {variant}, {options.seconds:g} s of speech, {options.steps} steps"
    compare(title, works, device, options.repeats, lambda seconds: f"{seconds:.2f} s")


def compare(
    title: str,
    works: dict[str, Work],
    device: torch.device,
    repeats: int,
    formatted: Callable[[float], str],
    *,
    elapsed: bool = True,
) -> None:
    """Runs all works in turns, after one run each to warm up; prints medians, their ratio and how results differ."""
    results = {name: work() for name, work in works.items()}
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            times[name].append(measured(device, work, elapsed=elapsed)[0])
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    line = f"{title}: " + ", ".join(f"{name} {formatted(seconds)}" for name, seconds in medians.items())
    if "reference" in works:
        error = (results["ours"].cpu() - results["reference"].cpu()).abs().max()
        line += f"; {medians['reference'] / medians['ours']:.2f} times as fast, largest difference {error:.1e}"
    print(line, flush=True)


# --- the reference ---


def _reference_is_there() -> bool:
    folder = os.environ.get("ANITALKER_DIR")
    if folder and str(Path(folder, "code")) not in sys.path:
        sys.path.insert(0, str(Path(folder, "code")))
        warnings.filterwarnings("ignore")  # of what has been renamed since it was written
    return bool(folder)


def reference_stage1(state: dict[str, torch.Tensor], device: torch.device) -> Any:
    if not _reference_is_there():
        return None
    from LIA_Model import LIA_Model

    with contextlib.redirect_stdout(io.StringIO()):
        model = LIA_Model(motion_dim=20, fusion_type="weighted_sum")
    left = model.load_state_dict(state, strict=False)
    assert not left.unexpected_keys
    assert all(".noise." in name or ".to_rgb1." in name for name in left.missing_keys)
    return model.eval().to(device)


def reference_stage2(state: dict[str, torch.Tensor], variant: str, device: torch.device) -> Any:
    """Sampling as the published program does it, or None."""
    site = os.environ.get("ANITALKER_SITE")
    if not (site and _reference_is_there()):
        return None
    if site not in sys.path:
        sys.path.append(site)
    from choices import GenerativeType, LossType, ModelMeanType, ModelType, ModelVarType
    from diffusion.base import get_named_beta_schedule
    from diffusion.diffusion import SpacedDiffusionBeatGansConfig, space_timesteps
    from model.seq2seq import DiffusionPredictor

    options = SimpleNamespace(infer_type=variant, decoder_layers=2, motion_dim=20)
    with contextlib.redirect_stdout(io.StringIO()):
        model = DiffusionPredictor(options)
    model.load_state_dict(state)
    model.eval().to(device)

    def run(steps: int, noise: torch.Tensor, start: Any, code: Any, audio: Any, *controls: Any) -> torch.Tensor:
        sampler = SpacedDiffusionBeatGansConfig(
            gen_type=GenerativeType.ddim,
            model_type=ModelType.autoencoder,
            betas=get_named_beta_schedule("linear", 1000),
            model_mean_type=ModelMeanType.eps,
            model_var_type=ModelVarType.fixed_large,
            loss_type=LossType.mse,
            rescale_timesteps=False,
            use_timesteps=space_timesteps(num_timesteps=1000, section_counts=f"ddim{steps}"),
            fp16=True,
        ).make_sampler()
        names = ("face_location", "face_scale", "yaw_pitch_roll")
        given = {"motion_direction_start": code, "start": start, "audio_driven": audio, "control_flag": False}
        with contextlib.redirect_stdout(io.StringIO()):  # it prints at each step
            return sampler.sample(
                model=model, noise=noise, model_kwargs=given | dict(zip(names, controls, strict=True))
            )

    return run


if __name__ == "__main__":
    main()
