"""The files of APasco and Hallo as small random ones: published names, layout and structure, with fewer channels.

    python tests/tiny_weights/apasco.py FOLDER     # a folder of models for --models or TALKING_PORTRAIT_MODELS

Videos made with them are noise, but every step on the way is the real one.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from talking_portrait.models.apasco.mesh_encoder import nearest_vertices, thinned_vertices
from talking_portrait.models.apasco.networks import Networks, NetworksConfig
from talking_portrait.models.diffusion.motion_module import sinusoidal_table
from talking_portrait.models.diffusion.unet import UNetConfig

LAYERS, CHANNELS = 2, 64
"""Of the speech encoder."""
UNET = UNetConfig(channels=(32, 64, 64, 64), layers=1, context=48, output=False)
CONFIG = NetworksConfig(
    reference_unet=UNET,
    denoising_unet=replace(UNET, output=True, motion_frames=32, audio=40),
    audio_inputs=5 * LAYERS * CHANNELS,
    audio_inner=16,
    audio_tokens=8,
)
NET, DETECTOR, RECOGNISER = "hallo/net.pth", "insightface/scrfd_10g_bnkps.onnx", "insightface/glintr100.onnx"
SIDE = 640


def net_state(config: NetworksConfig = CONFIG, seed: int = 0) -> dict[str, torch.Tensor]:
    """What net.pth holds, in numbers scaled so that all outputs vary. Its tensors are shared; change none in place."""
    return dict(_net_state(config, seed))


@cache
def _net_state(config: NetworksConfig, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.from_numpy(thinned_vertices())

    def value(name: str, like: torch.Tensor) -> torch.Tensor:
        if name.endswith(".pos_encoder.pe"):
            return sinusoidal_table(*like.shape[1:])
        if name.endswith("vertex_ids"):
            return chosen
        if name.endswith("neighbors"):
            return torch.from_numpy(nearest_vertices(chosen.numpy()))
        noise = torch.randn(like.shape, generator=generator)
        if like.ndim <= 1:
            return (1.0 if name.endswith("weight") or name.endswith("alpha") else 0.0) + 0.05 * noise
        return noise * like[0].numel() ** -0.5

    with torch.device("meta"):
        empty = Networks(config).state_dict()
    return {name: value(name, like) for name, like in empty.items()}


def write_net(models: Path, config: NetworksConfig = CONFIG, *, seed: int = 0) -> Path:
    """hallo/net.pth."""
    path = models / "talking_portrait" / NET
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(net_state(config, seed), path)
    return path


def write_speech_encoder(models: Path, *, layers: int = LAYERS, seed: int = 0) -> Path:
    """wav2vec2-base-960h.safetensors."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    path = models / "audio_encoders" / "wav2vec2-base-960h.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    config = Wav2Vec2Config(
        hidden_size=CHANNELS,
        num_hidden_layers=layers,
        num_attention_heads=1,
        intermediate_size=32,
        conv_dim=[16] * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        save_file(Wav2Vec2Model(config).state_dict(), path)
    return path


def write_insightface(models: Path, *, seed: int = 0) -> tuple[Path, Path]:
    """A detector that finds one face in the middle of every picture that is not black, and a recogniser of colours."""
    import onnx

    folder = models / "talking_portrait"
    (folder / "insightface").mkdir(parents=True, exist_ok=True)
    onnx.save(_detector(), str(folder / DETECTOR))
    onnx.save(_recogniser(np.random.default_rng(seed)), str(folder / RECOGNISER))
    return folder / DETECTOR, folder / RECOGNISER


def _detector() -> Any:
    from onnx import TensorProto, helper

    nodes = [helper.make_node("ReduceMax", ["picture"], ["brightest"], keepdims=0)]
    constants, outputs = [], []

    def constant(name: str, values: np.ndarray) -> str:
        kind = TensorProto.INT64 if values.dtype == np.int64 else TensorProto.FLOAT
        constants.append(helper.make_tensor(name, kind, values.shape, values.flatten().tolist()))
        return name

    one = constant("one", np.ones(1, dtype=np.int64))
    nodes.append(helper.make_node("Reshape", ["brightest", one], ["score"]))
    for kind, width in (("score", 1), ("box", 4), ("points", 10)):
        for stride in (8, 16, 32):
            cells = SIDE // stride
            count, name = 2 * cells * cells, f"{kind}_{stride}"
            shape = constant(f"shape_{name}", np.array([count, width], dtype=np.int64))
            if kind == "score":
                # One anchor of the coarsest level, in the middle of the picture.
                middle = np.array([[2 * (cells // 2 * cells + cells // 2), 0]], dtype=np.int64)
                zeros = f"zeros_{name}"
                nodes.append(
                    helper.make_node("Expand", [constant(f"zero_{name}", np.zeros(1, np.float32)), shape], [zeros])
                )
                if stride == 32:
                    nodes.append(helper.make_node("ScatterND", [zeros, constant("middle", middle), "score"], [name]))
                else:
                    nodes.append(helper.make_node("Identity", [zeros], [name]))
            else:
                values = [3.0] * 4 if kind == "box" else [-1.0, -1.0, 1.0, -1.0, 0.0, 0.0, -1.0, 1.0, 1.0, 1.0]
                own = constant(f"own_{name}", np.array([values], dtype=np.float32))
                nodes.append(helper.make_node("Expand", [own, shape], [name]))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [count, width]))
    picture = helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    return _model(nodes, picture, outputs, constants)


def _recogniser(random: np.random.Generator) -> Any:
    from onnx import TensorProto, helper

    matrix = random.standard_normal((3, 512)).astype(np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["picture"], ["colour"]),
        helper.make_node("Flatten", ["colour"], ["row"]),
        helper.make_node("MatMul", ["row", "matrix"], ["embedding"]),
    ]
    picture = helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 3, 112, 112])
    embedding = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, 512])
    weights = helper.make_tensor("matrix", TensorProto.FLOAT, matrix.shape, matrix.flatten().tolist())
    return _model(nodes, picture, [embedding], [weights])


def _model(nodes: list[Any], picture: Any, outputs: list[Any], constants: list[Any]) -> Any:
    from onnx import helper

    graph = helper.make_graph(nodes, "tiny", [picture], outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_all(models: Path) -> None:
    """Everything that APasco's example workflows load, but the landmark model."""
    try:
        from .aniportrait import write_vae
    except ImportError:  # run as a script
        from aniportrait import write_vae  # type: ignore[import-not-found,no-redef]

    write_net(models)
    write_speech_encoder(models)
    write_insightface(models)
    write_vae(models)


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
