"""The error class whose messages users read, and how names and values are put into them."""

from __future__ import annotations

import copyreg
import importlib
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import partial
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
    """Its message says what came, what was expected and what to do.

    It can be written to any log: halves of pairs, which no encoding has, end the thread of ComfyUI that reports them.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(escaped(text) if isinstance(text, str) else text for text in args))


_TURNS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that change the direction of the text after them."""
_HIDDEN = ("Cc", "Cs", "Zl", "Zp")
"""Unicode's categories of control characters, halves of pairs, and ends of lines and paragraphs."""


def escaped(text: str) -> str:
    """Lines of text with control characters, as in a hostile file's or node's name, written as escapes."""
    return "".join(
        ascii(letter)[1:-1]
        if letter != "\n" and (unicodedata.category(letter) in _HIDDEN or letter in _TURNS)
        else letter
        for letter in text
    )


_ENOUGH = 8
"""Characters of a text that are looked at for each one shown, as white space may become less."""


def one_line(text: object, limit: int = 80) -> str:
    """A title or another's message for a sentence: on one line of at most `limit` characters, and escaped."""
    line = escaped(" ".join(_shown(text, str)[: _ENOUGH * limit].split()))
    return line if len(line) <= limit else f"{line[: limit - 4]} ..."


def quoted(value: object, limit: int = 60) -> str:
    """A value for an error text: its `repr` in one line of at most `limit` characters.

    No more of a long value is looked at than that takes: the numbers of a picture in a list are millions.
    """
    return one_line(_shown(value, partial(_beginning, most=_ENOUGH * limit)), limit)


def _beginning(value: object, most: int) -> str:
    """The first characters of a value's `repr`, about `most`, or all of them."""
    text = ""
    for part in _parts(value, most):
        text += part
        if len(text) > most:
            break
    return text


def _parts(value: object, most: int) -> Iterator[str]:
    """What joined is a value's `repr`, of texts that of their first characters."""
    if type(value) in (str, bytes, bytearray):
        yield repr(value[:most])  # type: ignore[index]
    elif type(value) is list and value:
        yield from _listed(value, "[", "]", most)
    elif type(value) is tuple and len(value) > 1:
        yield from _listed(value, "(", ")", most)
    elif type(value) is set and value:
        yield from _listed(value, "{", "}", most)
    elif type(value) is dict:
        for number, (key, entry) in enumerate(value.items()):
            yield ", " if number else "{"
            yield from _parts(key, most)
            yield ": "
            yield from _parts(entry, most)
        yield "}" if value else "{}"
    else:
        yield repr(value)


def _listed(values: Iterable[object], begin: str, end: str, most: int) -> Iterator[str]:
    for number, value in enumerate(values):
        yield ", " if number else begin
        yield from _parts(value, most)
    yield end


def _shown(value: object, how: Callable[[object], str]) -> str:
    """A value as text; its class where that fails, as for a number of thousands of digits."""
    try:
        return how(value)
    except Exception:
        return f"<{type(value).__name__}>"
