"""The containers that torch.save has written over the years, and the numbers in them.

    since 2020   a zip archive: data.pkl, and each storage as a file of its own, uncompressed
    2017 - 2020  pickles one after another (magic number, version, system, value, keys), then the storages
    until 2017   a tar archive of storages, tensors and pickle
    never        a plain pickle, whose storages lie in it as bytes of the second kind

`TorchFile.value` is what was saved, as `pickle_reader` has it; only the tensors that are requested are read from disk.
"""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from .pickle_reader import (
    MAX_DIMENSIONS,
    Budget,
    Name,
    PickleReader,
    Storage,
    StoredTensor,
    UnreadableTensor,
    storage_dtype,
)

MAX_PICKLE = 32 * 1024**2
"""Bytes of names and shapes in an archive of weights; the tensors lie beside them. More is a bomb."""
MAX_UNPACKED = 20
"""How many times larger than its file an archive may unpack; torch does not compress at all."""
MAGIC = 0x1950A86A20F9469CFC6C
"""The first of the pickles that torch.save wrote one after another."""
_LOCAL_HEADER = 30

DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error, RuntimeError, ValueError, ArithmeticError),
    *(LookupError, TypeError, AttributeError, EOFError, OSError, MemoryError, NotImplementedError),
)
"""What readers raise for bytes that are no archive, no pickle or no tensor."""


class TorchScriptError(Exception):
    """The file holds a program and not weights alone."""


@dataclass(frozen=True)
class Place:
    """Where a storage's bytes lie in the file; `unpack` gives them where they are compressed."""

    offset: int
    nbytes: int
    unpack: Callable[[], bytes] | None = None


@dataclass
class TorchFile:
    path: Path
    value: Any = None
    names: set[Name] = field(default_factory=set)
    places: dict[str, Place] = field(default_factory=dict)
    _bytes: dict[Any, torch.Tensor] = field(default_factory=dict)

    def tensor(self, stored: StoredTensor, *, mapped: bool = False) -> torch.Tensor:
        """On the CPU, as stored; tensors that share a storage share memory. `mapped` leaves the numbers in the file.

        Raises one of `DAMAGE` for a tensor that reaches beyond its storage or a storage beyond the file.
        """
        storage = stored.storage
        start = storage.start * storage.dtype.itemsize
        raw = self._raw(storage, mapped)[start : start + storage.nbytes]
        if len(raw) < storage.nbytes:
            raise ValueError(f"a tensor needs {start + storage.nbytes} bytes of a storage of {start + len(raw)}")
        flat = raw.view(stored.dtype) if len(raw) else torch.empty(0, dtype=stored.dtype)
        return flat.as_strided(stored.shape, stored.stride, stored.offset)

    def _raw(self, storage: Storage, mapped: bool) -> torch.Tensor:
        """A storage's bytes; each is read once."""
        key = storage.key if storage.content is None else (id(storage.content[0]), storage.content[1])
        if key not in self._bytes:
            self._bytes[key] = torch.from_numpy(self._read(storage, mapped))
        return self._bytes[key]

    def _read(self, storage: Storage, mapped: bool) -> np.ndarray:
        if storage.content is not None:
            data, offset = storage.content
            return np.frombuffer(data, np.uint8)[offset : offset + storage.nbytes].copy()
        place = self.places[storage.key]
        if place.unpack is not None:
            return np.frombuffer(bytearray(place.unpack()), np.uint8)
        if place.offset + place.nbytes > self.path.stat().st_size:
            raise ValueError(f"a storage of {place.nbytes} bytes reaches beyond the end of the file")
        if mapped and place.nbytes:
            return np.memmap(self.path, np.uint8, "c", place.offset, (place.nbytes,))
        return np.fromfile(self.path, np.uint8, place.nbytes, offset=place.offset)


def open_torch_file(path: Path) -> TorchFile:
    """What torch.save, or pickle alone, wrote into a file. Nothing in it is imported or executed.

    Raises TorchScriptError for a program, ProgramInPickleError for a pickle that would run one, and one of `DAMAGE` for
    what is neither.
    """
    if zipfile.is_zipfile(path):
        return _open_zip(path)
    with path.open("rb") as file:
        if file.read(2) == b"PK":
            raise ValueError("its end is missing")
        file.seek(257)
        if file.read(5) == b"ustar":
            return _open_tar(path)
        file.seek(0)
        opened = TorchFile(path)
        opened.value = _Pickles(file, opened).read()
        return opened


