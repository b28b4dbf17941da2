"""Reads the acoustic encoder out of Whisper tiny.en's `model.bin`, the container of faster-whisper (CTranslate2)."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch

from .acoustic_encoder import BLOCKS, AcousticEncoder, restored_weights, stored_weights

_KIND = "WhisperSpec"
_TYPES = ("<f4", "i1", "<i2", "<i4", "<f2")


def read_published_encoder(path: Path) -> AcousticEncoder:
    """Raises OSError, LookupError, ValueError, RuntimeError or struct.error for what is not Whisper tiny.en."""
    return _encoder(_tensors(path.read_bytes()))


def _tensors(data: bytes) -> dict[str, torch.Tensor]:
    """The encoder's tensors by name: after a head, of each tensor name, shape, type, size and numbers."""
    place = 0

    def read(layout: str) -> int:
        nonlocal place
        (value,) = struct.unpack_from("<" + layout, data, place)
        place += struct.calcsize("<" + layout)
        return int(value)

    def text() -> str:
        nonlocal place
        length = read("H")
        place += length
        return data[place - length : place].rstrip(b"\0").decode()

    read("I")
    if text() != _KIND:
        raise ValueError("it does not begin as one")
    read("I")
    tensors = {}
    for _ in range(read("I")):
        name, shape = text(), [read("I") for _ in range(read("B"))]
        kind, size = _TYPES[read("B")], read("I")
        if name.startswith("encoder/"):
            numbers = np.frombuffer(data, kind, size // np.dtype(kind).itemsize, place)
            tensors[name.removeprefix("encoder/")] = torch.from_numpy(numbers.astype(np.float32)).view(shape)
        place += size
    return tensors


def _encoder(tensors: dict[str, torch.Tensor]) -> AcousticEncoder:
    weights = {}
    for own, name in (("stem", "conv1"), ("halve", "conv2")):
        for end in ("weight", "bias"):
            weights[f"{own}.{end}"] = tensors[f"{name}/{end}"]
    for block in range(BLOCKS):
        for own, name in (("attention_norm", "self_attention/layer_norm"), ("norm", "ffn/layer_norm")):
            for end, theirs in (("weight", "gamma"), ("bias", "beta")):
                weights[f"blocks.{block}.{own}.{end}"] = tensors[f"layer_{block}/{name}/{theirs}"]
        for own, name in (
            ("queries_keys_values", "self_attention/linear_0"), ("mix", "self_attention/linear_1"),
            ("wider", "ffn/linear_0"), ("narrower", "ffn/linear_1"),
        ):  # fmt: skip
            for end in ("weight", "bias"):
                weights[f"blocks.{block}.{own}.{end}"] = tensors[f"layer_{block}/{name}/{end}"]
    encoder = AcousticEncoder(BLOCKS)
    encoder.load_state_dict(weights)
    encoder.load_state_dict(restored_weights(stored_weights(encoder)))  # what is trained with it knows its rounding
    return encoder.eval()
