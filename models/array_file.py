"""NumPy's files of arrays, .npy and .npz: read whatever is in them, without building objects or filling memory."""

from __future__ import annotations

import zipfile
from collections.abc import Container
from pathlib import Path

import numpy as np

MAX_UNPACKED, SMALL = 50, 64 * 1024**2
"""How many times larger than its file an archive may unpack, and the bytes that are taken in any case."""


def read_arrays(path: Path, names: Container[str] | None = None, most: float = float("inf")) -> dict[str, np.ndarray]:
    """The arrays of numbers, truths and texts in an .npz file, those of `names` alone where given.

    Raises ValueError for anything else, and for arrays of more than `most` bytes, however reading them fails.
    """
    try:
        _check_is_file(path)
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > min(most, MAX_UNPACKED * path.stat().st_size + SMALL):
            raise ValueError("it would unpack to far more than its size")
        with np.load(path, allow_pickle=False) as stored:
            found = {name: stored[name] for name in stored.files if names is None or name in names}
    except Exception as error:  # zip, zlib and NumPy's own reader each have their own for a damaged file
        raise ValueError(_reason(error)) from error
    return {name: _checked(array) for name, array in found.items()}


def read_array(path: Path) -> np.ndarray:
    """The array in an .npy file. Raises ValueError for anything else, however it fails."""
    mapped = map_array(path)
    try:
        return np.array(mapped)
    except Exception as error:
        raise ValueError(_reason(error)) from error


def map_array(path: Path) -> np.ndarray:
    """The array in an .npy file, mapped from the disk and not looked at. Raises ValueError for anything else."""
    try:
        _check_is_file(path)
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:
        raise ValueError(_reason(error)) from error
    return _checked(array)


def _reason(error: Exception) -> str:
    """What an error says, but for NumPy's advice to read what it takes for objects unsafely."""
    said = str(error) or type(error).__name__
    return "it holds no arrays of numbers" if "allow_pickle" in said else said


def _check_is_file(path: Path) -> None:
    if not path.is_file():  # opening a pipe would wait for somebody to write into it
        raise ValueError("it is no ordinary file")


def _checked(array: object) -> np.ndarray:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biufU":
        raise ValueError("it holds something else than numbers")
    return array
