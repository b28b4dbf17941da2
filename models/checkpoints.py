"""Reading files of weights safely, and loading them strictly with differences in words.

`.safetensors` is read as it is. Of pickled files (.bin, .pth, .pt, .ckpt) only the tensors are read, without importing
or executing anything that they name (`pickle_reader`, `torch_file`), whatever else training has left in them.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from .checkpoint_kinds import Kind, describe, identify, is_averaged, network_prefix
from .errors import TalkingPortraitError, one_line
from .pickle_reader import ProgramInPickleError, UnreadableTensor
from .torch_file import DAMAGE, MAX_PICKLE, TorchFile, TorchScriptError, open_torch_file
from .weight_files import check_format, model_files, without_scales
from .wrappers import TRAINING, Leaf, strip, unbuilt_object, unwrap

State = dict[str, torch.Tensor]

PICKLE_SUFFIXES = (".bin", ".pth", ".pt", ".ckpt", ".pkl", ".model")
SUFFIXES = (".safetensors", *PICKLE_SUFFIXES)
MAX_HEADER = MAX_PICKLE
"""Bytes of a .safetensors file's list of tensors."""
MAX_REPEATED = 1_000_000_000
"""Numbers of a tensor whose file stores fewer and repeats them; no layer here is nearly as large."""
MAX_LAYERS = 256
"""Layers of one kind in a network; the deepest of those here has 48."""

_QUANTISED = re.compile(
    r"(.*\.)?(SCB|absmax|nested_absmax|quant_map|quant_state\..*|qweight|qzeros|scale_weight|weight_scale|scaled_fp8"
    r"|weight_zero_point|comfy_quant|_packed_params.*)"
)
"""Names that programs which quantise weights put beside them."""
_log = logging.getLogger(__name__)


def read_checkpoint(path: str | Path, *, mapped: bool = False) -> State:
    """Name to tensor (on the CPU, as stored) of any file of weights; wrappers and prefixes of training are taken off.

    A model in several files is read whole from any of them, from its index (.index.json) or from the folder that
    transformers or diffusers made for it. Weights of eight bits with a scale come as bfloat16. `mapped` leaves the
    numbers in the file where it can.
    Raises TalkingPortraitError, one sentence, for a file that is missing, cut short, a web page or a git-lfs pointer
    under a weight file's name, a pickle whose tensors only its author's program can bring out, or one without a tensor.
    """
    files = model_files(Path(path), SUFFIXES)
    return strip(without_scales({name: tensor for file in files for name, tensor in _read(file, mapped).items()}))


