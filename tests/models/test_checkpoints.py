"""Files of weights: what is read, what is refused, and the error texts."""

from __future__ import annotations

import argparse
import collections
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from talking_portrait.models import checkpoints, torch_file
from talking_portrait.models.checkpoints import expect_kind, read_checkpoint, refuse_code, rename_keys, strict_load
from talking_portrait.models.errors import TalkingPortraitError
from talking_portrait.models.weight_files import save_tensors

STATE = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.tensor([1.0, -1.0])}


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[k], v) for k, v in expected.items())


def test_a_written_file_is_as_readable_as_any_other_and_has_what_was_put_in(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    save_tensors(STATE, tmp_path / "a.safetensors", {"about": "this"})
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert same(read_checkpoint(tmp_path / "a.safetensors"), STATE)


def sentence(path: Path) -> str:
    with pytest.raises(TalkingPortraitError) as caught:
        read_checkpoint(path)
    text = str(caught.value)
    assert "\n" not in text
    assert path.name in text
    return text


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "a.ckpt", "a.bin", "a.pt"])
def test_every_ending_reads_the_same(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("safetensors"):
        save_file(STATE, path)
    else:
        torch.save(STATE, path)
    assert same(read_checkpoint(path), STATE)


def test_the_old_torch_format_reads_too(tmp_path: Path) -> None:
    torch.save({"state_dict": STATE}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert same(read_checkpoint(tmp_path / "a.pth"), STATE)


@pytest.mark.parametrize("wrapper", [("state_dict",), ("model",), ("net", "params"), ("params_ema",)])
def test_wrappers_and_module_are_taken_off(tmp_path: Path, wrapper: tuple[str, ...]) -> None:
    value: dict[str, object] = collections.OrderedDict((f"module.{k}", v) for k, v in STATE.items())
    for name in wrapper:
        value = {name: value, "epoch": 3, "lr": torch.tensor(0.1)}
    torch.save(value, tmp_path / "a.pth")
    assert same(read_checkpoint(tmp_path / "a.pth"), STATE)


def test_the_averaged_weights_are_preferred(tmp_path: Path) -> None:
    torch.save({"params": {"w": torch.zeros(1)}, "params_ema": STATE}, tmp_path / "a.pth")
    assert same(read_checkpoint(tmp_path / "a.pth"), STATE)


def test_a_parameter_named_module_in_part_keeps_its_name(tmp_path: Path) -> None:
    state = {"module.w": torch.zeros(1), "v": torch.zeros(1)}
    torch.save(state, tmp_path / "a.pth")
    assert same(read_checkpoint(tmp_path / "a.pth"), state)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>Sign in</html>", "is a web page"),
        (b"GGUF\3\0\0\0" + bytes(40), "is a file of GGUF or GGML, with quantised weights, which is not taken"),
        (
            b"\x08\x07\x12\x07pytorch\x1a\x052.1.0",
            "is a file of ONNX, which is not taken here; take the network as .saf",
        ),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "is a file of Keras"),
        (b"\x1c\0\0\0TFL3" + bytes(40), "is a file of TensorFlow Lite"),
        (b"\n  <HTML>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git-lfs pointer"),
        (b'{"error": "not found"}', "is a JSON text"),
        (b"abc", "cut short"),
        (b"PK\x03\x04 and no more", "cut short"),
    ],
)
@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_what_is_no_weights_is_reported(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert words in sentence(tmp_path / name)


def test_missing_file_folder_and_foreign_ending(tmp_path: Path) -> None:
    assert "is not there" in sentence(tmp_path / "a.pth")
    assert "is a folder" in sentence(tmp_path)
    (tmp_path / "a.onnx").write_bytes(b"\x08\x08")
    (tmp_path / "a.gguf").write_bytes(b"GGUF\3\0\0\0")
    assert "is a file of GGUF or GGML" in sentence(tmp_path / "a.gguf")
    assert "is no file of weights by its ending" in sentence(tmp_path / "a.onnx")


@pytest.mark.parametrize("keep", [4, 40, -1, -9])
def test_a_cut_safetensors_is_detected_by_its_length(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.safetensors"
    save_file(STATE, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:keep])
    text = sentence(path)
    assert "cut short" in text
    if keep < 0:
        assert f"{len(whole) + keep} of {len(whole)} bytes" in text


@pytest.mark.parametrize(
    "header",
    [
        "[]",
        '{"a": 5}',
        '{"a": {"data_offsets": "x"}}',
        '{"a": {"data_offsets": []}}',
        '{"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}',
        '{"a": {"dtype": "F32", "shape": [99999999999999999999], "data_offsets": [0, 4]}}',
        '{"a":' * 100_000,
        "[" * 100_000,
    ],
)
def test_a_safetensors_with_an_invalid_list_of_tensors_is_reported_as_damaged(tmp_path: Path, header: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(8))
    assert "is damaged or cut short" in sentence(path)


@settings(max_examples=50)
@given(places=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=5))
@pytest.mark.parametrize("name", ["a.safetensors", "zipped.pth", "old.pth"])
def test_changed_bytes_never_raise_another_error(tmp_path_factory, name: str, places) -> None:
    path = tmp_path_factory.mktemp("changed") / name
    if name.endswith("safetensors"):
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=name == "zipped.pth")
    raw = bytearray(path.read_bytes())
    for place, value in places:
        raw[place % len(raw)] = value
    path.write_bytes(bytes(raw))
    raised = ""
    try:
        read_checkpoint(path)
    except TalkingPortraitError as error:
        raised = str(error)
    assert "\n" not in raised
    assert len(raised) < 600


