"""Reads the acoustic encoder out of hama's published speech recogniser (`asr_waveform.hama` of hama 1.7 on PyPI)."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch

from .acoustic_encoder import AcousticEncoder

BLOCKS = 2
"""Of its four; the second one's states predict lips best, by leaving speakers out."""
_MAGIC = b"HAMAPK"
_TYPES = ("<f4", "<f2")
_FIRST_MATRIX, _MATRICES = 829, 9
"""Its exporter numbers the matrices; each block's begin this far on."""
_FIRST_FILTER, _FILTERS = 804, 3


def read_published_encoder(path: Path) -> AcousticEncoder:
    """Raises OSError, LookupError, ValueError, RuntimeError or struct.error for what is not hama's recogniser."""
    return _encoder(_tensors(path.read_bytes()))


def _tensors(data: bytes) -> dict[str, torch.Tensor]:
    """The container's tensors by name: a table of name, type, shape and place, then the numbers, float32 or float16."""
    if data[:6] != _MAGIC:
        raise ValueError("it does not begin as one")
    (count,) = struct.unpack_from("<I", data, 8)
    place, table = 12, {}
    for _ in range(count):
        (length,) = struct.unpack_from("<H", data, place)
        name = data[place + 2 : place + 2 + length].decode()
        kind, dimensions = struct.unpack_from("<BB", data, place + 2 + length)
        shape = struct.unpack_from(f"<{dimensions}I", data, place + 4 + length)
        place += 4 + length + 4 * dimensions
        table[name] = (_TYPES[kind], shape, *struct.unpack_from("<QQ", data, place))
        place += 16
    start = len(data) - max(offset + size for *_, offset, size in table.values())
    return {
        name: torch.from_numpy(np.frombuffer(data, kind, int(np.prod(shape)), start + offset).astype(np.float32)).view(
            shape
        )
        for name, (kind, shape, offset, _) in table.items()
    }


def _encoder(tensors: dict[str, torch.Tensor]) -> AcousticEncoder:
    weights = {"stem.weight": tensors["onnx::Conv_801"], "stem.bias": tensors["onnx::Conv_802"]}
    for block in range(BLOCKS):
        theirs, ours = f"acoustic_model.model.blocks.{block}.", f"blocks.{block}."
        matrix, filters = _FIRST_MATRIX + _MATRICES * block, _FIRST_FILTER + _FILTERS * block
        for end in ("weight", "bias"):
            for own, name in (
                ("first.norm", "ffn1.norm"), ("attention.norm", "attn_norm"), ("convolution.norm", "conv.norm"),
                ("convolution.gated", "conv.pointwise1"), ("convolution.mix", "conv.pointwise2"),
                ("last.norm", "ffn2.norm"), ("norm", "norm"),
            ):  # fmt: skip
                weights[f"{ours}{own}.{end}"] = tensors[f"{theirs}{name}.{end}"]
        for own, name, number in (
            ("first.wider", "ffn1.fc1.bias", 0), ("first.narrower", "ffn1.fc2.bias", 1),
            ("attention.queries_keys_values", "attn.in_proj_bias", 2), ("attention.mix", "attn.out_proj.bias", 6),
            ("last.wider", "ffn2.fc1.bias", 7), ("last.narrower", "ffn2.fc2.bias", 8),
        ):  # fmt: skip
            weights[f"{ours}{own}.weight"] = tensors[f"onnx::MatMul_{matrix + number}"].T
            weights[f"{ours}{own}.bias"] = tensors[theirs + name]
        weights[f"{ours}convolution.along.weight"] = tensors[f"onnx::Conv_{filters}"]
        weights[f"{ours}convolution.along.bias"] = tensors[f"onnx::Conv_{filters + 1}"]
    encoder = AcousticEncoder(BLOCKS)
    # A convolution over one frame has the shape (out, in, 1).
    encoder.load_state_dict({name: weights[name].view_as(value) for name, value in encoder.state_dict().items()})
    return encoder
