"""How far each system's networks on a graphics card are from the CPU, in each precision, on the same weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from .gpu_rows import drawn, fill

if TYPE_CHECKING:
    from .gpu import Bench

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CHANNELS = (64, 64, 128, 128)
Run = Callable[[Any, Callable[[torch.Tensor], torch.Tensor]], torch.Tensor]
"""Network, and what puts a tensor where and into the precision in which the network is."""


@torch.no_grad()
def numbers(bench: Bench) -> None:
    """Fills `bench.errors`: relative errors of small networks against the CPU in float32."""
    for name, (network, run) in cases().items():
        want = run(network, lambda tensor: tensor).double()
        bench.errors[name] = {}
        for precision, dtype in PRECISIONS.items():
            network.to(bench.device, dtype)
            got = run(network, lambda tensor, dtype=dtype: tensor.to(bench.device, dtype)).double().cpu()
            bench.errors[name][precision] = float((got - want).norm() / want.norm())
            network.to("cpu", torch.float32)


def cases() -> dict[str, tuple[Any, Run]]:
    from ..tiny_weights import gfpgan

    return {
        "AniPortrait, 1/5 of its width": (aniportrait(), lambda network, put: network(*unet_inputs(put))),
        "APasco, 1/5 of its width": (apasco(), run_apasco),
        "AniTalker's renderer, 32 x 32": (anitalker(), run_anitalker),
        "GFPGAN, 128 x 128": (
            gfpgan.gfpgan(),
            lambda network, put: network(put(drawn((1, 3, network.config.size, network.config.size), 6).tanh())),
        ),
    }


def unet_inputs(put: Callable[[torch.Tensor], torch.Tensor]) -> tuple[torch.Tensor, int, torch.Tensor]:
    return put(drawn((2, 4, 8, 16, 16), 4)), 500, put(drawn((2, 1, 64), 5))


def aniportrait() -> torch.nn.Module:
    from talking_portrait.models.diffusion.unet import UNet, UNetConfig

    with torch.device("meta"):
        unet = UNet(UNetConfig(context=64, channels=CHANNELS, motion_frames=32))
    return fill(unet, torch.device("cpu"), torch.float32)


def apasco() -> torch.nn.Module:
    from talking_portrait.models.diffusion.unet import UNet, UNetConfig

    with torch.device("meta"):
        unet = UNet(UNetConfig(context=64, channels=CHANNELS, motion_frames=32, audio=48))
    return fill(unet, torch.device("cpu"), torch.float32)


def run_apasco(network: Any, put: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    masks = [put(drawn((3, 1, 16 >> level, 16 >> level), 8).sigmoid()) for level in range(len(CHANNELS))]
    speech = network.project_audio(put(drawn((16, 4, 48), 7)), masks)
    return network(*unet_inputs(put), speech=speech)


def anitalker() -> torch.nn.Module:
    from talking_portrait.models.anitalker.stage1 import Stage1

    from ..tiny_weights import anitalker as tiny

    module = Stage1(tiny.ENCODER, tiny.RENDERER)
    module.load_state_dict(tiny.filled(module.state_dict(), 0))
    return module.eval().requires_grad_(False)


def run_anitalker(network: Any, put: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    encoded = network.enc(put(drawn((1, 3, network.size, network.size), 9).tanh()))
    return network.dec(network.dec.prepare(encoded), put(0.5 * drawn((4, 20), 10)))
