"""The rows of the graphics card benchmark: each system's networks with random weights, and what is run of them."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch

from .aniportrait import VARIANTS, Embedding, NoCodec, drawings, portrait, random_weight
from .apasco import VARIANTS as APASCO_VARIANTS
from .apasco import embedding, states

if TYPE_CHECKING:
    from .gpu import Bench, Row

# --- networks ---


def fill(module: torch.nn.Module, device: torch.device, dtype: torch.dtype, seed: int = 0) -> torch.nn.Module:
    """Random weights for a module on meta."""
    generator = torch.Generator(device).manual_seed(seed)
    module.to_empty(device=device).to(dtype)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            tensor.copy_(random_weight(name, tensor, generator))
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


def aniportrait(bench: Bench, row: Row, variant: str, *, count: bool = True) -> None:
    from talking_portrait.pipelines.aniportrait.animate import animate
    from talking_portrait.pipelines.aniportrait.settings import Settings

    size, row.frames = (64, 16) if bench.tiny else (512, 48)
    changes = {"steps": 2 if bench.tiny else 25} | VARIANTS[variant]
    if bench.tiny:
        changes["steps"] = 2
    if "scheduler" in changes and not have("diffusers"):
        changes["scheduler"] = "ddim"
        row.note = f"DDIM in place of {VARIANTS[variant]['scheduler']}, which needs diffusers: as many network calls"
    settings, networks = Settings(size=(size, size), **changes), aniportrait_networks(bench)
    picture, drawn = portrait(size), drawings(row.frames, size)

    def run() -> None:
        for _ in animate(networks, NoCodec(), Embedding(), picture, drawn, settings):
            pass

    bench.measure(row, run, count=count)


class SquareMasks:
    """`RegionMasks` of a face that is a square: neither OpenCV nor Pillow is needed to soften and resize it."""

    def __init__(self, size: int) -> None:
        self.image_size = (size, size)

    def located(self, size: tuple[int, int]) -> torch.Tensor:
        return _square(size, 4).expand(3, 1, *size)[None]

    def levels(self, size: tuple[int, int], count: int = 4) -> list[torch.Tensor]:
        sizes = [(-(-size[0] // 2**level), -(-size[1] // 2**level)) for level in range(count)]
        return [torch.stack([1 - _square(at, 4), _square(at, 4), _square(at, 3)])[:, None] for at in sizes]


def _square(size: tuple[int, int], margin: int) -> torch.Tensor:
    """(height, width), 1 but for a `margin`-th of the size at each edge."""
    height, width = size
    mask = torch.zeros(size)
    mask[height // margin : height - height // margin, width // margin : width - width // margin] = 1
    return mask


def apasco(bench: Bench, row: Row, variant: str, *, count: bool = True) -> None:
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
    inputs = Inputs(portrait(arguments.size), embedding(), SquareMasks(arguments.size), speech)
    settings = Settings(
        size=(arguments.size, arguments.size),
        clip=arguments.frames,
        steps=2 if bench.tiny else 40,
        seed=42,
        **APASCO_VARIANTS[variant],
    )
    row.frames = arguments.frames * arguments.clips

    def run() -> None:
        for _ in animate(held, NoCodec(), inputs, settings):
            pass

    bench.measure(row, run, count=count)


def anitalker_stage1(bench: Bench) -> Any:
    from talking_portrait.models.anitalker.stage1 import Stage1
    from talking_portrait.pipelines.memory import Resident

    from ..tiny_weights import anitalker as tiny

    with torch.device("meta"):
        empty = Stage1(tiny.ENCODER, tiny.RENDERER) if bench.tiny else Stage1()
    module = empty.to_empty(device="cpu")
    module.load_state_dict(tiny.filled(module.state_dict(), 0))
    return Resident(module.eval().requires_grad_(False), bench.device)


def anitalker_frames(bench: Bench, frames: int, batch: int) -> Callable[[], Iterator[torch.Tensor]]:
    """A run of AniTalker's renderer: pictures (n, 256, 256, 3)."""
    from talking_portrait.pipelines.anitalker.animate import prepare_portrait
    from talking_portrait.pipelines.anitalker.rendering import render
    from talking_portrait.pipelines.types import MotionLatents

    stage1 = anitalker_stage1(bench)
    codes = torch.randn(frames, 20, generator=torch.Generator().manual_seed(1)) * 0.5
    face = prepare_portrait(stage1, portrait(stage1.module.size))
    motion = MotionLatents(codes, Fraction(25))
    return lambda: render(stage1, face, motion, batch=batch)


def anitalker_render(bench: Bench, row: Row, batch: int) -> None:
    row.precision, row.frames = "float32", 8 if bench.tiny else 320
    frames = anitalker_frames(bench, row.frames, batch)
    bench.measure(row, lambda: [*frames()])


