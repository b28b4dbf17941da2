"""Every system's speed on a graphics card, in one command and from a plain checkout.

    python -m tests.bench.gpu --out DIR [--minutes 8] [--only ROW ...]
    python -m tests.bench.gpu --out DIR --tiny             # tiny networks on a CPU: whether it runs, not how fast

It needs torch, numpy, safetensors, einops, transformers, Pillow, OpenCV and scipy, nothing installed of this pack, and
no network. Weights are random and of the published shapes. The VAE is the host's and is left out, as CLIP is. A row's
first run warms up and is counted in floating-point operations; the median of later ones is its speed. Rows come most
wanted first; gpu.json and gpu.md are written after each, so that what is measured when time is up stays.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.util
import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]


def _make_importable() -> None:
    """The pack under its name, where it is not installed."""
    if importlib.util.find_spec("talking_portrait") is None:
        spec = importlib.util.spec_from_file_location(
            "talking_portrait", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
        )
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules["talking_portrait"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)


_make_importable()

from .aniportrait import VARIANTS, Embedding, NoCodec, counted, drawings, peak_memory, portrait  # noqa: E402
from .apasco import embedding, masks, states  # noqa: E402

MATMUL_SIDE = 8192
COPY_BYTES = 4 * 2**30
RUNS = 3
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class Row:
    """One measurement: frames a second, arithmetic, memory."""

    name: str
    what: str
    frames: int = 0
    seconds: float = 0.0
    tflop: float = 0.0
    peak_gb: float = 0.0
    matmul_share: float = 0.0
    note: str = ""

    @property
    def rate(self) -> float:
        return self.frames / self.seconds if self.seconds else 0.0


class Bench:
    """What the rows share: device, sizes, ceilings, the end of the time."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.tiny, self.out = options.tiny, options.out
        self.device = torch.device("cpu" if self.tiny else "cuda")
        self.dtype = torch.float32 if self.tiny else torch.float16
        self.end = time.monotonic() + 60 * options.minutes
        self.matmul_tflops, self.copy_tb = 0.0, 0.0
        self.rows: list[Row] = []
        self.errors: dict[str, dict[str, float]] = {}

    def measure(self, row: Row, run: Callable[[], Any], runs: int = RUNS, *, count: bool = True) -> None:
        """Fills the row: one run to warm up and count, then the median of up to `runs`."""
        if count:
            row.tflop = counted(run)
        run()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds: list[float] = []
        while len(seconds) < runs and (not seconds or time.monotonic() + seconds[-1] < self.end):
            self.synchronise()
            start = time.perf_counter()
            run()
            self.synchronise()
            seconds.append(time.perf_counter() - start)
        row.seconds, row.peak_gb = statistics.median(seconds), peak_memory(self.device)
        if self.matmul_tflops:
            row.matmul_share = row.tflop / row.seconds / self.matmul_tflops

    def synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def write(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        name = "CPU" if self.device.type == "cpu" else torch.cuda.get_device_name()
        found = {
            "device": name,
            "torch": torch.__version__,
            "matmul_tflops": self.matmul_tflops,
            "copy_tb_a_second": self.copy_tb,
            "rows": [asdict(row) | {"frames_a_second": row.rate} for row in self.rows],
            "relative_errors_against_the_cpu": self.errors,
        }
        (self.out / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")
        lines = [
            f"{name}, torch {torch.__version__}: {self.matmul_tflops:.0f} TFLOP/s in a bfloat16 matrix product, "
            f"{self.copy_tb:.2f} TB/s in a copy",
            "",
            "| row | frames a second | TFLOP a frame | of the matrix product | peak GB | note |",
            "|---|---|---|---|---|---|",
        ]
        for row in self.rows:
            figures = (
                f"{row.rate:.2f} | {row.tflop / max(row.frames, 1):.2f} | {row.matmul_share:.0%} | {row.peak_gb:.1f}"
            )
            lines.append(f"| {row.what} | {figures if row.seconds else ' | | | '} | {row.note} |")
        if self.errors:
            lines += ["", "| against the CPU, relative | " + " | ".join(PRECISIONS) + " |", "|---|---|---|---|"]
            lines += [
                f"| {name} | "
                + " | ".join(f"{errors.get(precision, float('nan')):.1e}" for precision in PRECISIONS)
                + " |"
                for name, errors in self.errors.items()
            ]
        (self.out / "gpu.md").write_text("\n".join(lines) + "\n")


# --- networks ---


def fill(module: torch.nn.Module, device: torch.device, dtype: torch.dtype, seed: int = 0) -> torch.nn.Module:
    """Random weights for a module on meta, scaled so that values neither vanish nor explode."""
    from talking_portrait.models.diffusion.motion_module import sinusoidal_table

    generator = torch.Generator(device).manual_seed(seed)
    module.to_empty(device=device).to(dtype)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith(".pe"):
                tensor.copy_(sinusoidal_table(*tensor.shape[1:]))
            elif not tensor.is_floating_point():
                tensor.zero_()
            elif tensor.ndim <= 1:
                tensor.fill_(float(name.endswith(("weight", "running_var", "scale"))))
            else:
                drawn = torch.randn(tensor.shape, generator=generator, device=device)
                tensor.copy_(drawn * tensor[0].numel() ** -0.5)
    return module.eval().requires_grad_(False)


def widths(tiny: bool) -> dict[str, Any]:
    return {"channels": (32, 64, 128, 128)} if tiny else {}


def aniportrait_networks(bench: Bench) -> Any:
    from talking_portrait.models.aniportrait.pose_guider import PoseGuider, PoseGuiderConfig
    from talking_portrait.models.diffusion.unet import UNet, UNetConfig
    from talking_portrait.pipelines.aniportrait.settings import Networks
    from talking_portrait.pipelines.memory import Resident

    config = UNetConfig(context=768, **widths(bench.tiny))
    with torch.device("meta"):
        modules = [UNet(replace(config, output=False)), UNet(replace(config, motion_frames=32))]
        modules.append(PoseGuider(PoseGuiderConfig(32, 64) if bench.tiny else None))
    held = [
        Resident(fill(module, bench.device, bench.dtype, number), bench.device) for number, module in enumerate(modules)
    ]
    return Networks(*held, bench.dtype)


def aniportrait(bench: Bench, row: Row, networks: Any, variant: str, count: bool = True) -> None:
    from talking_portrait.pipelines.aniportrait.animate import animate
    from talking_portrait.pipelines.aniportrait.settings import Settings

    size, row.frames = (64, 16) if bench.tiny else (512, 48)
    changes = {"steps": 2 if bench.tiny else 25} | VARIANTS[variant]
    if bench.tiny:
        changes["steps"] = 2
    if "scheduler" in changes and not _have("diffusers"):
        changes["scheduler"] = "ddim"
        row.note = f"DDIM in place of {VARIANTS[variant]['scheduler']}, which needs diffusers: as many network calls"
    settings = Settings(size=(size, size), **changes)
    picture, drawn = portrait(size), drawings(row.frames, size)

    def run() -> None:
        for _ in animate(networks, NoCodec(), Embedding(), picture, drawn, settings):
            pass

    start = time.perf_counter()
    bench.measure(row, run, count=count)
    if not count:
        row.note = f"first runs, with compiling, {time.perf_counter() - start - row.seconds * RUNS:.0f} s"


def apasco(bench: Bench, row: Row) -> None:
    from talking_portrait.models.apasco.networks import Networks as Modules
    from talking_portrait.models.apasco.networks import NetworksConfig
    from talking_portrait.pipelines.apasco.animate import Inputs, Settings, animate
    from talking_portrait.pipelines.apasco.settings import Networks
    from talking_portrait.pipelines.memory import Resident
    from talking_portrait.pipelines.types import SpeechFeatures

    config = NetworksConfig()
    if bench.tiny:
        config = replace(
            config,
            reference_unet=replace(config.reference_unet, **widths(True)),
            denoising_unet=replace(config.denoising_unet, **widths(True)),
        )
    with torch.device("meta"):
        modules = Modules(config)
    fill(modules, bench.device, bench.dtype)
    arguments = argparse.Namespace(size=64 if bench.tiny else 512, frames=8 if bench.tiny else 16, clips=2)
    held = Networks.of(modules, lambda module: Resident(module, bench.device))
    speech = SpeechFeatures(states(arguments), Fraction(25), "random", "resampled")
    inputs = Inputs(portrait(arguments.size), embedding(), masks(arguments), speech)
    settings = Settings(
        size=(arguments.size, arguments.size), clip=arguments.frames, steps=2 if bench.tiny else 40, seed=42
    )
    row.frames = arguments.frames * arguments.clips

    def run() -> None:
        for _ in animate(held, NoCodec(), inputs, settings):
            pass

    bench.measure(row, run)


def anitalker_stage1(bench: Bench) -> Any:
    from talking_portrait.models.anitalker.stage1 import Stage1
    from talking_portrait.pipelines.memory import Resident

    from ..tiny_weights import anitalker as tiny

    with torch.device("meta"):
        empty = Stage1(tiny.ENCODER, tiny.RENDERER) if bench.tiny else Stage1()
    module = empty.to_empty(device="cpu")
    module.load_state_dict(tiny.filled(module.state_dict(), 0))
    return Resident(module.eval().requires_grad_(False), bench.device)


def anitalker_render(bench: Bench, row: Row, batch: int) -> None:
    from talking_portrait.pipelines.anitalker.animate import prepare_portrait
    from talking_portrait.pipelines.anitalker.rendering import render
    from talking_portrait.pipelines.types import MotionLatents

    stage1 = anitalker_stage1(bench)
    row.frames = 8 if bench.tiny else 320
    codes = torch.randn(row.frames, 20, generator=torch.Generator().manual_seed(1)) * 0.5
    face = prepare_portrait(stage1, portrait(64 if bench.tiny else 512))
    motion = MotionLatents(codes, Fraction(25))

    def run() -> None:
        for _ in render(stage1, face, motion, batch=batch):
            pass

    bench.measure(row, run)


def anitalker_motion(bench: Bench, row: Row) -> None:
    from talking_portrait.models.anitalker.stage2 import Stage2, Stage2Config
    from talking_portrait.pipelines.anitalker.motion import generate_motion
    from talking_portrait.pipelines.anitalker.noise import seeded_noise
    from talking_portrait.pipelines.anitalker.portrait import Portrait
    from talking_portrait.pipelines.memory import Resident
    from talking_portrait.pipelines.types import SpeechFeatures

    from ..tiny_weights import anitalker as tiny

    config = tiny.STAGE2["stage2_audio_only_hubert"] if bench.tiny else Stage2Config(pose=False, placement=False)
    with torch.device("meta"):
        empty = Stage2(config)
    module = empty.to_empty(device="cpu")
    module.load_state_dict(tiny.filled(module.state_dict(), 1))
    stage2 = Resident(module.eval().requires_grad_(False), bench.device)
    row.frames = 10 if bench.tiny else 125
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(2 * row.frames, config.layers, config.features, generator=generator)
    speech = SpeechFeatures(features, Fraction(50), "hubert-large", "paired")
    code = torch.randn(1, config.motion, generator=generator) * 0.5
    face = Portrait(torch.randn(1, config.style, generator=generator) * 0.5, code, [])
    noise = seeded_noise(row.frames, config.motion, 0)
    steps = 2 if bench.tiny else 50
    bench.measure(row, lambda: generate_motion(stage2, speech, face, steps=steps, noise=noise))


def gfpgan(bench: Bench, row: Row, dtype: torch.dtype, batch: int) -> None:
    from talking_portrait.models.gfpgan import GFPGAN

    from ..tiny_weights import gfpgan as tiny

    network = (tiny.gfpgan() if bench.tiny else tiny.generated(GFPGAN())).to(bench.device, dtype)
    row.frames = batch
    faces = (torch.rand(batch, 3, network.config.size, network.config.size) * 2 - 1).to(bench.device, dtype)
    bench.measure(row, lambda: network(faces), runs=10)


def instant(bench: Bench, row: Row) -> None:
    import numpy as np
    from talking_portrait.pipelines.instant.driver.driver import drive
    from talking_portrait.pipelines.instant.renderer.renderer import InstantRenderer
    from talking_portrait.pipelines.types import Audio, FaceTrack

    # Noise for a voice and colours for a picture: neither PyAV nor Pillow is needed, and the work is the same.
    table = np.load(ROOT / "pipelines" / "files" / "example_data" / "landmarks.npz")
    track = FaceTrack(
        points=table["points"],
        found=np.ones(1, bool),
        image_size=(512, 512),
        matrix=table["matrix"],
        blendshapes=table["blendshapes"],
        score=np.ones(1, np.float32),
    )
    image = portrait(512)
    voice = _drawn((1, 16_000 * (2 if bench.tiny else 16)), 7) * 0.1
    motion = drive(Audio(voice, 16_000), fps=Fraction(25), seed=0)
    row.frames = motion.frames
    renderer = InstantRenderer(image, track, device=bench.device)

    def run() -> None:
        for _ in renderer.frames_uint8(motion, batch=32):
            pass

    bench.measure(row, run, runs=1 if bench.tiny else RUNS, count=False)


# --- ceilings and numbers ---


def ceilings(bench: Bench) -> None:
    side, size = (256, 2**20) if bench.tiny else (MATMUL_SIDE, COPY_BYTES)
    a, b = (torch.randn(side, side, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    source = torch.randint(0, 255, (size,), device=bench.device, dtype=torch.uint8)
    target = torch.empty_like(source)
    for work, store in ((lambda: a @ b, "matmul"), (lambda: target.copy_(source), "copy")):
        for _ in range(3):
            work()
        bench.synchronise()
        start = time.perf_counter()
        for _ in range(10):
            work()
        bench.synchronise()
        seconds = (time.perf_counter() - start) / 10
        if store == "matmul":
            bench.matmul_tflops = 2 * side**3 / seconds / 1e12
        else:
            bench.copy_tb = 2 * size / seconds / 1e12


@torch.no_grad()
def numbers(bench: Bench) -> None:
    """Relative errors of small networks on the device in each precision, against the CPU in float32."""
    from talking_portrait.models.diffusion.unet import UNet, UNetConfig

    from ..tiny_weights import gfpgan

    config = UNetConfig(context=64, channels=(64, 64, 128, 128), motion_frames=32)
    with torch.device("meta"):
        unet = UNet(config)
    cpu = torch.device("cpu")
    cases: dict[str, tuple[torch.nn.Module, Callable[[Any, Any], torch.Tensor]]] = {
        "video UNet, 1/5 of its width": (
            fill(unet, cpu, torch.float32),
            lambda network, put: network(put(_drawn((2, 4, 8, 16, 16), 4)), 500, put(_drawn((2, 1, 64), 5))),
        ),
        "GFPGAN, 128 x 128": (
            gfpgan.gfpgan(),
            lambda network, put: network(put(_drawn((1, 3, network.config.size, network.config.size), 6).tanh())),
        ),
    }
    for name, (network, run) in cases.items():
        expected = run(network, lambda tensor: tensor).double()
        bench.errors[name] = {}
        for precision, dtype in PRECISIONS.items():
            network.to(bench.device, dtype)
            got = run(network, lambda tensor, dtype=dtype: tensor.to(bench.device, dtype)).double().cpu()
            bench.errors[name][precision] = float((got - expected).norm() / expected.norm())
            network.to(cpu, torch.float32)


def _have(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True


def _drawn(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- all rows ---


def work(bench: Bench) -> Iterator[tuple[str, str, Callable[[Row], None]]]:
    """(name, description, measurement), most important first."""
    networks = functools.cache(lambda: aniportrait_networks(bench))

    yield (
        "aniportrait_exact",
        "AniPortrait 512 x 512, 25 steps",
        lambda row: aniportrait(bench, row, networks(), "exact"),
    )
    yield "aniportrait_fast", "AniPortrait, fast", lambda row: aniportrait(bench, row, networks(), "fast")
    yield "apasco", "APasco 512 x 512, 40 steps", lambda row: apasco(bench, row)
    yield "anitalker_render", "AniTalker 256 x 256, rendered", lambda row: anitalker_render(bench, row, 32)
    yield "gfpgan", "GFPGAN, float32, batch 8", lambda row: gfpgan(bench, row, torch.float32, 1 if bench.tiny else 8)
    yield "anitalker_motion", "AniTalker's motion, 50 steps", lambda row: anitalker_motion(bench, row)
    yield "instant", "Instant's rendering on the device", lambda row: instant(bench, row)
    if not bench.tiny:
        yield "gfpgan_half", "GFPGAN, float16, batch 8", lambda row: gfpgan(bench, row, torch.float16, 8)
        yield (
            "aniportrait_compiled",
            "AniPortrait, compiled",
            lambda row: aniportrait(bench, row, networks(), "compiled", count=False),
        )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.json and gpu.md")
    parser.add_argument("--minutes", type=float, default=8.0, help="no row is begun after them")
    parser.add_argument("--only", nargs="*", help="names of rows")
    parser.add_argument("--tiny", action="store_true", help="tiny networks on a CPU")
    options = parser.parse_args(arguments)
    bench = Bench(options)
    with torch.no_grad():
        ceilings(bench)
        for name, what, measurement in [*work(bench)]:
            if options.only and name not in options.only:
                continue
            row = Row(name, what)
            bench.rows.append(row)
            if time.monotonic() > bench.end:
                row.note = "left out: the time was up"
            else:
                try:
                    measurement(row)
                except Exception as error:
                    traceback.print_exc()
                    row.note = f"failed: {type(error).__name__}: {str(error)[:200]}"
            print(f"{row.what}: {row.rate:.2f} frames a second {row.note}", flush=True)
            bench.write()
        try:
            numbers(bench)
        except Exception:
            traceback.print_exc()
        bench.write()
    print((bench.out / "gpu.md").read_text())


if __name__ == "__main__":
    main()
