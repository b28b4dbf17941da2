"""faster-whisper's container of weights as the acoustic encoder of the mouth network."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from talking_portrait.models.speech.acoustic_encoder import BLOCKS, AcousticEncoder
from talking_portrait.models.speech.mouth_network import MouthConfig, MouthNetwork, add_acoustic_logits
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.training.instant.mouth import published_encoder, with_acoustic_encoder

LAYERS = {
    "attention_norm.weight": "self_attention/layer_norm/gamma", "attention_norm.bias": "self_attention/layer_norm/beta",
    "norm.weight": "ffn/layer_norm/gamma", "norm.bias": "ffn/layer_norm/beta",
    "queries_keys_values": "self_attention/linear_0", "mix": "self_attention/linear_1",
    "wider": "ffn/linear_0", "narrower": "ffn/linear_1",
}  # fmt: skip


def published(encoder: AcousticEncoder) -> dict[str, np.ndarray]:
    """The encoder's weights under the names of the published file, among others."""
    tensors = {"decoder/scale": np.zeros(3), "encoder/layer_3/ffn/linear_0/bias": np.zeros(5)}
    for name, value in encoder.state_dict().items():
        *block, layer, end = name.split(".")
        own = f"layer_{block[1]}/" if block else ""
        theirs = LAYERS.get(f"{layer}.{end}") or f"{LAYERS.get(layer, {'stem': 'conv1'}.get(layer, 'conv2'))}/{end}"
        tensors[f"encoder/{own}{theirs}"] = value.numpy()
    return tensors


def container(tensors: dict[str, np.ndarray]) -> bytes:
    """A version, the kind of network, its revision, the number of tensors, and each of them in half precision."""

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    data = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(tensors))
    for name, tensor in tensors.items():
        numbers = np.ascontiguousarray(tensor, "<f2").tobytes()
        data += text(name) + struct.pack(f"<B{tensor.ndim}I", tensor.ndim, *tensor.shape)
        data += struct.pack("<BI", 4, len(numbers)) + numbers
    return data


def test_the_published_layout_is_read(tmp_path: Path):
    torch.manual_seed(0)
    encoder = AcousticEncoder(BLOCKS).eval()
    path = tmp_path / "model.bin"
    path.write_bytes(container(published(encoder)))
    again = published_encoder(path)
    bands = torch.randn(1, 60, 80)
    torch.testing.assert_close(again(bands), encoder(bands), atol=0.15, rtol=0)  # weights of eight bits
    assert (again(bands) - encoder(bands)).abs().mean() < 0.02
    network = with_acoustic_encoder(MouthNetwork(MouthConfig(channels=16, dilations=(1,))).eval(), again)
    mel = torch.randn(1, 60, 40)
    plain, _ = network(mel)
    added = network.acoustic_head(network.acoustic_encoder(bands))
    torch.testing.assert_close(add_acoustic_logits(plain, added), plain)  # not yet learned


@pytest.mark.parametrize(
    "content", [b"", b"RIFF", container({"a": np.zeros(3)}), container({"encoder/conv1/weight": np.zeros(3)})[:-2]]
)
def test_what_is_no_such_recogniser_is_said_in_a_sentence(tmp_path: Path, content: bytes):
    path = tmp_path / "other.bin"
    path.write_bytes(content)
    with pytest.raises(TalkingPortraitError, match=r"other\.bin is not the .* Whisper tiny\.en .*on PyPI"):
        published_encoder(path)
    with pytest.raises(TalkingPortraitError, match="is not the speech recogniser"):
        published_encoder(tmp_path / "missing.bin")