def anitalker_restored(bench: Bench, row: Row, batch: int) -> None:
    """Each rendered frame passes GFPGAN at its size, as the published program has it; cut and paste are left out."""
    restorer = gfpgan_network(bench, bench.dtype)
    row.precision = f"float32, GFPGAN {str(bench.dtype).removeprefix('torch.')}"
    row.frames = 2 if bench.tiny else 160
    frames, side = anitalker_frames(bench, row.frames, batch), restorer.config.size

    def run() -> None:
        for pictures in frames():
            faces = pictures.to(bench.device, bench.dtype).permute(0, 3, 1, 2) * 2 - 1
            restorer(torch.nn.functional.interpolate(faces, size=side, mode="bilinear")).cpu()

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
    row.precision, row.frames = "float32", 10 if bench.tiny else 125
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(2 * row.frames, config.layers, config.features, generator=generator)
    speech = SpeechFeatures(features, Fraction(50), "hubert-large", "paired")
    code = torch.randn(1, config.motion, generator=generator) * 0.5
    face = Portrait(torch.randn(1, config.style, generator=generator) * 0.5, code, [])
    noise = seeded_noise(row.frames, config.motion, 0)
    steps = 2 if bench.tiny else 50
    bench.measure(row, lambda: generate_motion(stage2, speech, face, steps=steps, noise=noise))


def gfpgan_network(bench: Bench, dtype: torch.dtype) -> Any:
    from talking_portrait.models.gfpgan import GFPGAN

    from ..tiny_weights import gfpgan as tiny

    return (tiny.gfpgan() if bench.tiny else tiny.generated(GFPGAN())).to(bench.device, dtype)


def gfpgan(bench: Bench, row: Row, dtype: torch.dtype, batch: int) -> None:
    network = gfpgan_network(bench, dtype)
    row.precision, row.frames = str(dtype).removeprefix("torch."), batch
    faces = (torch.rand(batch, 3, network.config.size, network.config.size) * 2 - 1).to(bench.device, dtype)
    bench.measure(row, lambda: network(faces), runs=10)


def instant(bench: Bench, row: Row) -> None:
    from talking_portrait.pipelines.files.example import example_track
    from talking_portrait.pipelines.instant.driver.driver import drive
    from talking_portrait.pipelines.instant.renderer.renderer import InstantRenderer
    from talking_portrait.pipelines.types import Audio

    if not have("scipy"):
        row.note = "left out: scipy is missing"
        return
    # Noise for a voice and colours for a picture: neither PyAV nor Pillow is needed, and the work is the same.
    image = portrait(512)
    voice = drawn((1, 16_000 * (2 if bench.tiny else 16)), 7) * 0.1
    motion = drive(Audio(voice, 16_000), fps=Fraction(25), seed=0)
    row.precision, row.frames = "float32", motion.frames
    renderer = InstantRenderer(image, example_track(), device=bench.device)

    def run() -> None:
        for _ in renderer.frames_uint8(motion, batch=32):
            pass

    bench.measure(row, run, count=False)


def have(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True


def drawn(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- all rows ---


def work(bench: Bench) -> Iterator[tuple[str, str, Callable[[Row], None]]]:
    """(name, description, measurement), most wanted first."""
    from .gpu_person import audiodvp, syncanimation_march, syncanimation_step

    faces = 1 if bench.tiny else 8
    yield "aniportrait_exact", "AniPortrait 512 x 512, 25 steps", lambda row: aniportrait(bench, row, "exact")
    yield "aniportrait_fast", "AniPortrait, fast", lambda row: aniportrait(bench, row, "fast")
    yield "apasco", "APasco 512 x 512, 40 steps", lambda row: apasco(bench, row, "exact")
    yield (
        "apasco_fast",
        "APasco fast: 40 steps, deep layers every second, guidance in the first half",
        lambda row: apasco(bench, row, "fast"),
    )
    yield "anitalker_render", "AniTalker 256 x 256, rendered", lambda row: anitalker_render(bench, row, 32)
    yield (
        "anitalker_restored",
        "AniTalker, then GFPGAN 512 x 512",
        lambda row: anitalker_restored(bench, row, 4 * faces),
    )
    yield "gfpgan", "GFPGAN, 8 faces at once", lambda row: gfpgan(bench, row, torch.float32, faces)
    yield "anitalker_motion", "AniTalker's motion, 50 steps", lambda row: anitalker_motion(bench, row)
    yield "syncanimation_march", "SyncAnimation march 512", lambda row: syncanimation_march(bench, row)
    yield "syncanimation_step", "SyncAnimation train step", lambda row: syncanimation_step(bench, row)
    yield "audiodvp", "AudioDVP drive 256 (rasteriser + U-Net)", lambda row: audiodvp(bench, row)
    yield "instant", "Instant's rendering on the device", lambda row: instant(bench, row)
    if not bench.tiny:
        yield "gfpgan_half", "GFPGAN, 8 faces at once", lambda row: gfpgan(bench, row, torch.float16, faces)
        yield (
            "aniportrait_compiled",
            "AniPortrait 512 x 512, 25 steps, compiled",
            lambda row: aniportrait(bench, row, "compiled", count=False),
        )
        yield (
            "apasco_compiled",
            "APasco 512 x 512, 40 steps, compiled",
            lambda row: apasco(bench, row, "compiled", count=False),
        )
