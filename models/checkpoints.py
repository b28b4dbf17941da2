"""Reading files of weights safely, and loading them strictly with differences in words.

`.safetensors` is read as it is. Pickled files (.bin, .pth, .pt, .ckpt) are searched for anything but tensors and plain
containers before torch reads them with `weights_only=True`, and only with a torch whose own check is sound
(CVE-2026-24747 was closed in 2.10).
"""

from __future__ import annotations

import io
import json
import pickletools
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch

from .checkpoint_kinds import describe, identify
from .errors import TalkingPortraitError

State = dict[str, torch.Tensor]

PICKLE_SUFFIXES = (".bin", ".pth", ".pt", ".ckpt")
SUFFIXES = (".safetensors", *PICKLE_SUFFIXES)
SAFE_TORCH = (2, 10)
"""Earlier versions run code from a pickle even with `weights_only`."""
MAX_PICKLE = 32 * 1024**2
"""Bytes of names and shapes in an archive of weights; the tensors lie beside them. More is a bomb."""
MAX_OPCODES = 3_000_000
"""Steps of a pickle; a network of ten thousand tensors takes about a third of a million."""
MAX_HEADER = 100_000_000
"""Bytes of a .safetensors file's list of tensors, as its own library has it."""
MAX_UNPACKED = 20
"""How many times larger than its file an archive may unpack; torch does not compress at all."""
MAX_REPEATED = 1_000_000_000
"""Numbers of a tensor whose file stores fewer and repeats them; no layer here is nearly as large."""
MAX_WRAPPERS = 8
"""State dicts within each other."""
WRAPPERS = ("params_ema", "state_dict", "model_state_dict", "params", "model", "net")
"""Names under which training scripts put a state dict, the preferred one first."""

_SAFE_GLOBALS = re.compile(
    r"collections OrderedDict|_codecs encode|torch\.nn\.parameter Parameter|torch (\w+Storage|Size|device)"
    r"|torch\._utils _rebuild_(tensor(_v2)?|parameter(_with_state)?)|torch\.storage \w+Storage"
    r"|torch (bfloat16|float(16|32|64)?|half|double|u?int(8|16|32|64)|short|long|bool)"
)
"""What a pickled state dict is made of, as `module name`."""


def read_checkpoint(path: str | Path, *, mapped: bool = False) -> State:
    """Name to tensor (on the CPU, as stored) of any file of weights; wrappers and `module.` are taken off.

    `mapped` leaves the numbers in the file where it can: fast for a look at names and shapes.

    Raises TalkingPortraitError, one sentence, for a file that is missing, cut short, a web page or a git-lfs pointer
    under a weight file's name, a pickle that holds code, or without a single tensor.
    """
    path = Path(path)
    check_file(path)
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return _strip(_unwrap(_read_safetensors(path), path))
    if suffix not in PICKLE_SUFFIXES:
        raise TalkingPortraitError(
            f"{path.name} is no file of weights by its ending; one of {', '.join(SUFFIXES)} is expected."
        )
    return _strip(_unwrap(_read_pickle(path, mapped), path))


def check_file(path: Path) -> None:
    """Raises TalkingPortraitError when there is no file, or one that is no model whatever its name."""
    if not path.is_file():
        raise TalkingPortraitError(
            f"{path} is {'a folder' if path.is_dir() else 'not there'}, but a model file is expected; check its name "
            "and folder."
        )
    with path.open("rb") as file:
        start = file.read(512)
    text = start.lstrip().lower()
    if not start:
        problem = "is empty"
    elif text.startswith(b"version https://git-lfs"):
        problem = "is a git-lfs pointer and not the weights themselves (git lfs pull fetches those)"
    elif text.startswith((b"<!doctype", b"<html", b"<?xml")):
        problem = "is a web page and not weights (the download was refused, or a page's address was taken)"
    elif text.startswith(b"{") and 0 not in start[:8]:  # a .safetensors may begin with the same byte, then has zeros
        problem = "is a JSON text and not weights"
    else:
        return
    raise TalkingPortraitError(f"{path.name} {problem}; download it again.")