def _read(path: Path, mapped: bool) -> State:
    check_file(path)
    check_format(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise TalkingPortraitError(
            f"{path.name} is no file of weights by its ending; one of {', '.join(SUFFIXES)} is expected."
        )
    if _is_safetensors(path):
        return _read_safetensors(path)
    opened = _open(path)
    tensors = _named(opened.value, path)
    try:
        return {name: _tensor(opened, name, leaf, mapped) for name, leaf in tensors.items()}
    except TalkingPortraitError:
        raise
    except DAMAGE as error:
        raise _damaged(path, error) from None


def _is_safetensors(path: Path) -> bool:
    """By its content, as people rename files; by its ending where that says nothing."""
    with path.open("rb") as file:
        start = file.read(9)
    if len(start) == 9 and start[8:] == b"{" and struct.unpack("<Q", start[:8])[0] < path.stat().st_size:
        return True
    return path.suffix.lower() == ".safetensors" and not start.startswith((b"PK\x03\x04", b"\x80"))


def check_file(path: Path) -> None:
    """Raises TalkingPortraitError when there is no file, or one that is no model whatever its name."""
    if not os.path.isfile(path):  # False, and not an error, for what no file can be called
        found = "a folder" if os.path.isdir(path) else "not there"
        raise TalkingPortraitError(f"{path} is {found}, but a model file is expected; check its name and folder.")
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise TalkingPortraitError(f"{path} can't be read ({error.strerror}); check its permissions.") from None
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
    return TalkingPortraitError(f"{path.name} is damaged or cut short ({one_line(detail, 140)}); download it again.")


def _damaged(path: Path, error: BaseException) -> TalkingPortraitError:
    return _cut_short(path, str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}")


def _read_safetensors(path: Path) -> State:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if str(path).encode("utf-8", "ignore").decode() != str(path):  # that library takes nothing else
        raise TalkingPortraitError(
            f"{path.name} can't be read, as its name or that of a folder above it is no UTF-8; rename that one."
        )
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
        tensors = load_file(path)
    except (SafetensorError, *DAMAGE) as error:
        raise _damaged(path, error) from None
    _named(tensors, path)
    return tensors


def _open(path: Path) -> TorchFile:
    try:
        return open_torch_file(path)
    except TorchScriptError:
        raise TalkingPortraitError(
            f"{path.name} is a TorchScript program, but weights alone are expected here; choose a file of "
            "weights, or save its own with torch.save(torch.jit.load(file).state_dict(), ...)."
        ) from None
    except ProgramInPickleError as error:
        raise TalkingPortraitError(
            f"{path.name} holds code ({one_line(str(error))}), which would run in software that opens it carelessly, "
            "so it is not read; take a .safetensors, or a file made with torch.save(model.state_dict(), ...)."
        ) from None
    except DAMAGE as error:
        raise _damaged(path, error) from None


SAFE_TORCH = (2, 10)
"""Earlier versions run code from a pickle even with `weights_only` (CVE-2026-24747)."""
_SAFE_NAMES = re.compile(
    r"collections OrderedDict|_codecs encode|torch\.nn\.parameter Parameter|torch (\w+Storage|Size|device)"
    r"|torch\._utils _rebuild_(tensor(_v2)?|parameter(_with_state)?)|torch\.storage \w+Storage"
    r"|torch (bfloat16|float(16|32|64)?|half|double|u?int(8|16|32|64)|short|long|bool)"
)
"""What a pickled state dict is made of, as `module name`."""


def refuse_code(path: Path) -> None:
    """Raises TalkingPortraitError when a pickled file names anything but tensors and plain containers.

    For files that another library opens, with torch's own reader. Nothing is executed. Also refuses every pickle under
    a torch too old to read one safely.
    """
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < SAFE_TORCH:
        raise TalkingPortraitError(
            f"{path.name} is a pickle, which torch {torch.__version__} cannot read safely; "
            f"update torch to {'.'.join(map(str, SAFE_TORCH))} or take the file as .safetensors."
        )
    for name in sorted(_open(path).names, key=str):
        if not _SAFE_NAMES.fullmatch(str(name)):
            raise TalkingPortraitError(
                f"{path.name} holds more than weights ({one_line(f'{name.module}.{name.name}')}), which the library "
                "that opens it would have to run; save it anew with torch.save(model.state_dict(), ...) in its "
                "author's program."
            )


def _named(value: Any, path: Path) -> dict[str, Leaf]:
    tensors = unwrap(value)
    if tensors:
        return tensors
    whole = unbuilt_object(value)
    if whole is not None:
        kind = "an object" if whole.name is None else one_line(f"{whole.name.module}.{whole.name.name}")
        raise TalkingPortraitError(
            f"{path.name} holds a whole program object ({kind}) and no state dict, so only its author's code could "
            "bring the tensors out; open it with that program and save them with torch.save(model.state_dict(), ...)."
        )
    raise TalkingPortraitError(f"{path.name} holds no named tensors ({type(value).__name__}), so it is no state dict.")


def _tensor(opened: TorchFile, name: str, leaf: Leaf, mapped: bool) -> torch.Tensor:
    """Raises TalkingPortraitError for a tensor that repeats a few stored numbers, as a copy of it would fill memory."""
    if isinstance(leaf, torch.Tensor):
        return leaf
    if isinstance(leaf, UnreadableTensor):
        raise TalkingPortraitError(
            f"{opened.path.name} holds {one_line(name)}, which is {leaf.reason}, but plain numbers are expected; "
            "take the file in float32, float16 or bfloat16."
        )
    if math.prod(leaf.shape) > MAX_REPEATED and math.prod(leaf.shape) * leaf.dtype.itemsize > leaf.storage.nbytes:
        raise _cut_short(
            opened.path, f"{one_line(name)} has the shape {leaf.shape}, but only {leaf.storage.nbytes} bytes"
        )
    return opened.tensor(leaf, mapped=mapped)


def layer_count(state: Mapping[str, torch.Tensor], prefix: str) -> int:
    """How many layers the names `prefix` NUMBER.… have; they count from 0 without a gap.

    Raises TalkingPortraitError where one is missing, lest a single large number makes millions of layers, and for more
    than `MAX_LAYERS`.
    """
    numbers = {name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)}
    if not 0 < len(numbers) <= MAX_LAYERS or numbers != {str(number) for number in range(len(numbers))}:
        raise TalkingPortraitError(
            f"The file's {len(numbers)} layers {prefix}* ({_first(sorted(name[:20] for name in numbers))}) are not "
            f"1 to {MAX_LAYERS}, numbered from 0 without a gap, as those of a network are; take the published file."
        )
    return len(numbers)


@contextmanager
def sizes_of(state: Mapping[str, torch.Tensor], path: str | Path) -> Iterator[None]:
    """For reading a network's sizes off its tensors and building it empty.

    Raises TalkingPortraitError in place of what a missing tensor, or one of an impossible shape, leads to.
    """
    try:
        yield
    except TalkingPortraitError:
        raise
    except KeyError as missing:
        raise TalkingPortraitError(
            f"{Path(path).name} is {describe(state)} that lacks {one_line(str(missing.args[0]), 140)}; take the "
            "published file."
        ) from None
    except DAMAGE as error:
        raise TalkingPortraitError(
            f"{Path(path).name} is {describe(state)} with tensors of shapes that no network has "
            f"({one_line(str(error), 140)}); take the published file."
        ) from None


