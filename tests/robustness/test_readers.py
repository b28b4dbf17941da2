"""Files and values made to hang a reader, to fill memory or to pass unnoticed: one sentence each."""

from __future__ import annotations

import os
import pickle
import struct
import wave
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image
from talking_portrait.models.array_file import read_array, read_arrays
from talking_portrait.models.checkpoints import layer_count, read_checkpoint
from talking_portrait.models.face.face_mesh import BLENDSHAPES, VERTICES, face_mesh
from talking_portrait.models.speech.loading import load_speech_encoder
from talking_portrait.nodes.inputs import images_socket, mask_socket
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.face.landmarks import detect
from talking_portrait.pipelines.files import sound
from talking_portrait.pipelines.files.images import read_image
from talking_portrait.pipelines.files.motion_file import load_motion, save_motion
from talking_portrait.pipelines.motion.edit import join, limit
from talking_portrait.pipelines.timing import as_rate
from talking_portrait.pipelines.types import Camera, FaceMotion
from talking_portrait.pipelines.workflow.formats import to_prompt


def motion(**changes: Any) -> FaceMotion:
    neutral = face_mesh().vertices.astype(np.float32)
    still = FaceMotion(
        vertices=np.repeat(neutral[None], 3, axis=0),
        neutral=neutral,
        rotation=np.zeros((3, 3), np.float32),
        translation=np.zeros((3, 3), np.float32),
        fps=Fraction(25),
        blendshapes=np.zeros((3, len(BLENDSHAPES)), np.float32),
    )
    return replace(still, **changes)


def nested(depth: int, uses: int) -> dict[str, Any]:
    """A workflow of `depth` subgraphs in each other, each used `uses` times in the one around it."""

    def level(kind: str, count: int) -> list[dict[str, Any]]:
        return [{"id": number, "type": kind} for number in range(count)]

    graphs = [
        {"id": f"graph {number}", "nodes": level(f"graph {number + 1}", uses), "links": []} for number in range(depth)
    ]
    graphs.append({"id": f"graph {depth}", "nodes": [], "links": []})
    return {"nodes": level("graph 0", uses), "links": [], "definitions": {"subgraphs": graphs}}


@pytest.mark.parametrize("name", ["face.png", "face.eps"])
def test_a_picture_that_is_a_program_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """PostScript, which Pillow gives to Ghostscript."""
    Image.new("RGB", (64, 64), "red").save(tmp_path / name, "EPS")

    def run(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a program was run")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", run)
    with pytest.raises(TalkingPortraitError, match="it is a drawing or a document and no picture of pixels"):
        read_image(tmp_path / name)


def test_a_state_dict_that_contains_itself_ends(tmp_path: Path) -> None:
    state: dict[str, Any] = {}
    state["state_dict"] = state
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(TalkingPortraitError, match="holds no named tensors"):
        read_checkpoint(tmp_path / "a.pth")


def test_an_archive_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}))
        archive.writestr("a/data/0", bytes(48 * 1024**2))
    with pytest.raises(TalkingPortraitError, match="would unpack to"):
        read_checkpoint(tmp_path / "a.pth")


def test_a_pickle_of_endless_steps_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"\x80\x02" + b"N0" * 2_000_000 + b"N.")
    with pytest.raises(TalkingPortraitError, match="more than 3000000 steps"):
        read_checkpoint(tmp_path / "a.pth")


