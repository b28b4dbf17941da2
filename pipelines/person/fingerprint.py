"""Which video a person was prepared from, by the content of its file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

_BLOCK = 1 << 22
"""Bytes that are read at once."""


def fingerprint_of(path: Path, *, step: Callable[[], None] = lambda: None) -> str:
    """Of all bytes of a file; `step` is called after each block, and may raise to stop. Raises OSError."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            step()
    return digest.hexdigest()
