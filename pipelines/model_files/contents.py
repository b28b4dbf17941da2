"""Whether a file holds what its name says: told by its first bytes, its length and its end, without loading it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

HEAD = 512
"""First bytes that are looked at."""
MAX_HEADER = 100_000_000
"""Bytes of a safetensors header, the format's own limit."""


def fault_of(path: Path, name: str) -> str:
    """Why the file at `path` can't be what the ending of `name` says, in a few words; "" where nothing speaks for that.

    A file of a known kind that was cut short is found too, where its format tells its length.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(HEAD)
    found = head_fault(start, name)
    if found:
        return found
    ending = _ending(name)
    if ending == ".safetensors":
        return _safetensors_fault(path, size)
    if start.startswith(_ZIP) and not zipfile.is_zipfile(path):
        return "its end is missing"
    return ""


def head_fault(start: bytes, name: str) -> str:
    """The same by the first bytes alone."""
    if not start:
        return "it is empty"
    kind = _KINDS.get(_ending(name))
    if kind is not None and kind[1](start):
        return ""
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return "it is a web page"
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer in the place of the file"
    return "" if kind is None else f"it is no {kind[0]}"


_ZIP = b"PK\x03\x04"


def _is_checkpoint(start: bytes) -> bool:
    """A zip archive, as torch writes since 1.6, or a pickle, as before."""
    return start.startswith(_ZIP) or (start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"))


def _is_safetensors(start: bytes) -> bool:
    return 2 <= int.from_bytes(start[:8], "little") <= MAX_HEADER and start[8:9] == b"{"


_KINDS: dict[str, tuple[str, Callable[[bytes], bool]]] = {
    **dict.fromkeys((".pth", ".pt", ".ckpt", ".bin", ".model"), ("PyTorch checkpoint", _is_checkpoint)),
    ".safetensors": ("safetensors file", _is_safetensors),
    # Protobuf's first field is the version of the format, a small number.
    ".onnx": ("ONNX network", lambda start: start[:1] == b"\x08" and 1 <= start[1] < 128 if len(start) > 1 else False),
    ".task": ("MediaPipe task", lambda start: start.startswith(_ZIP)),
    ".tflite": ("TensorFlow Lite network", lambda start: start[4:8] == b"TFL3"),
    ".json": ("JSON", lambda start: start.lstrip()[:1] in (b"{", b"[")),
}
"""What files of an ending are called, and whether their first bytes fit."""


def _ending(name: str) -> str:
    return Path(name).suffix.lower()


def _safetensors_fault(path: Path, size: int) -> str:
    """Its header says where its tensors end, which is the file's end."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            stated = 8 + length + max(ends, default=0)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            return "its header is damaged"
    return "" if stated == size else f"it has {size} bytes, but its header says {stated}"
