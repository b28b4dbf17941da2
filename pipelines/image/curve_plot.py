"""One picture of curves over time, each in a panel of its own, with the waveform behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..audio.waveform import mono
from ..errors import TalkingPortraitError
from ..types import Audio

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont
    from PIL.ImageFont import ImageFont as BitmapFont

MIN_SIDE, MAX_SIDE = 64, 4096
SHARPER = 2
"""Drawings are made this much larger and scaled down, which smooths their edges."""
PAPER = (18, 20, 27)

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Curve:
    """`values` (F,) with a name and a unit; the panel shows at least `span`, lowest to highest."""

    name: str
    unit: str
    values: np.ndarray
    span: tuple[float, float]
    colour: Colour


def plot_curves(
    curves: Sequence[Curve], seconds: float, audio: Audio | None, size: tuple[int, int], *, unit: str = "s"
) -> torch.Tensor:
    """A picture (H, W, 3) in 0..1 of `size` (height, width) with curves that last `seconds`, or so many of the `unit`.

    Raises TalkingPortraitError for sides outside 64..4096.
    """
    from PIL import Image, ImageDraw

    height, width = checked_size(size)
    canvas = Image.new("RGB", (width * SHARPER, height * SHARPER), PAPER)
    scale = min(height / 720, width / 960) * SHARPER
    sheet = _Sheet(ImageDraw.Draw(canvas), canvas.size, scale, seconds, _waveform(audio))
    for row, curve in enumerate(curves):
        sheet.panel(curve, row, len(curves))
    sheet.time_axis(unit)
    picture = canvas.reduce(SHARPER)
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)


def checked_size(size: tuple[int, int]) -> tuple[int, int]:
    """The size (height, width) itself. Raises TalkingPortraitError for sides outside 64..4096."""
    if any(not MIN_SIDE <= side <= MAX_SIDE for side in size):
        raise TalkingPortraitError(
            f"The preview's size is {size[1]} x {size[0]}, but sides from {MIN_SIDE} to {MAX_SIDE} pixels are expected."
        )
    return size


def _waveform(audio: Audio | None) -> np.ndarray | None:
    """Samples (N,) scaled so that the loudest is 1, or None for silence."""
    if audio is None or audio.samples == 0:
        return None
    wave = mono(audio).numpy()
    peak = float(np.abs(wave).max())
    return wave / peak if peak > 1e-4 else None


class _Sheet:
    """Panels over one time axis, on a PIL drawing."""

    def __init__(
        self, draw: ImageDraw, size: tuple[int, int], unit: float, seconds: float, wave: np.ndarray | None
    ) -> None:
        from PIL import ImageFont

        self.draw, self.unit, self.seconds = draw, unit, max(seconds, 1e-3)
        self.left, self.right = round(96 * unit), size[0] - round(20 * unit)
        self.top, self.bottom = round(14 * unit), size[1] - round(34 * unit)
        self.font: FreeTypeFont | BitmapFont = ImageFont.load_default(size=max(8, round(13 * unit)))
        self.small: FreeTypeFont | BitmapFont = ImageFont.load_default(size=max(7, round(10.5 * unit)))
        self.loud = self._loudness(wave)

    def _loudness(self, wave: np.ndarray | None) -> np.ndarray | None:
        """Highest amplitude (columns,) in 0..1 in each column of the panels."""
        if wave is None:
            return None
        columns = self.right - self.left
        # The sound may be a little shorter than the frames that cover it.
        edges = np.linspace(0, len(wave), columns + 1).astype(int)
        starts = np.minimum(edges[:-1], len(wave) - 1)
        return np.maximum.reduceat(np.abs(wave), starts)

    def panel(self, curve: Curve, row: int, rows: int) -> None:
        gap = round(8 * self.unit)
        each = (self.bottom - self.top + gap) / rows
        top, bottom = round(self.top + row * each), round(self.top + (row + 1) * each) - gap
        self.draw.rectangle([self.left, top, self.right, bottom], fill=(25, 28, 38))
        if self.loud is not None:
            middle, half = (top + bottom) / 2, (bottom - top) / 2 - 1
            for column, loud in enumerate(self.loud):
                x = self.left + column
                self.draw.line([(x, middle - half * loud), (x, middle + half * loud)], fill=(40, 45, 60))
        low = min(curve.span[0], float(curve.values.min(initial=curve.span[0])))
        high = max(curve.span[1], float(curve.values.max(initial=curve.span[1])))
        scale = (bottom - top - 6 * self.unit) / (high - low)

        def height(value: float) -> float:
            return bottom - 3 * self.unit - (value - low) * scale

        self.draw.line([(self.left, height(0)), (self.right, height(0))], fill=(70, 76, 94), width=round(self.unit))
        path = [(x, height(value)) for x, value in self._path(curve.values)]
        if len(path) > 1:
            self.draw.line(path, fill=curve.colour, width=max(1, round(1.8 * self.unit)), joint="curve")
        edge = self.left - 8 * self.unit
        centre = (top + bottom) / 2
        self.draw.text((edge, centre - 7 * self.unit), curve.name, fill=curve.colour, font=self.font, anchor="rm")
        self.draw.text((edge, centre + 8 * self.unit), curve.unit, fill=(128, 134, 150), font=self.small, anchor="rm")
        for value, at in ((high, top + 7 * self.unit), (low, bottom - 7 * self.unit)):
            self.draw.text((edge, at), f"{value:.3g}", fill=(100, 106, 122), font=self.small, anchor="rm")

    def _path(self, values: np.ndarray) -> list[tuple[float, float]]:
        """(x, value) of a curve; where several frames share a column, its lowest and highest value."""
        columns = self.right - self.left
        if len(values) <= columns:
            step = columns / max(len(values), 1)
            return [(self.left + (i + 0.5) * step, float(value)) for i, value in enumerate(values)]
        edges = np.linspace(0, len(values), columns + 1).astype(int)[:-1]
        low, high = np.minimum.reduceat(values, edges), np.maximum.reduceat(values, edges)
        return [(self.left + i, float(v)) for i, pair in enumerate(zip(low, high, strict=True)) for v in pair]

    def time_axis(self, unit: str) -> None:
        steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 6000, 30000)
        step = next((s for s in steps if self.seconds / s <= 14), steps[-1])
        for tick in range(int(self.seconds / step) + 1):
            x = self.left + (self.right - self.left) * tick * step / self.seconds
            self.draw.line([(x, self.bottom), (x, self.bottom + 5 * self.unit)], fill=(128, 134, 150))
            label = f"{tick * step:g}" + (f" {unit}" if tick == 0 else "")
            self.draw.text((x, self.bottom + 8 * self.unit), label, fill=(128, 134, 150), font=self.small, anchor="mt")