# --- zip ---


def _open_zip(path: Path) -> TorchFile:
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if len(entries) != len(archive.infolist()):
            raise ValueError("two entries of the archive have the same name")
        if any(name.endswith("/constants.pkl") or "/code/" in name for name in entries):
            raise TorchScriptError
        unpacked = sum(entry.file_size for entry in entries.values())
        if unpacked > MAX_UNPACKED * path.stat().st_size + MAX_PICKLE:
            raise ValueError(f"its {path.stat().st_size} bytes would unpack to {unpacked}")
        lists = [name for name in entries if name.rpartition("/")[2] == "data.pkl"]
        if len(lists) != 1:
            raise ValueError(f"the archive has {len(lists)} lists of tensors (data.pkl) and not one")
        folder = lists[0].removesuffix("data.pkl")
        if entries[lists[0]].file_size > MAX_PICKLE:
            raise ValueError(f"{lists[0][:80]} in it unpacks to {entries[lists[0]].file_size} bytes")
        order = f"{folder}byteorder"
        if order in entries and entries[order].file_size < 16 and archive.read(order) == b"big":
            raise ValueError("its numbers are stored in the big-endian order of other processors")
        opened = TorchFile(path, places=_zip_places(path, entries, f"{folder}data/"))
        reader = PickleReader(lambda identifier: _storage(identifier)[0])
        opened.value = reader.read(io.BytesIO(archive.read(lists[0])))
        opened.names = reader.names
        return opened


def _zip_places(path: Path, entries: dict[str, zipfile.ZipInfo], folder: str) -> dict[str, Place]:
    """Storages by their key. Raises ValueError where two entries overlap or one reaches beyond the file."""
    places, ends, size = {}, [], path.stat().st_size
    with path.open("rb") as file:
        for name, entry in entries.items():
            file.seek(entry.header_offset)
            header = file.read(_LOCAL_HEADER)
            if header[:4] != b"PK\x03\x04" or len(header) < _LOCAL_HEADER:
                raise ValueError(f"its entry {name[:80]} is not where the archive's list says")
            lengths = struct.unpack("<HH", header[26:])
            start = entry.header_offset + _LOCAL_HEADER + sum(lengths)
            ends.append((entry.header_offset, start + entry.compress_size))
            if name.startswith(folder):
                plain = entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & 1
                unpack = None if plain else _unpacker(path, name)
                places[name.removeprefix(folder)] = Place(start, entry.file_size, unpack)
                if plain and entry.file_size != entry.compress_size:
                    raise ValueError(f"its entry {name[:80]} has two sizes")
    ends.sort()
    if any(end > begin for (_, end), (begin, _) in zip(ends, ends[1:], strict=False)) or (ends and ends[-1][1] > size):
        raise ValueError("entries of the archive overlap")
    return places


def _unpacker(path: Path, name: str) -> Callable[[], bytes]:
    def unpack() -> bytes:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name)

    return unpack


def _storage(identifier: Any) -> tuple[Any, Any]:
    """A storage, or a tensor that cannot be read, from its identifier, and of what it is a view (torch until 2020)."""
    if not isinstance(identifier, tuple) or len(identifier) < 2:
        raise ValueError("an identifier in a pickle is no storage's")
    if identifier[0] == "module":
        return identifier[1], None
    _, kind, key, _, count, *view = identifier
    dtype = storage_dtype(kind)
    if dtype is None:
        return UnreadableTensor("quantised"), None
    if not isinstance(key, str) or type(count) is not int or count < 0:
        raise ValueError("a storage's key is no text or its size no number")
    return Storage(key, dtype, count), view[0] if view else None


# --- pickles one after another ---