def test_a_tensor_larger_than_what_is_stored_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1).expand(10**12)}, tmp_path / "a.pth")
    with pytest.raises(TalkingPortraitError, match="but only 4 bytes"):
        read_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "header",
    [b"{}", b"[" * 5000, b'{"a":{"dtype":"F32","shape":[1],"data_offsets":["x","y"]}}',
     b'{"a":{"dtype":"F32","shape":[9999999999,9999999999],"data_offsets":[0,4]}}', b'{"a":7}'],
)  # fmt: skip
def test_absurd_safetensors_headers_are_refused(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(TalkingPortraitError):
        read_checkpoint(tmp_path / "a.safetensors")


def test_layers_are_counted_and_not_numbered() -> None:
    state = {f"layers.{number}.weight": torch.zeros(1) for number in (0, 1, 100_000_000)}
    with pytest.raises(TalkingPortraitError, match="without a gap"):
        layer_count(state, "layers.")
    del state["layers.100000000.weight"]
    assert layer_count(state, "layers.") == 2


@pytest.mark.parametrize("shape", [(), (0,)])
def test_weights_without_numbers_or_dimensions_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    names = (
        "feature_extractor.conv_layers.0.conv",
        "feature_projection.projection",
        "encoder.layers.0.attention.k_proj",
    )
    torch.save({f"{name}.weight": torch.zeros(shape) for name in names}, tmp_path / "a.bin")
    with pytest.raises(TalkingPortraitError, match="which no network has"):
        load_speech_encoder(tmp_path / "a.bin")


@pytest.mark.parametrize(
    ("depth", "uses", "reason"), [(9, 10, "more than 20000 nodes"), (1000, 1, "more than 32 deep")]
)
def test_subgraphs_that_unfold_without_end_are_refused(depth: int, uses: int, reason: str) -> None:
    with pytest.raises(TalkingPortraitError, match=reason):
        to_prompt(nested(depth, uses), {})
    assert to_prompt(nested(3, 4), {}) == {}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "type", "inputs"]), inner),
    max_leaves=8,
)


@settings(max_examples=60)
@given(st.lists(json_values, max_size=4), st.lists(json_values, max_size=4))
def test_any_json_is_a_workflow_or_one_sentence(nodes: list[Any], links: list[Any]) -> None:
    with suppress(TalkingPortraitError):
        assert isinstance(to_prompt({"nodes": nodes, "links": links}, {}), dict)


@pytest.mark.parametrize("name", ["vertices", "neutral", "rotation", "translation", "blendshapes"])
def test_a_motion_of_numbers_that_no_face_has_is_refused(tmp_path: Path, name: str) -> None:
    save_motion(tmp_path / "a.npz", motion(**{name: np.full_like(getattr(motion(), name), 1e30)}))
    with pytest.raises(TalkingPortraitError, match=f"holds {name} of 1e\\+30, but at most"):
        load_motion(tmp_path / "a.npz")


def test_a_motion_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", vertices=np.zeros((20_000, VERTICES, 3), np.float32))
    with pytest.raises(TalkingPortraitError, match="can't be read as a face motion"):
        load_motion(tmp_path / "a.npz")


@settings(max_examples=30)
@given(st.integers(0, 10**9), st.integers(0, 255))
def test_a_motion_file_with_any_byte_changed_is_read_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int
) -> None:
    path = tmp_path_factory.mktemp("motion") / "a.npz"
    save_motion(path, motion())
    content = bytearray(path.read_bytes())
    content[place % len(content)] = value
    path.write_bytes(content)
    with suppress(TalkingPortraitError):
        assert load_motion(path).frames == 3


def _huge(path: Path) -> None:
    head = "{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000,), }".ljust(117) + "\n"
    content = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode()
    if path.suffix == ".npy":
        path.write_bytes(content)
        return
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", content)


def _marked(places: tuple[int, int], value: int) -> Callable[[Path], None]:
    """An archive whose flags or method are another's, in the entry and in the list."""

    def make(path: Path) -> None:
        np.savez(path, a=np.zeros(3))
        content = bytearray(path.read_bytes())
        content[places[0]] = content[content.find(b"PK\x01\x02") + places[1]] = value
        path.write_bytes(content)

    return make


def _deflated(path: Path) -> None:
    np.savez_compressed(path, a=np.arange(10_000))
    content = bytearray(path.read_bytes())
    content[100:2000:50] = bytes(len(content[100:2000:50]))
    path.write_bytes(content)


def _bomb(path: Path) -> None:
    np.savez_compressed(path, a=np.zeros(70 * 2**20, np.uint8))