def check_kind(state: Mapping[str, torch.Tensor], names: Iterable[str], wanted: str, path: str | Path) -> Kind:
    """The kind of these tensors.

    Raises TalkingPortraitError, saying what the file is, unless it is one of those named (`checkpoint_kinds.KINDS`).
    `wanted` completes "... but {wanted} is expected".
    """
    kind = identify(state)
    if kind is None or kind.name not in names:
        raise TalkingPortraitError(
            f"{Path(path).name} is {describe(state)}, but {wanted} is expected here; choose such a file."
        )
    return kind


def expect_kind(
    state: Mapping[str, torch.Tensor],
    names: Iterable[str],
    wanted: str,
    path: str | Path,
    *,
    unused: Sequence[str] = (),
) -> State:
    """The tensors of the network that is expected, without what stands before its names, and reports the others.

    `unused` are regular expressions for names beside it that published files have.

    Raises TalkingPortraitError as `check_kind` does, and where weights are quantised or empty.
    """
    kind, title = check_kind(state, names, wanted, path), Path(path).name
    prefix = network_prefix(kind, state)
    network = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    beside = [name for name in state if not name.startswith(prefix)]
    _report(title, [name for name in beside if not _matches(name, unused)], is_averaged(prefix))
    for name, tensor in network.items():
        is_weight = name.endswith((".weight", ".bias"))
        if tensor.numel() == 0 or (tensor.ndim == 0 and is_weight):
            raise TalkingPortraitError(
                f"{title} holds {one_line(name)} of the shape {tuple(tensor.shape)}, which no network has; take the "
                "published file."
            )
        if _QUANTISED.fullmatch(name) or (is_weight and not tensor.is_floating_point()):
            raise _quantised(title, name, tensor)
    return network


def _quantised(title: str, name: str, tensor: torch.Tensor) -> TalkingPortraitError:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return TalkingPortraitError(
        f"{title} holds quantised weights ({one_line(name)} is of the type {dtype}), but plain ones are expected; "
        "take the file in float32, float16 or bfloat16."
    )


def _report(title: str, names: Sequence[str], expected: bool = False) -> None:
    """Logs tensors that are left out; `expected` where published files have them."""
    if names:
        level = logging.INFO if expected else logging.WARNING
        _log.log(
            level, "%s also holds %d tensors of its training, which are not used (%s)", title, len(names), _first(names)
        )


def rename_keys(state: Mapping[str, torch.Tensor], rules: Sequence[tuple[str, str]]) -> State:
    """Names changed by regular expressions, each rule in turn; no two may become one."""
    renamed: State = {}
    for name, tensor in state.items():
        new = name
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        if new in renamed:
            raise TalkingPortraitError(
                f"In this file two tensors are named {one_line(new)} in two spellings; take the published file."
            )
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
    own, title = module.state_dict(), Path(path).name
    surplus = [k for k in state if k not in own and not _matches(k, unused)]
    training = [k for k in surplus if TRAINING.match(k)]
    missing = [k for k in own if k not in state]
    reshaped = [
        f"{one_line(k)} is {tuple(state[k].shape)} and not {tuple(v.shape)}"
        for k, v in own.items()
        if k in state and state[k].shape != v.shape
    ]
    unknown = [one_line(k) for k in surplus if not TRAINING.match(k)]
    found = (("missing", missing), ("of another shape", reshaped), ("unknown", unknown))
    problems = [f"{len(names)} {what} ({_first(names)})" for what, names in found if names]
    if problems:
        raise TalkingPortraitError(
            f"{title} is {describe(state)} that does not fit {type(module).__name__}: {'; '.join(problems)}; take the "
            "published file."
        )
    _report(title, training)
    converted = {k: _converted(state[k], v, k, title) for k, v in own.items()}
    module.load_state_dict(converted, assign=any(tensor.is_meta for tensor in own.values()))


def _converted(tensor: torch.Tensor, wanted: torch.Tensor, name: str, title: str) -> torch.Tensor:
    """In the network's own type of numbers.

    Raises TalkingPortraitError for whole numbers in place of others, which are quantised, and for what is no number.
    """
    if wanted.is_floating_point() and not tensor.is_floating_point():
        raise _quantised(title, name, tensor)
    result = tensor.to(wanted.dtype)
    if result.is_floating_point() and result.numel() and not result.is_meta:
        lowest, highest = result.aminmax()
        if not (math.isfinite(lowest) and math.isfinite(highest)):
            half = "; load it in float32 or bfloat16, or" if wanted.dtype == torch.float16 else ";"
            raise TalkingPortraitError(
                f"{title} holds weights that are no numbers or too large ({one_line(name)}){half} download it again."
            )
    return result


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(re.match(pattern, name) for pattern in patterns)


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
