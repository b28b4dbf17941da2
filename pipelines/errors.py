"""The error class whose messages users read, checks of single values, and the test for memory that ran out.

torch is not imported for any of them.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import wraps
from typing import ParamSpec, TypeVar

from ..models.errors import TalkingPortraitError, escaped, one_line, quoted

__all__ = [
    "TalkingPortraitError",
    "check_kind",
    "check_names",
    "check_seed",
    "check_whole_numbers",
    "escaped",
    "is_out_of_memory",
    "one_line",
    "plain_numbers",
    "quoted",
    "reason_of",
    "refusal",
]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
MOST = 2**64 - 1
"""The largest whole number that is computed with; seeds reach it."""


def check_names(given: Iterable[str], known: Collection[str], taker: str, *, word: str = "-") -> None:
    """Raises TalkingPortraitError for names that the `taker` has not; `word` is what stands between words of one."""
    surplus = [name for name in given if name not in known]
    if surplus:
        were = "was" if len(surplus) == 1 else "were"
        given_names, takes = (", ".join(name.replace("_", word) for name in names) for names in (surplus, known))
        raise TalkingPortraitError(
            f"{given_names} {were} given, but {taker} takes {takes}; leave out what it does not take."
        )


def check_seed(seed: object) -> None:
    """Raises TalkingPortraitError for what is no seed: one rule for all drivers, samplers and trainers.

    The values are those of ComfyUI's own samplers, and all generators take them.
    """
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TalkingPortraitError(f"The seed is {quoted(seed)}, but a whole number is expected.")
    if not 0 <= seed <= MOST:
        raise TalkingPortraitError(f"The seed is {quoted(seed, 20)}, but 0 to 2^64 - 1 is expected.")


def check_whole_numbers(given: Mapping[str, object], what: str = "The {}") -> None:
    """Raises TalkingPortraitError for a whole number that no array holds; `what` makes a sentence's subject of a name.

    What is no whole number is for other checks.
    """
    for name, value in given.items():
        if isinstance(value, int) and not -MOST <= value <= MOST:
            raise TalkingPortraitError(
                f"{what.format(name)} is {quoted(value, 20)}, but whole numbers to 2^64 - 1 are computed with; give a "
                "smaller one."
            )


def plain_numbers(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Has a function of the Python API take NumPy's numbers by name: a seed of `np.arange` is a whole number."""

    @wraps(function)
    def call(*given: Parameters.args, **named: Parameters.kwargs) -> Result:
        import numpy as np  # which every function that this is around loads

        for name, value in named.items():
            if isinstance(value, np.number | np.bool_):
                named[name] = value.item()
        return function(*given, **named)

    return call


def check_kind(name: str, value: object, default: object) -> None:
    """Raises TalkingPortraitError where the setting `name` is no number, or no switch, as its default is one."""
    if not isinstance(default, int | float):
        return
    name = name.replace("_", "-")
    kinds: tuple[type, ...]
    if isinstance(default, bool):
        kinds, wanted = (bool,), "true or false"
    else:
        kinds, wanted = ((int,), "a whole number") if isinstance(default, int) else ((int, float), "a number")
    if isinstance(value, bool) != isinstance(default, bool) or not isinstance(value, kinds):
        raise TalkingPortraitError(f"The {name} is {quoted(value)}, but {wanted} is expected.")
    check_whole_numbers({name: value})


_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")
"""What NumPy says, without the system's error number, of an array that does not fit on the disk."""

_NULL_BYTE = "embedded null "
"""In what Python says of a name that no file can have; the rest differs from version to version."""


def reason_of(error: BaseException) -> str:
    """Why something failed, on one line: the system's words for its error number, else the message, else the class."""
    if isinstance(error, OSError) and _SHORT_WRITE.fullmatch(str(error)):
        return "the disk is full"
    if isinstance(error, ValueError) and _NULL_BYTE in str(error):
        return "embedded null byte"
    return one_line(getattr(error, "strerror", None) or str(error) or type(error).__name__, 200)


def refusal(error: OSError) -> str:
    """A sentence about what the system refused to read or write."""
    reason = reason_of(error)
    if error.filename is None:
        return (
            f"The system refused to read or write ({reason}); check the folders named, the free space and the output."
        )
    return f"{error.filename} can't be used ({reason}); check that it is there, its permissions and the free space."


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