def _cut_short(path: Path, detail: str) -> TalkingPortraitError:
    return TalkingPortraitError(f"{path.name} is damaged or cut short ({detail}); download it again.")


def _read_safetensors(path: Path) -> State:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        header = file.read(length) if 0 < length < min(size, MAX_HEADER) else b""
    try:
        entries = json.loads(header)
        end = 8 + length + max((e["data_offsets"][1] for k, e in entries.items() if k != "__metadata__"), default=0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise _cut_short(path, "its list of tensors cannot be read") from None
    if size < end:
        raise _cut_short(path, f"{size} of {end} bytes are there")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise _cut_short(path, str(error)) from None


def _read_pickle(path: Path, mapped: bool) -> Any:
    refuse_code(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickle protocols, which only damaged files have
            mapped = mapped and zipfile.is_zipfile(path)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # zip, pickle and torch each have their own for a damaged file
        raise _cut_short(path, f"{type(error).__name__}: {str(error).splitlines()[0][:120]}") from None


def refuse_code(path: Path) -> None:
    """Raises TalkingPortraitError when a pickled file names anything but tensors and plain containers.

    Nothing is executed. Also refuses every pickle under a torch too old to read one safely.
    """
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < SAFE_TORCH:
        raise TalkingPortraitError(
            f"{path.name} is a pickle, which torch {torch.__version__} cannot read safely; "
            f"update torch to {'.'.join(map(str, SAFE_TORCH))} or take the file as .safetensors."
        )
    try:
        for pickle in _pickles(path):
            _check_globals(path, pickle)
    except TalkingPortraitError:
        raise
    except _DAMAGE as error:
        raise _cut_short(path, f"{type(error).__name__}: {error}") from None


_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, RuntimeError, ValueError, ArithmeticError, LookupError),
    *(EOFError, OSError, MemoryError),
)
"""What zipfile, zlib and pickletools raise for bytes that are no archive or no pickle."""


def _pickles(path: Path) -> Iterator[BinaryIO]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") or "/code/" in name for name in archive.namelist()):
                raise TalkingPortraitError(
                    f"{path.name} is a TorchScript program, but weights alone are expected here; choose a file of "
                    "weights."
                )
            unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > MAX_UNPACKED * path.stat().st_size + MAX_PICKLE:
                raise _cut_short(path, f"its {path.stat().st_size} bytes would unpack to {unpacked}")
            for name in archive.namelist():
                if name.endswith(".pkl"):
                    if archive.getinfo(name).file_size > MAX_PICKLE:
                        raise _cut_short(path, f"{name} in it unpacks to {archive.getinfo(name).file_size} bytes")
                    with archive.open(name) as file:
                        yield io.BytesIO(file.read())
        return
    with path.open("rb") as file:
        if file.read(2) == b"PK":
            raise _cut_short(path, "its end is missing")
        file.seek(0)
        for _ in range(4):  # before 2019: magic number, version, system and state dict, then raw numbers
            yield file


def _check_globals(path: Path, file: BinaryIO) -> None:
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if count > MAX_OPCODES:
            raise _cut_short(path, f"its list of tensors has more than {MAX_OPCODES} steps")
        if opcode.name == "GLOBAL" and _SAFE_GLOBALS.fullmatch(str(argument)):
            continue
        if opcode.name in ("GLOBAL", "INST", "STACK_GLOBAL") or opcode.name.startswith("EXT"):
            named = str(argument).replace(" ", ".") if argument else "something that only its code can name"
            raise TalkingPortraitError(
                f"{path.name} holds code ({named}), but weights alone are expected, so it is not opened; "
                "take the file as .safetensors, or from the author's own page."
            )


def _unwrap(value: Any, path: Path) -> State:
    for _ in range(MAX_WRAPPERS):
        if not isinstance(value, Mapping):
            break
        tensors = {str(k): v for k, v in value.items() if isinstance(k, str | int) and isinstance(v, torch.Tensor)}
        inner = next((value[name] for name in WRAPPERS if isinstance(value.get(name), Mapping)), None)
        if inner is None or len(tensors) > len(inner):
            if tensors:
                _check_extent(tensors, path)
                return tensors
            break
        value = inner
    raise TalkingPortraitError(f"{path.name} holds no named tensors ({type(value).__name__}), so it is no state dict.")


