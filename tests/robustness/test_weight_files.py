"""Files of weights that were made to hang a reader, to fill memory, to crash or to run something: one sentence each."""

from __future__ import annotations

import builtins
import io
import json
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from talking_portrait.models.aniportrait import loading as aniportrait
from talking_portrait.models.anitalker.loading import load_stage1, load_stage2
from talking_portrait.models.apasco.loading import load_net
from talking_portrait.models.checkpoints import MAX_LAYERS, layer_count, read_checkpoint
from talking_portrait.models.diffusion.clip_vision import load_clip_vision
from talking_portrait.models.diffusion.vae import load_vae
from talking_portrait.models.errors import TalkingPortraitError
from talking_portrait.models.gfpgan import load_gfpgan
from talking_portrait.models.pickle_reader import MAX_OPCODES
from talking_portrait.models.speech.loading import load_speech_encoder

from ..tiny_weights import aniportrait as tiny_aniportrait
from ..tiny_weights import anitalker, apasco, gfpgan


def refusal(path: Path, load: Callable[[Path], Any] = read_checkpoint) -> str:
    with pytest.raises(TalkingPortraitError) as raised:
        load(path)
    text = str(raised.value)
    assert "\n" not in text
    assert len(text) < 600
    return text


def write_zip(path: Path, listed: bytes, storage: bytes = b"", compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a/data.pkl", listed)
        archive.writestr("a/data/0", storage)
        archive.writestr("a/version", "3")


def tensor_pickle(count: int = 4, shape: Any = (4,), stride: Any = (1,), offset: Any = 0, key: Any = "0") -> bytes:
    """{"w": tensor} as torch.save writes it, with any numbers in it."""

    class Names(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return value[1] if isinstance(value, tuple) and value[:1] == ("persistent",) else None

    class Rebuilt:
        def __reduce__(self) -> tuple[Any, ...]:
            storage = ("persistent", ("storage", torch.FloatStorage, key, "cpu", count))
            return torch._utils._rebuild_tensor_v2, (storage, offset, shape, stride, False, {})

    content = io.BytesIO()
    Names(content, 2).dump({"w": Rebuilt()})
    return content.getvalue()


def test_the_pickle_of_these_tests_is_one_that_is_read(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.pth", tensor_pickle(), bytes(16))
    assert read_checkpoint(tmp_path / "a.pth")["w"].shape == (4,)


@pytest.mark.parametrize(
    "changes",
    [
        *({"shape": (5,)}, {"shape": (10**12,)}, {"offset": 3}, {"offset": 2**70}, {"stride": (2**62,)}, {"count": 5}),
        *(
            {"shape": (-1,)},
            {"shape": ("x",)},
            {"shape": (1,) * 30, "stride": (0,) * 30},
            {"shape": (2, 2)},
            {"count": -1},
        ),
        *({"count": 2**60}, {"key": "1"}, {"key": "../../a"}, {"key": 0}, {"shape": None}, {"offset": 1.5}),
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_zip(tmp_path / "a.pth", tensor_pickle(**changes), bytes(16))
    assert "damaged or cut short" in refusal(tmp_path / "a.pth")
    assert "damaged or cut short" in refusal(tmp_path / "a.pth", partial(read_checkpoint, mapped=True))


def within_itself(kind: str) -> Any:
    mapping: dict[str, Any] = {"epoch": 1}
    if kind == "wrappers":
        mapping |= dict.fromkeys(("state_dict", "model", "module", "params_ema", "other"), mapping)
    elif kind == "list":
        mapping["model"] = [mapping, [mapping]]
    else:
        for _ in range(30):
            mapping = {f"{number}": mapping for number in range(30)}
    return mapping


@pytest.mark.parametrize("kind", ["wrappers", "list", "many ways"])
def test_values_within_each_other_end(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.pth").write_bytes(pickle.dumps(within_itself(kind)))
    assert "holds no named tensors" in refusal(tmp_path / "a.pth")


@pytest.mark.parametrize("step", [b"\x85", b"]\x94h\x00a", b"}\x94"])
def test_endless_nesting_neither_overflows_nor_lasts(tmp_path: Path, step: bytes) -> None:
    deep = b"\x80\x04]\x94" + step * 200_000 + b"K\x01s."
    (tmp_path / "a.pth").write_bytes(deep)
    refusal(tmp_path / "a.pth")
    nested = b"\x80\x02}" + b"N" + b"\x85" * 200_000 + b"K\x01s."  # a key of tuples in tuples, which hashing descends
    (tmp_path / "a.pth").write_bytes(nested)
    assert "holds no named tensors" in refusal(tmp_path / "a.pth")


def test_a_small_archive_of_a_huge_pickle_is_not_unpacked(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.pth", bytes(250 * 1024**2), compression=zipfile.ZIP_DEFLATED)
    assert (tmp_path / "a.pth").stat().st_size < 300_000
    assert "unpack" in refusal(tmp_path / "a.pth")


def test_bytes_that_are_made_again_and_again_stay_one(tmp_path: Path) -> None:
    text = pickle.dumps("x" * 1_000_000, 2)[2:-1]
    again = b"c_codecs\nencode\nq\x01" + text + b"q\x02U\x06latin1\x86q\x03" + b"h\x01h\x03R" * 50_000
    (tmp_path / "a.pth").write_bytes(b"\x80\x02(" + again + b"l.")
    refusal(tmp_path / "a.pth")


def test_steps_of_all_pickles_are_counted_together(tmp_path: Path) -> None:
    inner = b"\x80\x02" + b"N0" * (MAX_OPCODES // 4) + b"N."
    (tmp_path / "a.pth").write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + inner * 4)
    assert f"more than {MAX_OPCODES} steps" in refusal(tmp_path / "a.pth")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("twice", ["a/data/0", "a/data.pkl", "b/data.pkl"])
def test_an_archive_with_two_of_one_thing_is_refused(tmp_path: Path, twice: str) -> None:
    torch.save({"w": torch.ones(4)}, tmp_path / "a.pth")
    write_zip(tmp_path / "a.pth", tensor_pickle(), bytes(16))
    with zipfile.ZipFile(tmp_path / "a.pth", "a") as archive:
        archive.writestr(twice, tensor_pickle())
    assert "damaged" in refusal(tmp_path / "a.pth")


def test_entries_that_overlap_are_refused(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.pth", tensor_pickle(), bytes(16))
    raw = (tmp_path / "a.pth").read_bytes()
    directory = raw.index(b"PK\x01\x02")
    second = raw.index(b"PK\x01\x02", directory + 1)
    for field, value in ((24, 4096), (20, 4096), (42, 0)):  # unpacked size, packed size, place
        changed = bytearray(raw)
        changed[second + field : second + field + 4] = struct.pack("<I", value)
        (tmp_path / "a.pth").write_bytes(changed)
        assert "damaged" in refusal(tmp_path / "a.pth")


def global_pickle(module: str, name: str, protocol: int) -> bytes:
    if protocol < 4:
        return b"\x80\x02}X\x01\x00\x00\x00xc" + f"{module}\n{name}\n".encode() + b"X\x02\x00\x00\x00id\x85Rs."
    names = b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name))
    return b"\x80\x04}\x8c\x01x" + names + b"\x93\x8c\x02id\x85Rs."


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("module", "name"),
    [("os", "system"), ("posix", "system"), ("builtins", "eval"), ("subprocess", "Popen"), ("runpy", "run_path")],
)
def test_a_call_that_would_run_a_program_is_named(tmp_path: Path, module: str, name: str, protocol: int) -> None:
    (tmp_path / "a.pth").write_bytes(global_pickle(module, name, protocol))
    assert f"holds code ({module}.{name})" in refusal(tmp_path / "a.pth")


@pytest.mark.parametrize("protocol", [2, 4])
def test_nothing_is_imported_or_called_whatever_the_name(tmp_path: Path, monkeypatch, protocol: int) -> None:
    imported: list[str] = []
    usual = builtins.__import__

    def watched(name: str, *arguments: Any, **options: Any) -> Any:
        imported.append(name)
        return usual(name, *arguments, **options)

    (tmp_path / "antigravity_of_tests.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "a.pth").write_bytes(global_pickle("antigravity_of_tests", "run", protocol))
    monkeypatch.setattr(builtins, "__import__", watched)
    with pytest.raises(TalkingPortraitError, match="holds no named tensors"):
        read_checkpoint(tmp_path / "a.pth")
    assert "antigravity_of_tests" not in {*imported, *sys.modules}


def test_attributes_that_a_pickle_sets_reach_nothing_of_ours(tmp_path: Path) -> None:
    """BUILD on a name would change the function of that name, were there one."""
    step = b"ctorch._utils\n_rebuild_tensor_v2\n}X\x0b\x00\x00\x00__wrapped__K\x01sb0"
    before = dict(vars(torch._utils._rebuild_tensor_v2))
    (tmp_path / "a.pth").write_bytes(b"\x80\x02" + step + b"}.")
    refusal(tmp_path / "a.pth")
    assert vars(torch._utils._rebuild_tensor_v2) == before


def header(entries: Any, length: int | None = None) -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text


@pytest.mark.parametrize(
    "content",
    [
        header({}),
        header({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, 2**63),
        header({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, 0),
        header({"w": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}),
        header({"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}),
        header({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 1e400]}}),
        header({"w": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}),
        header({"w": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}),
        header({"w": {"dtype": "F32", "shape": 1, "data_offsets": [0, 4]}}),
        header({"w": None}),
        header([1, 2]),
        header(b'{"w":' * 100_000),
        header(b"\xff" * 100),
        header({f"{n}": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in range(100)}),
        header({"w\n" + "x" * 5000: {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}),
    ],
)  # fmt: skip
def test_headers_that_no_program_writes_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(content + bytes(4))
    refusal(tmp_path / "a.safetensors")


def test_names_with_line_breaks_or_without_end_make_no_long_sentence(tmp_path: Path) -> None:
    save_file({"a\nb" * 3000: torch.ones(1)}, tmp_path / "a.safetensors")
    refusal(tmp_path / "a.safetensors", load_gfpgan)


@pytest.mark.parametrize(
    "file",
    [
        *(
            "../a.safetensors",
            "/etc/a.safetensors",
            "b/a.safetensors",
            "b\\a.safetensors",
            "C:\\a.safetensors",
            "a.exe",
        ),
        *("", ".a.safetensors", "a.safetensors\n", 7, None),
    ],
)
def test_an_index_that_points_elsewhere_is_refused(tmp_path: Path, file: Any) -> None:
    folder = tmp_path / "model"
    (folder / "b").mkdir(parents=True)
    for place in (tmp_path, folder, folder / "b"):
        save_file({"w": torch.ones(1)}, place / "a.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": "a.safetensors"}}))
    assert read_checkpoint(index)["w"] == 1
    index.write_text(json.dumps({"weight_map": {"w": file}}))
    assert index.name in refusal(index)


@pytest.mark.parametrize("text", ["", "[]", '{"weight_map": []}', '{"weight_map": {}}', "[" * 100_000, '{"a": 1}'])
def test_an_index_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.index.json").write_text(text)
    refusal(tmp_path / "a.index.json")


def test_an_index_of_a_missing_file_or_of_too_many_is_refused(tmp_path: Path) -> None:
    index = tmp_path / "a.index.json"
    index.write_text(json.dumps({"weight_map": {"w": "missing.safetensors"}}))
    assert "missing.safetensors is not there" in refusal(index)
    index.write_text(json.dumps({"weight_map": {f"{n}": f"{n}.bin" for n in range(1000)}}))
    assert "names 1000 files" in refusal(index)


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("ending", [".safetensors", ".bin"])
def test_a_model_in_parts_is_read_whole_from_each_of_them(tmp_path: Path, ending: str, index: bool) -> None:
    state = {f"layer{n}.weight": torch.full((2,), float(n)) for n in range(5)}
    parts = [tmp_path / f"diffusion_pytorch_model-0000{n}-of-00003{ending}" for n in (1, 2, 3)]
    for number, part in enumerate(parts):
        values = {name: state[name] for name in list(state)[number::3]}
        save_file(values, part) if ending == ".safetensors" else torch.save(values, part)
    ways = [*parts]
    if index:
        map_ = {name: parts[number % 3].name for number, name in enumerate(state)}
        ways += [tmp_path / f"diffusion_pytorch_model{ending}.index.json", tmp_path]
        ways[3].write_text(json.dumps({"weight_map": map_}))
    for way in ways:
        assert {name: tensor.tolist() for name, tensor in read_checkpoint(way).items()} == {
            name: tensor.tolist() for name, tensor in state.items()
        }
    parts[1].unlink()
    for way in (way for way in ways if way != parts[1]):
        assert f"a model in 3 files, of which {parts[1].name} is not there" in refusal(way)


def test_no_network_has_thousands_of_layers() -> None:
    assert layer_count({f"a.{n}.w": torch.ones(1) for n in range(MAX_LAYERS)}, "a.") == MAX_LAYERS
    with pytest.raises(TalkingPortraitError, match=f"1 to {MAX_LAYERS}"):
        layer_count({f"a.{n}.w": torch.ones(1) for n in range(MAX_LAYERS + 1)}, "a.")


# --- every loader ---


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    apasco.write_all(root)
    tiny_aniportrait.write_all(root)
    anitalker.write_models(root)
    gfpgan.write_models(root)
    return root


OWN = "talking_portrait"
LOADERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    f"{OWN}/aniportrait/reference_unet.pth": (aniportrait.load_reference_unet, "down_blocks.0.resnets.0.conv1.weight"),
    f"{OWN}/aniportrait/pose_guider.pth": (aniportrait.load_pose_guider, "conv_layers_1.0.weight"),
    f"{OWN}/aniportrait/audio2mesh.pt": (
        aniportrait.load_audio2mesh, "audio_encoder.encoder.layers.0.final_layer_norm.weight"),
    f"{OWN}/aniportrait/audio2pose.pt": (aniportrait.load_audio2pose, "transformer_decoder.layers.0.linear1.weight"),
    f"{OWN}/anitalker/stage1.ckpt": (load_stage1, "dec.to_flows.0.conv.weight"),
    f"{OWN}/anitalker/stage2_full_control_hubert.ckpt": (
        load_stage2, "ema_model.speech_encoder.encoders.0.feed_forward.w_1.weight"),
    f"{OWN}/hallo/net.pth": (load_net, "denoising_unet.down_blocks.0.resnets.0.conv1.weight"),
    "upscale_models/GFPGANv1.4.pth": (load_gfpgan, "toRGB.0.weight"),
    "audio_encoders/chinese-hubert-large.bin": (load_speech_encoder, "encoder.layers.0.final_layer_norm.weight"),
    "vae/sd-vae-ft-mse.safetensors": (load_vae, "encoder.down_blocks.0.resnets.0.conv1.weight"),
    "clip_vision/sd-image-variations-image-encoder.bin": (
        load_clip_vision, "vision_model.encoder.layers.0.mlp.fc1.weight"),
}  # fmt: skip


@pytest.mark.parametrize("file", LOADERS)
def test_a_loader_answers_impossible_tensors_with_a_sentence(models: Path, tmp_path: Path, file: str) -> None:
    """A missing tensor that sizes are read from, one of no dimension, of no numbers, of too many, a layer far away."""
    load, name = LOADERS[file]
    state = read_checkpoint(models / file)
    path = tmp_path / f"{Path(file).stem}.bin"
    whole = state.pop(name)
    many = torch.ones(1).expand(1, 10**8, *whole.shape[2:])
    later = name.replace("0.", "100000000.", 1)
    for change in ({}, {name: torch.tensor(1.0)}, {name: whole[:0]}, {name: many}, {name: whole, later: whole}):
        torch.save({**state, **change}, path)
        refusal(path, load)


def test_a_table_of_positions_without_end_makes_none_of_its_kind(models: Path, tmp_path: Path) -> None:
    state = read_checkpoint(models / OWN / "hallo/net.pth")
    tables = [name for name in state if name.endswith(".pe")]
    state = {name: tensor for name, tensor in state.items() if name not in tables[1:]}
    torch.save({**state, tables[0]: torch.ones(1).expand(1, 10**7, 32)}, tmp_path / "net.pth")
    assert "a table of 10000000 positions" in refusal(tmp_path / "net.pth", load_net)


@settings(max_examples=40, deadline=None)
@given(places=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=5))
@pytest.mark.parametrize("form", ["zip 5", "legacy 4", "plain 2", "plain 4"])
def test_changed_bytes_are_read_or_one_sentence(tmp_path_factory, form: str, places) -> None:
    path = tmp_path_factory.mktemp("changed") / "a.ckpt"
    kind, protocol = form.split()
    value = {"state_dict": {"module.w": torch.ones(3, 2), "module.b": torch.ones(2).half()}, "optimizer": [{}], "n": 1}
    if kind == "plain":
        path.write_bytes(pickle.dumps(value, int(protocol)))
    else:
        torch.save(value, path, pickle_protocol=int(protocol), _use_new_zipfile_serialization=kind == "zip")
    raw = bytearray(path.read_bytes())
    for place, byte in places:
        raw[place % len(raw)] = byte
    path.write_bytes(raw)
    with suppress(TalkingPortraitError):
        assert all(isinstance(tensor, torch.Tensor) for tensor in read_checkpoint(path).values())


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=300), protocol=st.sampled_from([b"", b"\x80\x02", b"\x80\x04}", b"\x80\x02("]))
def test_random_pickles_are_read_or_one_sentence(tmp_path_factory, content: bytes, protocol: bytes) -> None:
    path = tmp_path_factory.mktemp("random") / "a.pth"
    path.write_bytes(protocol + content + b".")
    with suppress(TalkingPortraitError):
        read_checkpoint(path)
