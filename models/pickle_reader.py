"""Pickles as plain values: an interpreter of pickle's opcodes that imports and calls nothing which a file names.

Dictionaries, lists, numbers and texts become themselves, tensors and NumPy's arrays become records of where their
numbers lie, and every other object (training settings, optimisers, callbacks) an empty `Stub` with its name. Source of
the steps: the documentation of Python's pickletools; of the names and arguments of tensors: torch's `_utils` and
`serialization`.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import torch

from .pickled_arrays import ARRAYS, NumberType, array_of

MAX_OPCODES = 3_000_000
"""Steps of a pickle; a network of ten thousand tensors takes about a third of a million."""
MAX_DIMENSIONS = 25

_RUNNING_MODULES = {
    *("os", "posix", "nt", "sys", "subprocess", "shutil", "socket", "runpy", "importlib", "pty", "ctypes"),
    *("webbrowser", "pickle", "_pickle", "marshal", "timeit", "pdb", "bdb"),
}
"""Modules of Python from which no training setting takes anything, but programs that hide in weights do."""
_BUILTINS = {
    *("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "getattr", "int", "list", "object"),
    *("range", "set", "slice", "str", "tuple", "type", "unicode", "long", "Ellipsis", "NotImplemented", "NoneType"),
}
"""Names of `builtins` that training settings refer to; the others read, write or run something."""
_BUILTIN_MODULES = ("builtins", "__builtin__")
_NOT_STORED = {
    "_rebuild_qtensor": "quantised",
    "_rebuild_sparse_tensor": "sparse",
    "_rebuild_sparse_csr_tensor": "sparse",
    "_rebuild_nested_tensor": "nested",
    "_rebuild_meta_tensor_no_storage": "stored without its numbers",
    "_rebuild_wrapper_subclass": "of a class of its own",
}


@dataclass(frozen=True)
class Name:
    """A name in a module that a pickle refers to."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module} {self.name}"