def test_an_archive_with_far_too_many_names_is_not_unpacked(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(torch_file, "MAX_PICKLE", 10)
    torch.save({"w": torch.ones(1)}, tmp_path / "a.pth")
    assert "unpacks to" in sentence(tmp_path / "a.pth")


def test_a_safetensors_whose_first_byte_is_a_brace_is_no_json(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.ones(1)}, path)
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = raw[8 : 8 + length].ljust((length // 256 + 1) * 256 + ord("{"))
    path.write_bytes(struct.pack("<Q", len(header)) + header + raw[8 + length :])
    assert path.read_bytes()[:1] == b"{"
    assert read_checkpoint(path)["w"] == 1


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_cut_pickle_is_reported_as_cut(tmp_path: Path, keep: float, zipped: bool) -> None:
    path = tmp_path / "a.pth"
    torch.save({"w": torch.rand(1000)}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    assert "cut short" in sentence(path)


class Touch:
    """A pickle that would make a file when opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", ["zip", "legacy", "plain2", "plain5"])
def test_a_pickle_with_code_is_named_and_not_run(tmp_path: Path, form: str) -> None:
    path, trace = tmp_path / "a.pth", tmp_path / "ran"
    value = {"w": torch.zeros(1), "x": Touch(trace)}
    if form in ("zip", "legacy"):
        torch.save(value, path, _use_new_zipfile_serialization=form == "zip")
    else:
        path.write_bytes(pickle.dumps({"x": Touch(trace)}, protocol=int(form[-1])))
    text = sentence(path)
    assert "holds code" in text
    assert "mkdir" in text
    assert not trace.exists()


def test_a_torchscript_program_is_no_state_dict(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a/code/__torch__.py", "def forward(): pass")
        archive.writestr("a/data.pkl", pickle.dumps({}))
    assert "TorchScript" in sentence(tmp_path / "a.pt")


@pytest.mark.parametrize("value", [[1, 2], {"epoch": 1}, torch.zeros(2), {"state_dict": {}}])
def test_a_pickle_without_named_tensors(tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "a.pth")
    assert "no named tensors" in sentence(tmp_path / "a.pth")


def test_another_librarys_reader_needs_a_safe_torch_and_plain_tensors(tmp_path: Path, monkeypatch) -> None:
    torch.save(STATE, tmp_path / "a.pth")
    torch.save({"state_dict": STATE, "args": argparse.Namespace(a=1)}, tmp_path / "b.pth")
    refuse_code(tmp_path / "a.pth")
    with pytest.raises(TalkingPortraitError, match=r"b.pth holds more than weights \(argparse.Namespace\)"):
        refuse_code(tmp_path / "b.pth")
    monkeypatch.setattr(torch, "__version__", "2.9.1+cu128")
    with pytest.raises(TalkingPortraitError, match="update torch to 2.10"):
        refuse_code(tmp_path / "a.pth")
    assert same(read_checkpoint(tmp_path / "a.pth"), STATE), "our own reader needs none"


def test_rename_rules_apply_in_turn_and_never_merge() -> None:
    renamed = rename_keys({"a.g": torch.zeros(1), "b": torch.ones(1)}, [(r"\.g$", ".x"), (r"^a\.", "c.")])
    assert set(renamed) == {"c.x", "b"}
    with pytest.raises(ValueError, match="two tensors are named b"):
        rename_keys({"a": torch.zeros(1), "b": torch.ones(1)}, [("a", "b")])


def network() -> torch.nn.Module:
    return torch.nn.Sequential(collections.OrderedDict(conv=torch.nn.Linear(3, 2)))


def test_strict_load_fills_and_keeps_the_modules_dtype() -> None:
    module = network()
    strict_load(module, {k: v.half() for k, v in STATE.items()}, path="a.pth")
    assert same(dict(module.state_dict()), STATE)


def test_strict_load_takes_over_on_the_meta_device() -> None:
    with torch.device("meta"):
        module = network()
    strict_load(module, STATE, path="a.pth")
    assert same(dict(module.state_dict()), STATE)


def test_strict_load_counts_and_names_every_difference() -> None:
    state = {"conv.weight": torch.zeros(2, 4), "head.0": torch.zeros(1), "head.1": torch.zeros(1), "x": torch.zeros(1)}
    module = network()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with pytest.raises(TalkingPortraitError) as caught:
        strict_load(module, state, path="folder/a.pth", unused=[r"head\."])
    text = str(caught.value)
    for words in ("a.pth", "1 missing (conv.bias)", "conv.weight is (2, 4) and not (2, 3)", "1 unknown (x)"):
        assert words in text
    assert "head" not in text.split("does not fit")[1]
    assert same(dict(module.state_dict()), before)


def test_strict_load_names_three_and_counts_the_rest() -> None:
    state = STATE | {f"extra{i}": torch.zeros(1) for i in range(9)}
    with pytest.raises(TalkingPortraitError, match=r"9 unknown \(extra0, extra1, extra2 \.\.\.\)"):
        strict_load(network(), state, path="a.pth")


def test_a_wrong_file_is_called_by_its_name() -> None:
    guider = {k: torch.zeros(1) for k in ("conv_layers_1.0.weight", "cross_attn1.proj_in.weight", "scale")}
    with pytest.raises(
        TalkingPortraitError, match=r"^pg.pth is AniPortrait's pose guider, but a VAE is expected here; choose such a"
    ):
        expect_kind(guider, ["vae"], "a VAE", "models/pg.pth")
    with pytest.raises(TalkingPortraitError, match=r"unknown file with 2 tensors \(conv.weight, conv.bias \.\.\.\)"):
        expect_kind(STATE, ["vae"], "a VAE", "x.pth")
    expect_kind(guider, ["vae", "pose_guider"], "a pose guider", "pg.pth")


def test_the_list_of_safe_names_holds_no_function_that_runs_anything() -> None:
    for name in ("os system", "builtins eval", "torch load", "torch.storage load", "collections namedtuple", "torch x"):
        assert not checkpoints._SAFE_NAMES.fullmatch(name)


@pytest.mark.parametrize("scale", [torch.tensor(0.03125), torch.tensor([[0.03125], [0.5]])], ids=["one", "rows"])
@pytest.mark.parametrize("newer", [False, True], ids=["older", "newer"])
def test_weights_of_eight_bits_are_multiplied_by_their_scale(tmp_path: Path, newer: bool, scale: torch.Tensor) -> None:
    """As the files that ComfyUI calls scaled fp8 hold them, within a checkpoint and alone."""
    stored = (STATE["conv.weight"] * 4).to(torch.float8_e4m3fn)
    kind = torch.frombuffer(bytearray(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
    beside = {"weight_scale": scale, "input_scale": torch.ones(()), "comfy_quant": kind}
    older = {"scale_weight": scale, "scale_input": torch.ones(())}
    state = {
        "model.conv.weight": stored,
        "model.conv.bias": STATE["conv.bias"],
        **{f"model.conv.{name}": tensor for name, tensor in (beside if newer else older).items()},
        **({} if newer else {"scaled_fp8": torch.empty(2, dtype=torch.float8_e4m3fn)}),
    }
    save_file(state, tmp_path / "a.safetensors")
    read = read_checkpoint(tmp_path / "a.safetensors")
    assert read.keys() == STATE.keys()
    assert torch.allclose(read["conv.weight"].float(), 4 * scale * STATE["conv.weight"], rtol=0.01)
    module = torch.nn.Module()
    module.conv = torch.nn.Linear(3, 2)
    strict_load(module, read, path="a.safetensors")


def test_weights_of_eight_bits_with_scales_of_blocks_keep_them_and_so_do_not_load(tmp_path: Path) -> None:
    state = {"conv.weight": torch.zeros(4, 4, dtype=torch.float8_e4m3fn), "conv.weight_scale": torch.ones(2, 2, 2)}
    save_file(state, tmp_path / "a.safetensors")
    assert read_checkpoint(tmp_path / "a.safetensors").keys() == state.keys()
