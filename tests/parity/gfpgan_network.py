"""GFPGAN's clean network, at the sizes of its goldens."""

from __future__ import annotations

import numpy as np
import torch
from talking_portrait.models.gfpgan import GFPGAN, GFPGANConfig, build_gfpgan

from .goldens import Golden, runner


def config_of(golden: Golden) -> GFPGANConfig:
    """The mapping network's depth (`num_mlp`) is left out: nothing uses that network."""
    given = golden.meta["config"]
    assert given["different_w"]
    assert given["sft_half"]
    assert given["input_is_latent"]
    size, narrow, wide = given["out_size"], given["narrow"], given["channel_multiplier"]
    sides = [size // 2**i for i in range(size.bit_length() - 2)]
    base = {side: 512 if side <= 32 else 16384 // side * wide for side in sides}
    return GFPGANConfig(
        unet=tuple(int(base[side] * (narrow * 0.5)) for side in sides),
        decoder=tuple(int(base[side] * narrow) for side in sides),
        style=given["num_style_feat"],
    )


def input_of(golden: Golden, size: int) -> torch.Tensor:
    """The faces as stored, and otherwise drawn by the golden's recipe; both must agree where both are there."""
    stored = golden.tensor("in.x") if "in.x" in golden else None
    if stored is not None and "weights.unit" not in golden.meta.get("input", ""):
        return stored
    rule = golden.matched(
        "input",
        r'in\.x = clip\((\S+) \* weights\.unit\(seed, "([^"]+)", [^)]*\)\.reshape\((\d+),3,S,S\), (\S+), (\S+)\)',
    )
    scale, name, batch, low, high = rule.groups()
    shape = (int(batch), 3, size, size)
    drawn = float(scale) * golden.weights.unit(golden.meta["seed"], name, np.prod(shape)).reshape(shape)
    x = torch.from_numpy(np.clip(drawn, float(low), float(high)).astype(np.float32))
    golden.compare("in.x", golden.thinned("in.x", x), atol=1e-7)
    return stored if stored is not None and stored.shape == x.shape else x


@runner("gfpgan", "gfpgan")
def restored(golden: Golden) -> None:
    config, seed = config_of(golden), golden.meta["seed"]
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in GFPGAN(config).state_dict().items()}
    state = {
        name: torch.from_numpy(np.asarray(golden.weights.tensor(seed, name, shape))) for name, shape in shapes.items()
    }
    network = build_gfpgan(state, path=golden.path)
    assert network.config == config
    result = network(input_of(golden, config.size))
    relative = golden.meta["tolerance_relative"]
    for name in golden.tensors:
        if name.startswith("out.y"):
            # "Relative" is to the picture's range: single pixels pass through zero.
            allowed = relative * float(golden.tensors[name].abs().max())
            golden.compare(name, golden.thinned(name, result), atol=allowed)
    golden.compare("out.mean", torch.stack([result.mean(), result.std()]), rtol=relative, atol=relative)