@dataclass
class Stub:
    """An object that was not built. `items` are what a mapping of the author's own kind was filled with."""

    name: Name | None = None
    items: dict[str | int, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Storage:
    """A run of `count` numbers: under `key` in the file, or the bytes in `content` (data, offset)."""

    key: str
    dtype: torch.dtype
    count: int
    start: int = 0
    content: tuple[bytes, int] | None = None

    @property
    def nbytes(self) -> int:
        return self.count * self.dtype.itemsize


@dataclass(frozen=True)
class StoredTensor:
    """A tensor by where it lies: a view of its storage."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class UnreadableTensor:
    """A tensor whose numbers are not plainly there; `reason` completes "it is ..."."""

    reason: str


class Budget:
    """Steps that all pickles of one file may take together."""

    def __init__(self) -> None:
        self.left = MAX_OPCODES

    def spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise ValueError(f"its list of tensors has more than {MAX_OPCODES} steps")


class ProgramInPickleError(Exception):
    """A pickle names something that runs a program, as no weights do."""


_DTYPES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexDouble": torch.complex128,
    "ComplexFloat": torch.complex64,
    "Untyped": torch.uint8,
}
_QUANTISED = {f"{kind}Storage" for kind in ("QInt8", "QUInt8", "QInt32", "QUInt4x2", "QUInt2x4")}


def storage_dtype(name: Any) -> torch.dtype | None:
    """Of a storage's class, None for a quantised one's. Raises ValueError for what is no storage."""
    if isinstance(name, Name) and name.module in ("torch", "torch.cuda", "torch.storage"):
        if name.name in _QUANTISED:
            return None
        kind = name.name.removesuffix("Storage")
        if name.name != kind and kind in _DTYPES:
            return _DTYPES[kind]
    raise ValueError(f"no storage is called {str(name)[:80]}")


class PickleReader:
    """Reads one pickle after another from a file, with a memo for each. `names` collects what they refer to.

    `persistent` turns the identifier of something outside of the pickle into a value; `nested` the bytes of a storage
    that a plain pickle holds whole into a `Storage`.
    """

    def __init__(
        self,
        persistent: Callable[[Any], Any] | None = None,
        nested: Callable[[bytes], Any] | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.persistent, self.nested, self.budget = persistent, nested, budget or Budget()
        self.names: set[Name] = set()
        self._encoded: dict[int, tuple[str, bytes]] = {}

    def read(self, file: BinaryIO) -> Any:
        """The next pickle's value. The file is then positioned after it.

        Raises ValueError, LookupError or TypeError for what is no pickle, ProgramInPickleError for one that would run
        a program elsewhere.
        """
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        for opcode, argument, _ in pickletools.genops(file):
            self.budget.spend()
            if opcode.name == "STOP":
                return self._stack.pop()
            self._step(opcode.name, argument)
        raise ValueError("a pickle has no end")

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _PUSHED:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name == "MARK":
            self._marks.append(len(stack))
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "POP":
            if self._marks and self._marks[-1] == len(stack):
                self._marks.pop()
            else:
                stack.pop()
        elif name == "POP_MARK":
            self._marked()
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            stack.append(tuple(self._popped(int(name[-1]))))
        elif name in ("TUPLE", "LIST", "DICT", "FROZENSET"):
            values = self._marked()
            stack.append(_filled({}, values) if name == "DICT" else _COLLECTED[name](values))
        elif name in ("SETITEM", "SETITEMS"):
            values = self._popped(2) if name == "SETITEM" else self._marked()
            _filled(stack[-1], values)
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            values = self._popped(1) if name == "APPEND" else self._marked()
            if isinstance(stack[-1], list):
                stack[-1].extend(values)
        else:
            self._object(name, argument)

    def _object(self, name: str, argument: Any) -> None:
        """Steps that name, build or fill an object."""
        stack = self._stack
        if name == "GLOBAL":
            stack.append(self._named(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            stack.append(self._named(*self._popped(2)))
        elif name == "REDUCE":
            function, arguments = self._popped(2)
            stack.append(self._called(function, arguments))
        elif name in ("NEWOBJ", "NEWOBJ_EX"):
            kind, arguments, *_ = self._popped(2 if name == "NEWOBJ" else 3)
            stack.append(self._called(kind, arguments))
        elif name == "INST":
            kind = self._named(*argument.split(" ", 1))
            stack.append(self._called(kind, tuple(self._marked())))
        elif name == "OBJ":
            kind, *arguments = self._marked()
            stack.append(self._called(kind, tuple(arguments)))
        elif name == "BUILD":
            (attributes,) = self._popped(1)  # of other objects than arrays none counts
            if stack and isinstance(stack[-1], Stub) and str(stack[-1].name) in ARRAYS:
                stack[-1] = self._array(attributes)
            elif stack and isinstance(stack[-1], NumberType):
                stack[-1].order = attributes[1]
        elif name in ("PERSID", "BINPERSID"):
            identifier = argument if name == "PERSID" else stack.pop()
            stack.append(self.persistent(identifier) if self.persistent else Stub())
        elif name.startswith("EXT"):
            stack.append(Stub())
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"{name} is no step of a file")

    def _popped(self, count: int) -> list[Any]:
        lowest = self._marks[-1] if self._marks else 0
        if len(self._stack) - lowest < count:
            raise ValueError("a pickle takes more than it has")
        values = self._stack[-count:]
        del self._stack[-count:]
        return values

    def _marked(self) -> list[Any]:
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def _named(self, module: Any, name: Any) -> Name:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise ValueError("a name in a pickle is no text")
        found = Name(module, name)
        self.names.add(found)
        top = module.split(".")[0]
        if top in _RUNNING_MODULES or (module in _BUILTIN_MODULES and name not in _BUILTINS):
            raise ProgramInPickleError(f"{module}.{name}")
        return found

    def _called(self, function: Any, arguments: Any) -> Any:
        """What a call would give, for the few functions of tensors and containers; a `Stub` for all others."""
        if not isinstance(function, Name):
            return Stub()
        module, name = function.module, function.name
        if not isinstance(arguments, tuple):
            raise ValueError("the arguments of a call are no tuple")
        if str(function) in _DICTIONARIES:
            return self._dictionary(arguments)
        if str(function) == "torch Size":
            return arguments[0]
        if str(function) == "torch.storage _load_from_bytes" and self.nested and isinstance(arguments[0], bytes):
            return self.nested(arguments[0])
        if str(function) == "_codecs encode" and arguments[1:] == ("latin1",):
            return self._bytes(arguments[0])
        if module == "torch.nn.parameter" and name in ("Parameter", "Buffer"):
            return arguments[0] if arguments else Stub(function)
        if str(function) == "numpy dtype":
            return NumberType(arguments[0])
        if module in ("torch._utils", "torch._tensor", "torch.tensor"):
            return self._rebuilt(function, arguments)
        return Stub(function)

    def _array(self, state: Any) -> Any:
        """A tensor of the same numbers as an array of NumPy."""
        found = array_of(state, MAX_DIMENSIONS)
        if found is None:
            return UnreadableTensor("an array of another kind than rows of little-endian numbers")
        dtype, shape, data = found
        strides = tuple(math.prod(shape[place + 1 :]) for place in range(len(shape)))
        return StoredTensor(Storage("", dtype, math.prod(shape), content=(data, 0)), dtype, 0, shape, strides)

    def _bytes(self, text: str) -> bytes:
        """Of a text that stands for bytes, as protocols before 3 write them; each text becomes bytes once."""
        if id(text) not in self._encoded:
            self._encoded[id(text)] = text, text.encode("latin-1")
        return self._encoded[id(text)][1]

    def _dictionary(self, arguments: tuple[Any, ...]) -> dict[str | int, Any]:
        """From nothing, from a dictionary, or from pairs as Python 2 wrote them."""
        first = arguments[0] if arguments else ()
        if isinstance(first, dict):
            return first
        found: dict[str | int, Any] = {}
        for pair in first if isinstance(first, list | tuple) else ():
            self.budget.spend()
            if not (isinstance(pair, list | tuple) and len(pair) == 2):
                raise ValueError("a dictionary is no list of pairs")
            _filled(found, list(pair))
        return found

    def _rebuilt(self, function: Name, arguments: tuple[Any, ...]) -> Any:
        """A tensor, from torch's own functions for one."""
        name = function.name
        if name in _NOT_STORED:
            return UnreadableTensor(_NOT_STORED[name])
        if name in ("_rebuild_from_type", "_rebuild_from_type_v2"):
            return self._called(arguments[0], arguments[2])
        if name in ("_rebuild_parameter", "_rebuild_parameter_with_state", "_rebuild_device_tensor_from_cpu_tensor"):
            return arguments[0]
        if name not in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"):
            return Stub(function)
        storage, offset, shape, stride = arguments[:4]
        if isinstance(storage, UnreadableTensor):
            return storage
        if not len(shape) == len(stride) <= MAX_DIMENSIONS:
            raise ValueError("a tensor's shape and strides do not belong together")
        numbers = (offset, *shape, *stride)
        if not isinstance(storage, Storage) or any(type(n) is not int or n < 0 for n in numbers):
            raise ValueError("a tensor's size or place is no number")
        dtype = storage.dtype
        if name == "_rebuild_tensor_v3":
            dtype = _dtype(arguments[6])
        return StoredTensor(storage, dtype, offset, tuple(shape), tuple(stride))


_PUSHED = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING"),
    *("SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES"),
    *("BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,
}
_DICTIONARIES = ("collections OrderedDict", "collections defaultdict", "builtins dict", "__builtin__ dict")
_COLLECTED: Mapping[str, Callable[[list[Any]], Any]] = {"TUPLE": tuple, "LIST": list, "FROZENSET": list}
"""Members of sets may be anything here, so they stay in lists."""


def _filled(container: Any, values: list[Any]) -> Any:
    """Takes keys and values in turn. Keys that are neither text nor number belong to no state dict."""
    items = container.items if isinstance(container, Stub) else container
    if isinstance(items, dict):
        for key, value in zip(values[::2], values[1::2], strict=True):
            if isinstance(key, str | int):
                items[key] = value
    return container


def _dtype(name: Any) -> torch.dtype:
    found = getattr(torch, name.name, None) if isinstance(name, Name) and name.module == "torch" else None
    if not isinstance(found, torch.dtype):
        raise ValueError(f"no type of numbers is called {str(name)[:80]}")
    return found
