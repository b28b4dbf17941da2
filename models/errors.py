"""The error class whose messages users read."""

from __future__ import annotations

import copyreg
import importlib
from operator import attrgetter
from typing import Any


class _ShortNamed(type):
    """The class of error classes that are called by their own name alone, as Python's built-in errors are.

    ComfyUI and tracebacks put a class's module in front of its name and both in front of the message; the module of a
    node pack is the path of its folder. `defined_in` is the module that the class is in.
    """

    defined_in: str

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> _ShortNamed:
        defined_in = namespace["__module__"]
        return super().__new__(cls, name, bases, {**namespace, "defined_in": defined_in, "__module__": "builtins"})


def _class_named(module: str, name: str) -> Any:
    return attrgetter(name)(importlib.import_module(module))


# Pickled by where the class is defined, and not by the module that is shown.
copyreg.pickle(_ShortNamed, lambda kind: (_class_named, (kind.defined_in, kind.__qualname__)))


class TalkingPortraitError(ValueError, metaclass=_ShortNamed):
    """Its message says what came, what was expected and what to do."""


def quoted(value: object, limit: int = 60) -> str:
    """A value for an error text: its `repr` in one line of at most `limit` characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= limit else f"{text[: limit - 4]} ..."
