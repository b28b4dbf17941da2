"""hama's container of weights as the acoustic encoder of the mouth network."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from talking_portrait.models.speech.acoustic_encoder import AcousticEncoder
from talking_portrait.models.speech.mouth_network import MouthConfig, MouthNetwork, add_acoustic_logits
from talking_portrait.models.speech.published_recogniser import BLOCKS
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.training.instant.mouth import published_encoder, with_acoustic_encoder

LAYERS = {
    "ffn1.norm": "first.norm", "attn_norm": "attention.norm", "conv.norm": "convolution.norm",
    "conv.pointwise1": "convolution.gated", "conv.pointwise2": "convolution.mix", "ffn2.norm": "last.norm",
    "norm": "norm",
}  # fmt: skip
MATRICES = {
    "first.wider": ("ffn1.fc1.bias", 0), "first.narrower": ("ffn1.fc2.bias", 1),
    "attention.queries_keys_values": ("attn.in_proj_bias", 2), "attention.mix": ("attn.out_proj.bias", 6),
    "last.wider": ("ffn2.fc1.bias", 7), "last.narrower": ("ffn2.fc2.bias", 8),
}  # fmt: skip


def published(encoder: AcousticEncoder) -> dict[str, np.ndarray]:
    """The encoder's weights under the names and in the layouts of the published file."""
    own = {name: value.numpy() for name, value in encoder.state_dict().items()}
    tensors = {"onnx::Conv_801": own["stem.weight"], "onnx::Conv_802": own["stem.bias"]}
    for block in range(BLOCKS):
        theirs, ours = f"acoustic_model.model.blocks.{block}.", f"blocks.{block}."
        for name, layer in LAYERS.items():
            weight = own[f"{ours}{layer}.weight"]
            tensors[f"{theirs}{name}.weight"] = weight[..., None] if "pointwise" in name else weight
            tensors[f"{theirs}{name}.bias"] = own[f"{ours}{layer}.bias"]
        for layer, (bias, number) in MATRICES.items():
            tensors[f"onnx::MatMul_{829 + 9 * block + number}"] = own[f"{ours}{layer}.weight"].T
            tensors[theirs + bias] = own[f"{ours}{layer}.bias"]
        tensors[f"onnx::Conv_{804 + 3 * block}"] = own[f"{ours}convolution.along.weight"]
        tensors[f"onnx::Conv_{805 + 3 * block}"] = own[f"{ours}convolution.along.bias"]
    return tensors


def container(tensors: dict[str, np.ndarray]) -> bytes:
    """HAMAPK, a version, the number of tensors, a table of them, the numbers in half precision."""
    table, numbers = b"", b""
    for name, tensor in tensors.items():
        data = np.ascontiguousarray(tensor, "<f2").tobytes()
        table += struct.pack("<H", len(name)) + name.encode() + struct.pack("<BB", 1, tensor.ndim)
        table += struct.pack(f"<{tensor.ndim}I", *tensor.shape) + struct.pack("<QQ", len(numbers), len(data))
        numbers += data
    return b"HAMAPK\x01\x02" + struct.pack("<I", len(tensors)) + table + numbers


def test_the_published_layout_is_read(tmp_path: Path):
    torch.manual_seed(0)
    encoder = AcousticEncoder(BLOCKS).eval()
    path = tmp_path / "asr_waveform.hama"
    path.write_bytes(container(published(encoder)))
    again = published_encoder(path).eval()
    bands = torch.randn(1, 60, 80)
    torch.testing.assert_close(again(bands), encoder(bands), atol=0.02, rtol=0.02)
    network = with_acoustic_encoder(MouthNetwork(MouthConfig(channels=16, dilations=(1,))).eval(), again)
    mel = torch.randn(1, 60, 40)
    plain, _ = network(mel)
    added = network.acoustic_head(network.acoustic_encoder(bands))
    torch.testing.assert_close(add_acoustic_logits(plain, added), plain)  # not yet learned


@pytest.mark.parametrize("content", [b"", b"RIFF", b"HAMAPK\x01\x02\x09\0\0\0", container({"a": np.zeros(3)})])
def test_what_is_no_such_recogniser_is_said_in_a_sentence(tmp_path: Path, content: bytes):
    path = tmp_path / "other.hama"
    path.write_bytes(content)
    with pytest.raises(TalkingPortraitError, match=r"other\.hama is not the .* of hama 1\.7 .*from PyPI"):
        published_encoder(path)
    with pytest.raises(TalkingPortraitError, match="is not the speech recogniser"):
        published_encoder(tmp_path / "missing.hama")