@pytest.mark.parametrize(
    "make",
    [
        *(_huge, _marked((6, 8), 1), _marked((8, 10), 99), _deflated, _bomb),
        *(lambda path: np.savez(path, a=np.array([{}])), lambda path: np.savez(path, a=np.zeros(2, complex))),
        *(lambda path: path.write_bytes(b"PK\3\4xxxx"), lambda path: path.write_bytes(b""), lambda path: path.mkdir()),
        pytest.param(lambda path: os.mkfifo(path), marks=pytest.mark.skipif(os.name != "posix", reason="has no pipes")),
    ],
)
def test_arrays_that_can_not_be_are_refused_at_once(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "a.npz")
    with pytest.raises(ValueError):
        read_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "make",
    [
        *(_huge, lambda path: path.write_bytes(b"PK\3\4xxxx"), lambda path: path.write_bytes(pickle.dumps([1]))),
        *(lambda path: np.save(path, np.array([{}])), lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\xff\xff(((")),
        pytest.param(lambda path: os.mkfifo(path), marks=pytest.mark.skipif(os.name != "posix", reason="has no pipes")),
    ],
)
def test_an_array_that_can_not_be_is_refused_at_once(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "a.npy")
    with pytest.raises(ValueError):
        read_array(tmp_path / "a.npy")


@pytest.mark.parametrize("rate", ["1e999999999", "-1e999999999", "1E-999999999", "1e9999999999/3"])
def test_a_rate_with_an_endless_exponent_is_refused_at_once(rate: str) -> None:
    with pytest.raises(TalkingPortraitError, match="The frame rate is"):
        as_rate(rate)


@pytest.mark.parametrize("value", [200.0, -1.0, float("nan")])
def test_pictures_and_masks_of_another_scale_are_refused(value: float) -> None:
    with pytest.raises(TalkingPortraitError, match='Picture 0 of the input "images"'):
        images_socket(torch.full((1, 4, 4, 3), value))
    with pytest.raises(TalkingPortraitError, match='Mask 0 of the input "mask"'):
        mask_socket(torch.full((1, 4, 4), value))


def test_pictures_of_bytes_are_scaled_and_other_whole_numbers_refused() -> None:
    found = images_socket(torch.full((1, 4, 4, 3), 51, dtype=torch.uint8))
    assert found.dtype == torch.float32
    assert found.numpy() == pytest.approx(0.2)
    with pytest.raises(TalkingPortraitError, match="type int64"):
        images_socket(torch.ones(1, 4, 4, 3, dtype=torch.int64))


def test_a_sound_larger_than_memory_should_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(bytes(4 * 16000))
    assert sound.read_audio(tmp_path / "a.wav").samples == 16000
    monkeypatch.setattr(sound, "MAX_SOUND_BYTES", 100_000)
    with pytest.raises(TalkingPortraitError, match=r"a\.wav \(2 channels at 16000 Hz\) needs more than"):
        sound.read_audio(tmp_path / "a.wav")


def test_motions_of_different_cameras_are_not_joined() -> None:
    first = motion(pose="camera")
    with pytest.raises(TalkingPortraitError, match="camera of 30 degrees can't follow one of a camera of 63"):
        join([first, replace(first, camera=Camera(30.0))])
    assert join([first, first]).frames == 6


def test_a_limited_mouth_has_limited_scores() -> None:
    vertices = motion().vertices.copy()
    vertices[1, :, 1] *= 10  # the whole face scaled, which opens the lips as well
    column = BLENDSHAPES.index("jawOpen")
    scores = np.zeros((3, len(BLENDSHAPES)), np.float32)
    scores[:, column] = 0.8
    found = limit(motion(vertices=vertices, blendshapes=scores), max_opening=0.2).blendshapes
    assert found is not None
    assert found[1, column] < 0.5
    assert found[0, column] == pytest.approx(0.8)


def test_a_wrong_way_to_fill_frames_is_refused_before_any_is_searched() -> None:
    class Untouched:
        name, hint = "none", ""

        def faces(self, picture: np.ndarray, min_confidence: float) -> list[Any]:
            raise AssertionError("a frame was searched")

    with pytest.raises(TalkingPortraitError, match='"skip" was requested'):
        detect(torch.zeros(1, 64, 64, 3), Untouched(), missing="skip")  # type: ignore[arg-type]
