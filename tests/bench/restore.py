"""How fast GFPGAN restores faces on this machine: python -m tests.bench.restore. Prints a table; asserts nothing.

Real size (512 x 512), generated weights. Where the `spandrel` package can be imported (ComfyUI's environment has it),
its implementation of the same network runs in turn with ours on the same weights and faces.
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Callable

import torch
from talking_portrait.models.gfpgan import GFPGAN
from torch.utils.flop_counter import FlopCounterMode

from ..tiny_weights.gfpgan import generated
from .aniportrait import measured

REFERENCE = "spandrel's"


def reference(state: dict[str, torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor] | None:
    try:
        from spandrel.architectures import GFPGAN as spandrel_gfpgan  # noqa: N811 (a module)
    except ImportError:
        return None
    network = spandrel_gfpgan.GFPGAN(
        out_size=512,
        num_style_feat=512,
        channel_multiplier=2,
        decoder_load_path=None,
        fix_decoder=False,
        num_mlp=8,
        input_is_latent=True,
        different_w=True,
        narrow=1,
        sft_half=True,
    )
    network.load_state_dict(state)
    network = network.eval().requires_grad_(False).to(next(iter(state.values())))
    return lambda faces: network(faces, return_rgb=False, randomize_noise=False)[0]


@torch.no_grad()
def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--batch", type=int, default=1)
    chosen = options.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ours = generated(GFPGAN()).to(device)
    faces = (torch.rand(chosen.batch, 3, 512, 512) * 2 - 1).to(device)
    with FlopCounterMode(display=False) as counter:
        ours(faces)
    print(f"{device}, {torch.get_num_threads()} threads, batch {chosen.batch}")
    print(f"one face: {counter.get_total_flops() / chosen.batch / 1e9:.0f} GFLOP")
    implementations: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"ours": ours}
    published = reference(ours.state_dict())
    if published is not None:
        implementations[REFERENCE] = published
        difference = (published(faces) - ours(faces)).abs().max() / published(faces).abs().max()
        print(f"largest difference from spandrel's, over the largest value: {difference:.1e}")
    times: dict[str, list[float]] = {name: [] for name in implementations}
    for _ in range(chosen.runs):
        for name, network in implementations.items():
            times[name].append(measured(device, functools.partial(network, faces), elapsed=True)[0])
    for name, seconds in times.items():
        print(f"{name}: {statistics.median(seconds) / chosen.batch:.3f} s a face (median of {chosen.runs})")
    if published is not None:
        print(f"ratio: {statistics.median(times[REFERENCE]) / statistics.median(times['ours']):.2f}")


if __name__ == "__main__":
    main()