class _Pickles:
    """Reads the pickles that torch.save wrote one after another, or a single plain one."""

    def __init__(self, file: BinaryIO, opened: TorchFile, data: bytes | None = None, budget: Budget | None = None):
        """`data` is what `file` holds where that is part of another pickle, so that storages may point into it."""
        self.file, self.opened, self.data = file, opened, data
        nested = None if data is not None else self._nested
        self.reader = PickleReader(self._persistent, nested, budget)
        self.reader.names = opened.names
        self.found: dict[str, Storage] = {}
        self.contents: dict[str, tuple[bytes, int]] = {}
        self.known: dict[int, Any] = {}

    def read(self) -> Any:
        first = self.reader.read(self.file)
        if first != MAGIC:
            return first
        self.reader.read(self.file)
        system = self.reader.read(self.file)
        if isinstance(system, dict) and system.get("little_endian") is False:
            raise ValueError("its numbers are stored in the big-endian order of other processors")
        value = self.reader.read(self.file)
        keys = self.reader.read(self.file)
        for key in keys:
            storage = self.found[key]
            (count,) = struct.unpack("<q", self.file.read(8))
            if count != storage.count:
                raise ValueError(f"a storage of {storage.count} numbers has {count} in the file")
            start = self.file.tell()
            self.file.seek(storage.nbytes, io.SEEK_CUR)
            self.opened.places[key] = Place(start, storage.nbytes)
            if self.data is not None and isinstance(value, Storage) and value.key == key:
                value = replace(value, content=(self.data, start))
        self.file.seek(0, io.SEEK_END)
        if any(place.offset + place.nbytes > self.file.tell() for place in self.opened.places.values()):
            raise ValueError("its last numbers are missing")
        return value

    def _persistent(self, identifier: Any) -> Any:
        storage, view = _storage(identifier)
        if not isinstance(storage, Storage):
            return storage
        if self.found.setdefault(storage.key, storage) != storage:
            raise ValueError("a storage has two sizes")
        if view is None:
            return storage
        _, start, count = view
        if any(type(n) is not int or n < 0 for n in (start, count)):
            raise ValueError("a storage's view is no number")
        return replace(storage, start=start, count=count)

    def _nested(self, data: bytes) -> Any:
        """The storage that `data`, part of a plain pickle, holds whole."""
        if id(data) not in self.known:
            inner = TorchFile(self.opened.path, names=self.opened.names)
            self.known[id(data)] = data, _Pickles(io.BytesIO(data), inner, data, self.reader.budget).read()
        return self.known[id(data)][1]


# --- tar ---


def _open_tar(path: Path) -> TorchFile:
    with tarfile.open(path, "r:") as archive:
        members = {member.name.removeprefix("./"): member for member in archive.getmembers()}
    opened = TorchFile(path)
    with path.open("rb") as file:
        tensors = _tar_tensors(file, members, opened)
        file.seek(members["pickle"].offset_data)

        def persistent(identifier: Any) -> Any:
            return identifier[0] if isinstance(identifier, tuple) else tensors[int(identifier)]

        reader = PickleReader(persistent)
        opened.value = reader.read(file)
        opened.names = reader.names
    return opened


def _tar_tensors(file: BinaryIO, members: dict[str, tarfile.TarInfo], opened: TorchFile) -> dict[int, StoredTensor]:
    reader = PickleReader()

    def numbers(count: int, kind: str = "q") -> tuple[int, ...]:
        return struct.unpack(f"<{count}{kind}", file.read(count * struct.calcsize(f"<{kind}")))

    storages: dict[int, Storage] = {}
    file.seek(members["storages"].offset_data)
    for _ in range(reader.read(file)):
        key, _, kind = reader.read(file)
        dtype = storage_dtype(kind)
        (count,) = numbers(1)
        if dtype is None or count < 0:
            raise ValueError("a storage is quantised or of no size")
        storages[key] = Storage(f"{key}", dtype, count)
        opened.places[f"{key}"] = Place(file.tell(), storages[key].nbytes)
        file.seek(storages[key].nbytes, io.SEEK_CUR)
    for key, root, start, count in reader.read(file):
        storages[key] = replace(storages[root], start=start, count=count)

    tensors: dict[int, StoredTensor] = {}
    file.seek(members["tensors"].offset_data)
    for _ in range(reader.read(file)):
        key, storage, _ = reader.read(file)
        dimensions, _ = numbers(2, "i")
        if not 0 <= dimensions <= MAX_DIMENSIONS:
            raise ValueError(f"a tensor has {dimensions} dimensions")
        shape, stride, (offset,) = numbers(dimensions), numbers(dimensions), numbers(1)
        tensors[key] = StoredTensor(storages[storage], storages[storage].dtype, offset, shape, stride)
    return tensors
