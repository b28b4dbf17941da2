"""The error class whose messages users read, and the test for memory that ran out; torch is not imported for either."""

from __future__ import annotations

import errno
import unicodedata

from ..models.errors import TalkingPortraitError, quoted

__all__ = ["TalkingPortraitError", "escaped", "is_out_of_memory", "one_line", "quoted"]

_TURNS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that change the direction of the text after them."""
_HIDDEN = ("Cc", "Cs", "Zl", "Zp")
"""Unicode's categories of control characters, halves of pairs, and ends of lines and paragraphs."""


def escaped(text: str) -> str:
    """Text of lines with what a terminal would obey, as in a hostile file's or node's name, written as escapes."""
    return "".join(
        ascii(letter)[1:-1]
        if letter != "\n" and (unicodedata.category(letter) in _HIDDEN or letter in _TURNS)
        else letter
        for letter in text
    )


def one_line(text: object, limit: int = 80) -> str:
    """A title or another's message for a sentence: on one line of at most `limit` characters, and escaped."""
    line = escaped(" ".join(str(text).split()))
    return line if len(line) <= limit else f"{line[: limit - 4]} ..."


_OUT_OF_MEMORY = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "failed to allocate memory",
    "bad_alloc",
    "bad allocation",
    "alloc_failed",  # CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_ALLOC_FAILED and their like
)
"""How allocators report it where their error has no class of its own, in lower case."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether main or graphics memory was refused.

    By class where there is one (Python's, torch's, which ComfyUI calls OOM_EXCEPTION, and the system's error number),
    else by the message of a RuntimeError.
    """
    if isinstance(error, TalkingPortraitError):
        return False
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    message = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in message for words in _OUT_OF_MEMORY)