def _check_extent(tensors: State, path: Path) -> None:
    """Raises TalkingPortraitError for tensors that repeat a few stored numbers, as a copy of one would fill memory."""
    for name, tensor in tensors.items():
        stored = tensor.untyped_storage().nbytes() if tensor.layout == torch.strided and not tensor.is_quantized else 0
        if tensor.numel() > MAX_REPEATED and tensor.numel() * tensor.element_size() > stored:
            raise _cut_short(path, f"{name[:80]} has the shape {tuple(tensor.shape)}, but only {stored} bytes")


def layer_count(state: Mapping[str, torch.Tensor], prefix: str) -> int:
    """How many layers the names `prefix` NUMBER.… have; they count from 0 without a gap.

    Raises TalkingPortraitError where one is missing, lest a single large number makes millions of layers.
    """
    numbers = {name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)}
    if not numbers or numbers != {str(number) for number in range(len(numbers))}:
        raise TalkingPortraitError(
            f"The file's {len(numbers)} layers {prefix}* ({_first(sorted(name[:20] for name in numbers))}) are not "
            "numbered from 0 without a gap, as those of a network are; take the published file."
        )
    return len(numbers)


def _strip(state: State) -> State:
    """Takes `module.` (from training on several devices) off, when every name has it."""
    if state and all(name.startswith("module.") for name in state):
        return {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return state


def expect_kind(state: Mapping[str, torch.Tensor], names: Iterable[str], wanted: str, path: str | Path) -> None:
    """Raises TalkingPortraitError, saying what the file is, unless it is one of these kinds (`checkpoint_kinds.KINDS`).

    `wanted` completes "... but {wanted} is expected".
    """
    kind = identify(state)
    if kind is None or kind.name not in names:
        raise TalkingPortraitError(
            f"{Path(path).name} is {describe(state)}, but {wanted} is expected here; choose such a file."
        )
    for name, tensor in state.items():
        if tensor.numel() == 0 or (tensor.ndim == 0 and name.endswith((".weight", ".bias"))):
            raise TalkingPortraitError(
                f"{Path(path).name} holds {name[:80]} of the shape {tuple(tensor.shape)}, which no network has; take "
                "the published file."
            )


def rename_keys(state: Mapping[str, torch.Tensor], rules: Sequence[tuple[str, str]]) -> State:
    """Names changed by regular expressions, each rule in turn; two names that become one are an error in the rules."""
    renamed: State = {}
    for name, tensor in state.items():
        new = name
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        if new in renamed:
            raise ValueError(f"two tensors are named {new} after renaming")
        renamed[new] = tensor
    return renamed


def strict_load(
    module: torch.nn.Module, state: Mapping[str, torch.Tensor], *, path: str | Path, unused: Sequence[str] = ()
) -> None:
    """Fills every parameter and buffer of `module`, or raises one sentence on what does not fit.

    `unused` are regular expressions for names that the file may hold beyond the module's (training heads and the like).
    A module on the meta device takes the tensors over instead of copying; numbers keep the module's dtype.

    Raises TalkingPortraitError that counts and names what is missing, surplus or of another shape.
    """
    own = module.state_dict()
    surplus = [k for k in state if k not in own and not any(re.match(pattern, k) for pattern in unused)]
    missing = [k for k in own if k not in state]
    reshaped = [
        f"{k} is {tuple(state[k].shape)} and not {tuple(v.shape)}"
        for k, v in own.items()
        if k in state and state[k].shape != v.shape
    ]
    found = (("missing", missing), ("of another shape", reshaped), ("unknown", surplus))
    problems = [f"{len(names)} {what} ({_first(names)})" for what, names in found if names]
    if problems:
        raise TalkingPortraitError(
            f"{Path(path).name} is {describe(state)} that does not fit {type(module).__name__}: "
            f"{'; '.join(problems)}; take the published file."
        )
    meta = any(tensor.is_meta for tensor in own.values())
    module.load_state_dict({k: state[k].to(v.dtype) for k, v in own.items()}, assign=meta)


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
