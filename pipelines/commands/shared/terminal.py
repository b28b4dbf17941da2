"""What commands print: without control characters, in any encoding, wherever the streams lead."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import Any, TextIO

from ...errors import escaped

_drawing = False
"""Whether the last thing on the error stream is a line that is drawn over."""


def draw(line: str, *, last: bool) -> None:
    """Draws a line over the one before on the error stream; after the `last` one a new line begins."""
    global _drawing
    sys.stderr.write(f"\r{line}\033[K" + ("\n" if last else ""))
    sys.stderr.flush()
    _drawing = not last


def leave_drawing() -> None:
    """Begins a new line on the error stream where one is being drawn."""
    global _drawing
    if _drawing:
        _drawing = False
        sys.stderr.write("\n")
        sys.stderr.flush()


def say(line: str) -> None:
    """Prints a line of the result at once; a name in it that has lines stays on this one."""
    leave_drawing()
    sys.stdout.write(on_one_line(line) + "\n")
    sys.stdout.flush()


def say_json(value: Any) -> None:
    """Prints a result for programs."""
    for line in json.dumps(value, indent=2).splitlines():
        say(line)


def on_one_line(text: str) -> str:
    """Text as it may be printed, ends of lines, as in a hostile file's name, written as escapes too."""
    return escaped(text).replace("\n", "\\n")


def note(line: str) -> None:
    """Prints a line, or several, beside the result, on the error stream."""
    leave_drawing()
    sys.stderr.write(escaped(line) + "\n")


def last_words(line: str) -> None:
    """As `note`, but a stream that cannot be written to is no error.

    An empty line before it, which leaves the ^C of a terminal, is not needed after one that was drawn over.
    """
    with suppress(OSError, ValueError):
        note(line.removeprefix("\n") if _drawing else line)


def make_usable() -> None:
    """Replaces closed streams by the null device, and writes characters that an encoding lacks as escapes.

    No line is being drawn then: a command before, in the same process, may have ended in the middle of one.
    """
    global _drawing
    _drawing = False
    for number in range(3):  # else the next file that is opened gets the number, and what is printed
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not one that a test puts in its place
            stream.reconfigure(errors="backslashreplace")


def flush() -> None:
    """Writes out what was printed.

    Raises OSError where that fails, after which nothing more is written there: the interpreter would complain at its
    end of what it could not flush.
    """
    failed: OSError | None = None
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            failed = failed or error
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if failed:
        raise failed


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")
