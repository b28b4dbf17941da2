"""Files of weights: how one is written, the index of a model in several, and weights of eight bits with a scale."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from .errors import TalkingPortraitError, one_line

INDEX_SUFFIX = ".index.json"
MAX_SHARDS = 256
FOLDER_FILES = tuple(
    f"{name}{ending}"
    for ending in (".safetensors", ".bin", f".safetensors{INDEX_SUFFIX}", f".bin{INDEX_SUFFIX}")
    for name in ("model", "pytorch_model", "diffusion_pytorch_model")
)
"""What the weights in a folder of transformers or diffusers are called."""
_PART = re.compile(r"(.+)-(\d{3,5})-of-(\d{3,5})(\.\w+)")

Read = TypeVar("Read")

OTHER_FORMATS = (
    (re.compile(rb"GGUF|GGML|ggjt|tjgg"), "GGUF or GGML, with quantised weights"),
    (re.compile(rb"ftrt|ptrt"), "TensorRT"),
    (re.compile(rb"\x89HDF\r\n"), "Keras (HDF5)"),
    (re.compile(rb".{4}TFL3", re.S), "TensorFlow Lite"),
    (re.compile(rb"\x08[\x01-\x14]\x12.(pytorch|onnx|tf2onnx|\x00)", re.S), "ONNX"),
)
"""How files of networks begin that are none of torch's, whatever their names say."""


def check_format(path: Path) -> None:
    """Raises TalkingPortraitError for a file of another program's networks, whatever its name says."""
    with path.open("rb") as file:
        start = file.read(64)
    other = next((name for begin, name in OTHER_FORMATS if begin.match(start)), None)
    if other is not None:
        raise TalkingPortraitError(
            f"{path.name} is a file of {other}, which is not taken here; take the network as .safetensors or as a file "
            "of torch (.pth, .pt, .ckpt or .bin), in float32, float16 or bfloat16."
        )


_EIGHT_BITS = tuple(
    getattr(torch, f"float8_{name}")
    for name in ("e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz")
    if hasattr(torch, f"float8_{name}")
)
_SCALES = ("scale_weight", "weight_scale")
"""What ComfyUI's older and newer files call the number by which a layer's weights are multiplied."""
_BESIDE_SCALES = ("scale_input", "input_scale", "comfy_quant")
"""What they hold beside it, for computing in eight bits."""


def without_scales(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of eight-bit floats multiplied by the scales that a "scaled fp8" file holds beside them, as bfloat16.

    A scale is one number, or one for each of a layer's outputs; what has another form stays as it is.
    """
    found = {name: tensor for name, tensor in state.items() if name.rpartition(".")[2] != "scaled_fp8"}
    for name, weight in state.items():
        layer, _, last = name.rpartition(".")
        if last != "weight" or weight.dtype not in _EIGHT_BITS:
            continue
        scales = [f"{layer}.{scale}" for scale in _SCALES if f"{layer}.{scale}" in state]
        if len(scales) == 1 and state[scales[0]].numel() in (1, weight.shape[0]):
            scale = found.pop(scales[0]).float().reshape(-1, *(1 for _ in weight.shape[1:]))
            found[name] = (weight.float() * scale).bfloat16()
            for beside in _BESIDE_SCALES:
                found.pop(f"{layer}.{beside}", None)
    return found


def read_shipped(path: Path, read: Callable[[Path], Read]) -> Read:
    """What `read` makes of a file that comes with the pack.

    Raises TalkingPortraitError, which says to install the pack again, where it is missing, damaged or of another
    version.
    """
    try:
        return read(path)
    except TalkingPortraitError:  # of another file that ships
        raise
    except Exception as error:  # a damaged file can fail anywhere
        raise TalkingPortraitError(
            f"{path}, a part of Talking Portrait itself, {_fault(path, error)}; install the pack again, all files of "
            "one version."
        ) from None


def _fault(path: Path, error: Exception) -> str:
    if not path.is_file():
        return "is missing"
    if isinstance(error, OSError):
        return f"can't be read ({one_line(error.strerror or str(error), 120)})"
    with path.open("rb") as file:
        if file.read(64).startswith(b"version https://git-lfs"):
            return "is a git-lfs pointer and not the file itself, which git lfs pull fetches"
    return f"is damaged or of another version ({one_line(str(error), 120)})"


def save_tensors(tensors: Mapping[str, torch.Tensor], path: str | Path, metadata: dict[str, str] | None = None) -> None:
    """Writes a .safetensors file of contiguous tensors on the CPU, with the permissions that any new file gets.

    safetensors writes files that nobody but their owner can read, not even a ComfyUI that runs as another user.
    Raises OSError or SafetensorError where the file can't be written.
    """
    from safetensors.torch import save_file

    with open(path, "wb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    save_file(dict(tensors), path, metadata)
    os.chmod(path, mode)


def model_files(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """All files of the model at `path`: those of an index, of a folder, or the other parts of one that is a part.

    Nodes list files of weights by their endings, so of a model in parts they offer the parts and not its index.
    Raises TalkingPortraitError where a part is missing, and as `shard_files`.
    """
    if os.path.isdir(path):
        path = next((path / name for name in FOLDER_FILES if (path / name).is_file()), path)
    if path.name.lower().endswith(INDEX_SUFFIX) and os.path.isfile(path):
        files = shard_files(path, suffixes)
    elif (part := _PART.fullmatch(path.name)) and 1 < int(part[3]) <= MAX_SHARDS and os.path.isfile(path):
        numbers = range(1, int(part[3]) + 1)
        files = [path.with_name(f"{part[1]}-{n:0{len(part[2])}}-of-{part[3]}{part[4]}") for n in numbers]
    else:
        return [path]
    missing = [file.name for file in files if not os.path.isfile(file)]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise TalkingPortraitError(
            f"{path.name} belongs to a model in {len(files)} files, of which {missing[0]}{more} is not there; put all "
            "of them into one folder."
        )
    return files


def shard_files(index: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files of weights that an index lists, all of which lie beside it.

    Raises TalkingPortraitError for a file that is no index, or that names files anywhere else.
    """
    try:
        files = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise TalkingPortraitError(
            f"{index.name} is no readable index of a model's files; download it again."
        ) from None
    outside = [name for name in files if not _lies_beside(name, suffixes)]
    if outside or not 0 < len(files) <= MAX_SHARDS:
        what = f"the file {one_line(str(outside[0]))}" if outside else f"{len(files)} files"
        raise TalkingPortraitError(
            f"{index.name} names {what}, but 1 to {MAX_SHARDS} files of weights in its own folder are expected; take "
            "the published index."
        )
    return [index.parent / name for name in files]


def _lies_beside(name: Any, suffixes: tuple[str, ...]) -> bool:
    """Whether an index's entry is the plain name of a file of weights."""
    return isinstance(name, str) and bool(re.fullmatch(r"\w[\w. -]*", name)) and name.lower().endswith(suffixes)
