"""The error class whose messages users read, and the test for memory that ran out; torch is not imported for either."""

from __future__ import annotations

import errno
import re

from ..models.errors import TalkingPortraitError, escaped, one_line, quoted

__all__ = ["TalkingPortraitError", "escaped", "is_out_of_memory", "one_line", "quoted", "reason_of"]


_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")
"""What NumPy says, without the system's error number, of an array that does not fit on the disk."""


def reason_of(error: BaseException) -> str:
    """Why something failed, on one line: the system's words for its error number, else the message, else the class."""
    if isinstance(error, OSError) and _SHORT_WRITE.fullmatch(str(error)):
        return "the disk is full"
    return one_line(getattr(error, "strerror", None) or str(error) or type(error).__name__, 200)


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
