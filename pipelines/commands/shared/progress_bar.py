"""The progress bar of every command."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from ...errors import one_line
from .terminal import draw

if TYPE_CHECKING:
    import torch

_WIDTH = 24
_SECONDS_BETWEEN = 0.1


class ProgressBar:
    """A `Progress` that draws one line on the error stream: the share done, the speed and the time left.

    Where the error stream is no terminal nothing is drawn; with `announce` the label is printed there once.
    """

    def __init__(self, label: str, unit: str = "frames", *, per_unit: int = 1, announce: bool = False) -> None:
        """`per_unit`: steps that make one of the `unit`, for example 1,000,000 bytes in MB."""
        self._label, self._unit = one_line(label), unit
        self._per_unit, self._announce = per_unit, announce
        self._start = time.monotonic()
        self._drawn = 0.0

    def __call__(self, done: int, total: int, preview: torch.Tensor | None = None) -> None:
        """`total` is 0 where it is not known."""
        if not sys.stderr.isatty():
            if self._announce:
                sys.stderr.write(f"{self._label}\n")
                self._announce = False
            return
        now = time.monotonic()
        finished = bool(total) and done >= total
        if now - self._drawn < _SECONDS_BETWEEN and not finished:
            return
        self._drawn = now
        draw(self._line(done, total, now), last=finished)

    def _line(self, done: int, total: int, now: float) -> str:
        if not total:
            return f"{self._label} {self._count(done)} {self._unit}" if done else self._label
        filled = _WIDTH * done // total
        bar = "#" * filled + "." * (_WIDTH - filled)
        line = f"{self._label} [{bar}] {self._count(done)}/{self._count(total)} {self._unit}"
        if not done:
            return line
        rate = done / max(now - self._start, 1e-6)
        return f"{line}, {rate / self._per_unit:.1f}/s, {(total - done) / rate:.0f} s left"

    def _count(self, steps: int) -> str:
        return str(steps) if self._per_unit == 1 else f"{steps / self._per_unit:.1f}"
