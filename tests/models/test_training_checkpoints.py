"""Checkpoints as training programs write them: containers, wrappers, prefixes and all that is no tensor."""

from __future__ import annotations

import argparse
import collections
import enum
import io
import logging
import pathlib
import pickle
import struct
import sys
import tarfile
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from talking_portrait.models.checkpoints import expect_kind, read_checkpoint, strict_load
from talking_portrait.models.errors import TalkingPortraitError
from talking_portrait.models.gfpgan import GFPGAN, load_gfpgan

from ..tiny_weights.gfpgan import CONFIG

STATE = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.tensor([1.0, -1.0])}
SHARED = torch.arange(12.0)


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        found[k].dtype == v.dtype and torch.equal(found[k], v) for k, v in expected.items()
    )


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module that only the author has: opening a file with pickled objects of it must not import it."""
    module = types.ModuleType("authors_code")

    class Config:
        def __init__(self, **values: Any) -> None:
            self.__dict__ |= values

    class Settings(dict):
        pass

    class Mode(enum.Enum):
        FAST = 1

    for kind in (Config, Settings, Mode):
        kind.__module__, kind.__qualname__ = "authors_code", kind.__name__
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, "authors_code", module)
    return module


def leftovers(foreign: types.ModuleType) -> dict[str, Any]:
    """What lies beside the weights in checkpoints of Lightning and of people's own loops."""
    weight = torch.nn.Parameter(torch.ones(2))
    optimiser = torch.optim.Adam([weight])
    weight.sum().backward()
    optimiser.step()
    return {
        "epoch": 3,
        "pytorch-lightning_version": "2.1.0",
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best": foreign.Config(score=torch.ones(3))}},
        "hyper_parameters": argparse.Namespace(path=pathlib.PurePosixPath("/data"), mode=foreign.Mode.FAST),
        "config": foreign.Settings(width=1, dtype=torch.float16, size=torch.Size([1, 2])),
        "optimizer_states": [optimiser.state_dict()],
        "best": np.float64(0.5),
        "array": np.arange(3),
        "random": {"torch": torch.get_rng_state(), "numpy": np.random.RandomState(0).get_state()},
        "device": torch.device("cpu"),
        "names": {"a", "b"},
        "both": collections.Counter("aab"),
        "slice": slice(1, 2),
        "number": 1 + 2j,
    }


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol_reads_the_same(tmp_path: Path, protocol: int, zipped: bool) -> None:
    value = {"state_dict": STATE}
    torch.save(value, tmp_path / "a.pth", pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    assert same(read_checkpoint(tmp_path / "a.pth"), STATE)


@pytest.mark.parametrize("protocol", range(6))
def test_tensors_that_pickle_itself_wrote_are_read(tmp_path: Path, protocol: int) -> None:
    state = STATE | {"a": SHARED[2:8].reshape(2, 3).t(), "b": torch.ones(2, dtype=torch.bfloat16)}
    (tmp_path / "a.pth").write_bytes(pickle.dumps(collections.OrderedDict(state), protocol=protocol))
    assert same(read_checkpoint(tmp_path / "a.pth"), state)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_what_training_leaves_is_never_built(tmp_path, monkeypatch, foreign, form: str, protocol: int) -> None:
    value = {**leftovers(foreign), "state_dict": {f"model.{name}": tensor for name, tensor in STATE.items()}}
    if form == "pickle":
        (tmp_path / "a.ckpt").write_bytes(pickle.dumps(value, protocol=protocol))
    else:
        torch.save(value, tmp_path / "a.ckpt", pickle_protocol=protocol, _use_new_zipfile_serialization=form == "zip")
    monkeypatch.delitem(sys.modules, "authors_code")
    assert same(read_checkpoint(tmp_path / "a.ckpt"), STATE)
    assert "authors_code" not in sys.modules


def test_views_parameters_and_kinds_of_numbers_arrive_as_they_were(tmp_path: Path) -> None:
    kinds = (
        *(torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.int64, torch.int32, torch.int8),
        *(torch.uint8, torch.uint16, torch.bool, torch.complex64),
    )
    state = {f"{kind}": torch.ones(3).to(kind) for kind in kinds}
    state |= {"view": SHARED[3:9].reshape(2, 3).t(), "other": SHARED[::2], "number": torch.tensor(2.0)}
    state |= {"parameter": torch.nn.Parameter(torch.ones(2)), "none": torch.zeros(0, 3)}
    for zipped in (True, False):
        torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
        for mapped in (True, False):
            found = read_checkpoint(tmp_path / "a.pth", mapped=mapped)
            assert same(found, {name: tensor.detach() for name, tensor in state.items()})
        assert found["view"].untyped_storage().data_ptr() == found["other"].untyped_storage().data_ptr()


def test_a_tensor_of_a_class_of_its_own_is_read_as_a_tensor(tmp_path: Path, monkeypatch) -> None:
    class Sub(torch.Tensor):
        pass

    Sub.__module__, Sub.__qualname__ = "authors_code", "Sub"
    module = types.ModuleType("authors_code")
    module.Sub = Sub
    monkeypatch.setitem(sys.modules, "authors_code", module)
    tensor = torch.arange(3.0).as_subclass(Sub)
    tensor.remark = "theirs"
    torch.save({"w": tensor}, tmp_path / "a.pth")
    found = read_checkpoint(tmp_path / "a.pth")["w"]
    assert type(found) is torch.Tensor
    assert found.tolist() == [0, 1, 2]


def write_tar(path: Path, state: dict[str, torch.Tensor]) -> None:
    """As torch before 2017 saved: archives of storages, tensors and a pickle that refers to them by number."""

    class Names(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return value[1] if isinstance(value, tuple) and value[:1] == ("tensor",) else None

    storages, tensors, names = io.BytesIO(), io.BytesIO(), io.BytesIO()
    storages.write(pickle.dumps(len(state), 2))
    tensors.write(pickle.dumps(len(state), 2))
    for number, tensor in enumerate(state.values()):
        storages.write(pickle.dumps((10 + number, "cpu", torch.FloatStorage), 2))
        storages.write(struct.pack("<q", tensor.numel()) + tensor.contiguous().numpy().tobytes())
        tensors.write(pickle.dumps((20 + number, 10 + number, torch.FloatTensor), 2))
        sizes = struct.pack(f"<{2 * tensor.ndim + 1}q", *tensor.shape, *tensor.contiguous().stride(), 0)
        tensors.write(struct.pack("<i4x", tensor.ndim) + sizes)
    storages.write(pickle.dumps([], 2))
    Names(names, 2).dump({name: ("tensor", str(20 + number)) for number, name in enumerate(state)})
    with tarfile.open(path, "w") as archive:
        for name, content in (("storages", storages), ("tensors", tensors), ("pickle", names)):
            member = tarfile.TarInfo(name)
            member.size = len(content.getvalue())
            archive.addfile(member, io.BytesIO(content.getvalue()))


def test_the_oldest_container_is_read_as_torch_itself_reads_it(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.pth", STATE)
    assert same(torch.load(tmp_path / "a.pth", weights_only=False), STATE), "the test writes what torch reads"
    assert same(read_checkpoint(tmp_path / "a.pth"), STATE)


@pytest.mark.parametrize(
    "names",
    [
        *[
            (name,)
            for name in ("module", "ema", "generator", "g_ema", "params_ema", "params", "state_dict", "model", "net")
        ],
        *[("gen",), ("netG",), ("model_state_dict",), ("state_dict", "module"), ("model", "ema_model"), ("anything",)],
    ],
)
def test_wrappers_are_taken_off_beside_an_optimiser(tmp_path: Path, foreign, names: tuple[str, ...]) -> None:
    value: Any = STATE
    for name in reversed(names):
        value = {name: value, **leftovers(foreign)}
    torch.save(value, tmp_path / "a.pth")
    assert same(read_checkpoint(tmp_path / "a.pth"), STATE)


@pytest.mark.parametrize(
    "prefix",
    [
        *("module.", "_orig_mod.", "model.lia.", "gen.", "model.", "netG.", "module._orig_mod.", "_orig_mod.module."),
        *("model._orig_mod.", "module.model.", "_fsdp_wrapped_module.", "generator.module."),
    ],
)
def test_prefixes_are_taken_off_alone_and_together(tmp_path: Path, prefix: str) -> None:
    torch.save({"state_dict": {prefix + name: tensor for name, tensor in STATE.items()}}, tmp_path / "a.pth")
    assert same(read_checkpoint(tmp_path / "a.pth"), STATE)


def test_what_compiling_inserts_inside_of_names_goes_too(tmp_path: Path) -> None:
    torch.save({"conv._orig_mod.weight": torch.ones(1), "b.weight": torch.ones(1)}, tmp_path / "a.pth")
    assert read_checkpoint(tmp_path / "a.pth").keys() == {"conv.weight", "b.weight"}


@pytest.mark.parametrize(("plain", "averaged"), [("params", "params_ema"), ("state_dict", "ema"), ("model", "g_ema")])
def test_an_averaged_copy_counts_unless_it_is_incomplete(tmp_path: Path, plain: str, averaged: str) -> None:
    zeros = {name: torch.zeros_like(tensor) for name, tensor in STATE.items()}
    torch.save({plain: zeros, averaged: STATE}, tmp_path / "a.pth")
    assert same(read_checkpoint(tmp_path / "a.pth"), STATE)
    torch.save({plain: STATE, averaged: {"conv.weight": zeros["conv.weight"]}}, tmp_path / "a.pth")
    assert same(read_checkpoint(tmp_path / "a.pth"), STATE)
    shadow = {"decay": 0.99, "num_updates": 4, "shadow_params": list(zeros.values())}
    torch.save({plain: STATE, averaged: shadow}, tmp_path / "a.pth")
    assert same(read_checkpoint(tmp_path / "a.pth"), STATE)


def test_networks_side_by_side_become_one(tmp_path: Path) -> None:
    parts = {"reference_unet": dict(STATE), "face_locator": dict(STATE), "optimizer": {"state": dict(STATE)}}
    torch.save(parts, tmp_path / "a.pth")
    expected = {f"{part}.{name}": t for part in ("reference_unet", "face_locator") for name, t in STATE.items()}
    assert same(read_checkpoint(tmp_path / "a.pth"), expected)


def test_a_state_dict_in_the_authors_own_kind_of_dictionary_is_read(tmp_path: Path, monkeypatch, foreign) -> None:
    torch.save({"model": foreign.Settings(STATE)}, tmp_path / "a.pth")
    monkeypatch.delitem(sys.modules, "authors_code")
    assert same(read_checkpoint(tmp_path / "a.pth"), STATE)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_whole_model_is_refused_with_the_way_to_save_its_weights(tmp_path: Path, wrapped: bool) -> None:
    network = torch.nn.Linear(2, 2)
    torch.save({"model": network, "epoch": 1} if wrapped else network, tmp_path / "a.pth")
    with pytest.raises(TalkingPortraitError) as raised:
        read_checkpoint(tmp_path / "a.pth")
    assert "a.pth holds a whole program object (torch.nn.modules.linear.Linear)" in str(raised.value)
    assert "torch.save(model.state_dict(), ...)" in str(raised.value)
    assert "author's own page" not in str(raised.value)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantised_and_absent_numbers_are_named(tmp_path: Path) -> None:
    torch.save({"w": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}, tmp_path / "a.pth")
    with pytest.raises(TalkingPortraitError, match="a.pth holds w, which is quantised, but plain numbers are expected"):
        read_checkpoint(tmp_path / "a.pth")
    torch.save({"w": torch.empty(2, device="meta")}, tmp_path / "a.pth")
    with pytest.raises(TalkingPortraitError, match="which is stored without its numbers"):
        read_checkpoint(tmp_path / "a.pth")
    torch.save({"w": torch.eye(2).to_sparse()}, tmp_path / "a.pth")
    with pytest.raises(TalkingPortraitError, match="which is sparse"):
        read_checkpoint(tmp_path / "a.pth")


def test_a_zip_that_was_packed_again_is_read(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "a.pth")
    with (
        zipfile.ZipFile(tmp_path / "a.pth") as old,
        zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert same(read_checkpoint(tmp_path / "b.pth"), STATE)


@pytest.mark.parametrize("ending", [".safetensors", ".bin"])
def test_a_model_in_several_files_is_read_by_its_index(tmp_path: Path, ending: str) -> None:
    names = [f"model-0000{number}-of-00002{ending}" for number in (1, 2)]
    for name, key in zip(names, STATE, strict=True):
        (save_file if ending == ".safetensors" else torch.save)({key: STATE[key]}, tmp_path / name)
    index = tmp_path / f"model{ending}.index.json"
    index.write_text(f'{{"weight_map": {{"conv.weight": "{names[0]}", "conv.bias": "{names[1]}"}}}}')
    assert same(read_checkpoint(index), STATE)


@pytest.mark.parametrize(("name", "kind"), [("a.safetensors", "zip"), ("a.pth", "safetensors"), ("a.ckpt", "legacy")])
def test_a_file_counts_by_its_content_whatever_it_was_renamed_to(tmp_path: Path, name: str, kind: str) -> None:
    if kind == "safetensors":
        save_file(STATE, tmp_path / name)
    else:
        torch.save(STATE, tmp_path / name, _use_new_zipfile_serialization=kind == "zip")
    assert same(read_checkpoint(tmp_path / name), STATE)


# --- a network among other tensors ---


def gfpgan_state(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(tensor.shape, generator=generator).to(dtype)
        for name, tensor in GFPGAN(CONFIG).state_dict().items()
    }


SURPLUS = {
    "loss_fn.vgg.0.weight": torch.ones(1),
    "discriminator.conv.weight": torch.ones(1),
    "teacher.conv_body_first.weight": torch.ones(1),
    "optimizer.exp_avg": torch.ones(1),
    "n_averaged": torch.tensor(3),
    "final_linear.num_batches_tracked": torch.tensor(3),
    "embeddings.position_ids": torch.arange(3)[None],
}


@pytest.mark.parametrize("prefix", ["", "model.", "generator.module.", "net_g."])
def test_tensors_of_training_are_reported_and_not_refused(tmp_path, caplog, prefix: str) -> None:
    state = gfpgan_state()
    torch.save({**{prefix + name: tensor for name, tensor in state.items()}, **SURPLUS}, tmp_path / "a.pth")
    network = load_gfpgan(tmp_path / "a.pth")
    assert same(dict(network.state_dict()), state)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"a.pth also holds {len(SURPLUS)} tensors of its training, which are not used (" in record.getMessage()


def test_of_two_copies_the_averaged_one_counts_and_never_the_teachers(tmp_path: Path) -> None:
    state = gfpgan_state()
    for good, bad in (("ema_model.", "model."), ("model.", "teacher."), ("model_ema.", "model.")):
        both = {f"{bad}{name}": torch.zeros_like(tensor) for name, tensor in state.items()}
        both |= {f"{good}{name}": tensor for name, tensor in state.items()}
        torch.save({"state_dict": both}, tmp_path / "a.pth")
        assert same(dict(load_gfpgan(tmp_path / "a.pth").state_dict()), state), good


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_the_networks(tmp_path: Path, dtype: torch.dtype) -> None:
    state = gfpgan_state(dtype)
    torch.save(state, tmp_path / "a.pth")
    found = load_gfpgan(tmp_path / "a.pth").state_dict()
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    torch.testing.assert_close(found["final_linear.bias"], state["final_linear.bias"].float())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"final_linear.weight": torch.ones(3, dtype=torch.int8)}, r"holds quantised weights \(final_linear.weight is"),
        ({"final_linear.SCB": torch.ones(3)}, r"holds quantised weights \(final_linear.SCB is of the type float32"),
        ({"final_linear.bias": torch.zeros(0)}, "of the shape .0,., which no network has"),
        ({"final_linear.bias": torch.tensor(1.0)}, "of the shape .., which no network has"),
    ],
)
def test_weights_that_are_none_are_reported(tmp_path: Path, change: dict[str, torch.Tensor], words: str) -> None:
    torch.save(gfpgan_state() | change, tmp_path / "a.pth")
    with pytest.raises(TalkingPortraitError, match=words):
        load_gfpgan(tmp_path / "a.pth")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers_are_reported_when_they_are_loaded(tmp_path: Path, value: float) -> None:
    state = gfpgan_state()
    state["final_linear.bias"][1] = value
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(TalkingPortraitError, match=r"a.pth holds weights that are no numbers or too large \(final_lin"):
        load_gfpgan(tmp_path / "a.pth")


def test_numbers_too_large_for_half_precision_are_reported(tmp_path: Path) -> None:
    state = gfpgan_state()
    state["final_linear.bias"][1] = 1e6
    torch.save(state, tmp_path / "a.pth")
    load_gfpgan(tmp_path / "a.pth")
    with pytest.raises(TalkingPortraitError, match="load it in float32 or bfloat16"):
        load_gfpgan(tmp_path / "a.pth", dtype=torch.float16)


def test_whole_numbers_in_place_of_others_are_reported_under_any_name() -> None:
    network = torch.nn.Module()
    network.scale = torch.nn.Parameter(torch.ones(2))
    with pytest.raises(TalkingPortraitError, match=r"holds quantised weights \(scale is of the type int8\)"):
        strict_load(network, {"scale": torch.ones(2, dtype=torch.int8)}, path="a.pth")


def test_the_network_is_taken_from_under_any_prefix() -> None:
    state = {f"pipeline.restorer.{name}": tensor for name, tensor in gfpgan_state().items()}
    assert expect_kind(state, ("gfpgan",), "a GFPGAN", "a.pth").keys() == gfpgan_state().keys()
