"""GFPGAN's clean network, at the sizes of its goldens."""

from __future__ import annotations

import numpy as np
import torch
from talking_portrait.models.gfpgan import GFPGAN, GFPGANConfig, build_gfpgan

from .goldens import Golden, runner


def config_of(golden: Golden) -> GFPGANConfig:
    given = golden.meta["config"]
    assert given["different_w"]
    assert given["sft_half"]
    assert given["input_is_latent"]
    assert given["num_mlp"] == 8
    size, narrow, wide = given["out_size"], given["narrow"], given["channel_multiplier"]
    sides = [size // 2**i for i in range(size.bit_length() - 2)]
    base = {side: 512 if side <= 32 else 16384 // side * wide for side in sides}
    return GFPGANConfig(
        unet=tuple(int(base[side] * narrow / 2) for side in sides),
        decoder=tuple(int(base[side] * narrow) for side in sides),
        style=given["num_style_feat"],
    )


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
    size, rtol = config.size, golden.meta["tolerance_relative"]
    x = np.clip(0.5 * golden.weights.unit(seed, "in.x", 3 * size**2).reshape(1, 3, size, size), -1, 1)
    golden.compare("in.x", x.astype(np.float32), atol=1e-7)
    result = network(golden.tensor("in.x"))
    # "Relative" is to the picture's range: single pixels pass through zero.
    scale = float(golden.tensor("out.y").abs().max())
    golden.compare("out.y", result, atol=rtol * scale)
    golden.compare("out.mean", torch.stack([result.mean(), result.std()]), rtol=rtol, atol=rtol)
