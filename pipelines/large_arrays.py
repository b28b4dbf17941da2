"""Arrays that grow with the length of a video: large ones lie in a temporary file, so that memory stays constant."""

from __future__ import annotations

import mmap
import tempfile

import numpy as np

from .errors import TalkingPortraitError, reason_of

IN_MEMORY = 16_000_000
"""Bytes up to which an array is kept in memory: landmarks of two minutes."""


def large_array(shape: tuple[int, ...]) -> np.ndarray:
    """A float32 array of unset values, which goes with its file when it is no longer used.

    Raises TalkingPortraitError where there is no room for the file.
    """
    size = 4 * int(np.prod(shape))
    if size <= IN_MEMORY:
        return np.empty(shape, np.float32)
    try:
        with tempfile.TemporaryFile(prefix="talking_portrait") as file:
            file.truncate(size)
            return np.frombuffer(mmap.mmap(file.fileno(), size), np.float32).reshape(shape)
    except OSError as error:
        raise TalkingPortraitError(
            f"There is no room for a temporary file of {size // 1_000_000} MB ({reason_of(error)}); free some space "
            "and try again."
        ) from None


def give_memory_back(*arrays: np.ndarray) -> None:
    """Takes what was read or written of large arrays out of this process's memory; their values stay."""
    for array in arrays:
        pages: object = array
        while isinstance(pages, np.ndarray | memoryview):  # in which NumPy wraps what it reads from
            pages = pages.base if isinstance(pages, np.ndarray) else pages.obj
        if isinstance(pages, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            pages.madvise(mmap.MADV_DONTNEED)
