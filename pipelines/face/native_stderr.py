"""Keeps what native code prints past Python, such as mediapipe's log lines, off the terminal of a command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def redirect_native_stderr() -> Iterator[None]:
    """Inside the block nothing but Python's own error stream reaches the terminal's."""
    stream = sys.stderr
    stream.flush()
    with open(os.dup(2), "w", buffering=1, errors="backslashreplace") as terminal:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 2)
        os.close(nothing)
        if _is_the_terminals(stream):
            sys.stderr = terminal
        try:
            yield
        finally:
            sys.stderr = stream
            terminal.flush()
            os.dup2(terminal.fileno(), 2)


def _is_the_terminals(stream: object) -> bool:
    """Whether a stream writes to the process's error output itself, and is not one that collects its output."""
    try:
        return stream.fileno() == 2  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False
