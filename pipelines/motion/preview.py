"""Previews of a face motion without a portrait: a drawn face over time, and its curves in one picture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...models.face.eyelid_shapes import eyelid_closure
from ...models.face.face_mesh import (
    FACE_OVAL,
    LEFT_BROW,
    LEFT_EYE,
    LIPS_INNER,
    LIPS_OUTER,
    RIGHT_BROW,
    RIGHT_EYE,
    face_mesh,
    mouth_opening,
)
from ..audio.waveform import mono
from ..errors import TalkingPortraitError
from ..face.head_pose import head_matrix, project
from ..types import Audio, Camera, FaceMotion, Progress, no_progress

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont
    from PIL.ImageFont import ImageFont as BitmapFont

MIN_SIDE, MAX_SIDE = 64, 4096
_SHARPER = 2
"""Drawings are made this much larger and scaled down, which smooths their edges."""
_DISTANCE, _FIELD_OF_VIEW = 60.0, 23.5
"""Camera, cm and degrees, for a head whose motion is relative to a portrait: it fills most of the picture."""

_PAPER, _MESH, _LINE = (18, 20, 27), (38, 43, 56), (122, 140, 176)
_SKIN, _LIP, _MOUTH, _EYE, _IRIS, _BROW = (
    (28, 31, 42),
    (196, 88, 104),
    (52, 14, 22),
    (226, 230, 238),
    (70, 110, 140),
    (150, 120, 96),
)
_NOSE = ((168, 6, 197, 195, 5, 4), (98, 97, 2, 326, 327))

Colour = tuple[int, int, int]
Points = list[tuple[float, float]]


def preview(
    motion: FaceMotion,
    audio: Audio | None,
    size: tuple[int, int],
    plot_size: tuple[int, int],
    *,
    progress: Progress = no_progress,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The pictures of `draw_motion` and the one of `plot_motion`; sizes are checked before the long part."""
    plot = plot_motion(motion, audio, plot_size)
    return draw_motion(motion, size, progress=progress), plot


def draw_motion(
    motion: FaceMotion, size: tuple[int, int] = (512, 512), *, progress: Progress = no_progress
) -> torch.Tensor:
    """A drawn face that moves: pictures (F, H, W, 3) in 0..1 of `size` (height, width).

    A motion that is relative to a portrait's pose is drawn on a head that faces the camera; one with camera poses where
    its camera shows it. Raises TalkingPortraitError for sizes outside 64..4096.
    """
    from PIL import Image, ImageDraw

    height, width = _checked_size(size)
    frames = torch.empty(motion.frames, height, width, 3)
    canvas_size = height * _SHARPER, width * _SHARPER
    scale = min(canvas_size) / 512
    for index in range(motion.frames):
        points = _on_screen(motion, index, canvas_size)
        canvas = Image.new("RGB", (canvas_size[1], canvas_size[0]), _PAPER)
        _draw_face(ImageDraw.Draw(canvas), points, scale)
        picture = canvas.reduce(_SHARPER)
        frames[index] = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)
        progress(index + 1, motion.frames, frames[index])
    return frames


def plot_motion(motion: FaceMotion, audio: Audio | None = None, size: tuple[int, int] = (720, 1280)) -> torch.Tensor:
    """One picture (H, W, 3) in 0..1 of mouth, blinks, brows, yaw, pitch and roll over time, and the waveform behind.

    Mouth opening is in eye distances, blinks and brows in percent and mm, angles in degrees as FaceMotion holds them.
    """
    from PIL import Image, ImageDraw

    height, width = _checked_size(size)
    canvas = Image.new("RGB", (width * _SHARPER, height * _SHARPER), _PAPER)
    draw = ImageDraw.Draw(canvas)
    unit = min(height / 720, width / 960) * _SHARPER
    sheet = _Sheet(draw, canvas.size, unit, float(motion.seconds), _waveform(audio))
    curves = _curves(motion)
    for row, curve in enumerate(curves):
        sheet.panel(curve, row, len(curves))
    sheet.time_axis()
    picture = canvas.reduce(_SHARPER)
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)


def _checked_size(size: tuple[int, int]) -> tuple[int, int]:
    if any(not MIN_SIDE <= side <= MAX_SIDE for side in size):
        raise TalkingPortraitError(
            f"The preview's size is {size[1]} x {size[0]}, but sides from {MIN_SIDE} to {MAX_SIDE} pixels are expected."
        )
    return size


# --- the face ---


def _on_screen(motion: FaceMotion, index: int, size: tuple[int, int]) -> np.ndarray:
    matrix = head_matrix(motion.rotation[index], motion.translation[index])
    camera = motion.camera
    if motion.pose == "head":
        height, width = size
        # A narrow picture shows less to the sides, so the head stands further back.
        matrix[:3, 3] += [0.0, 0.5, -_DISTANCE * max(1.0, 0.85 * height / width)]
        camera = Camera(_FIELD_OF_VIEW)
    return project(motion.vertices[index].astype(np.float64), matrix, size, camera)


def _draw_face(draw: ImageDraw, points: np.ndarray, scale: float) -> None:
    places: Points = [(x, y) for x, y in points.tolist()]

    def chain(indices: tuple[int, ...]) -> Points:
        return [places[index] for index in indices]

    def line(indices: tuple[int, ...], colour: Colour, thickness: float, closed: bool = False) -> None:
        path = chain(indices + indices[:2] if closed else indices)
        draw.line(path, fill=colour, width=max(1, round(thickness * scale)), joint="curve")

    draw.polygon(chain(FACE_OVAL), fill=_SKIN)
    for a, b in _mesh_edges():
        draw.line([places[a], places[b]], fill=_MESH, width=max(1, round(0.7 * scale)))
    line(FACE_OVAL, _LINE, 2.0, closed=True)
    for part in _NOSE:
        line(part, _LINE, 1.6)
    for brow in (RIGHT_BROW, LEFT_BROW):
        draw.polygon(chain(brow[:5] + brow[:4:-1]), fill=_BROW)
    for ring in (RIGHT_EYE, LEFT_EYE):
        _draw_eye(draw, chain(ring), scale)
        line(ring, _LINE, 1.8, closed=True)
    draw.polygon(chain(LIPS_OUTER), fill=_LIP)
    draw.polygon(chain(LIPS_INNER), fill=_MOUTH)
    line(LIPS_INNER, (120, 40, 56), 1.2, closed=True)


def _draw_eye(draw: ImageDraw, ring: Points, scale: float) -> None:
    """The eyeball within the lids; the iris is drawn row by row, where the lids leave it free."""
    draw.polygon(ring, fill=_EYE)
    x, y = np.array(ring).T
    middle, width = (ring[0][0] + ring[8][0]) / 2, abs(ring[8][0] - ring[0][0])
    radius = 0.21 * width
    centre = (ring[0][1] + ring[8][1]) / 2 - 0.04 * width
    order = np.argsort(x[:9]), np.argsort(np.append(x[8:], x[0]))
    upper_x, upper_y = x[:9][order[0]], y[:9][order[0]]
    lower_x, lower_y = np.append(x[8:], x[0])[order[1]], np.append(y[8:], y[0])[order[1]]
    for colour, size in ((_IRIS, radius), (_PAPER, radius * 0.45)):
        for column in range(int(middle - size), int(middle + size) + 1):
            half = float(np.sqrt(max(size**2 - (column + 0.5 - middle) ** 2, 0)))
            top = max(centre - half, float(np.interp(column, upper_x, upper_y)))
            bottom = min(centre + half, float(np.interp(column, lower_x, lower_y)))
            if bottom - top > 0.3 * scale:
                draw.line([(column, top), (column, bottom)], fill=colour)


@cache
def _mesh_edges() -> list[tuple[int, int]]:
    """The skin's wires, without those that cross the eyes and the mouth."""
    triangles = face_mesh().triangles
    pairs = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1)
    openings = set(RIGHT_EYE) | set(LEFT_EYE) | set(LIPS_INNER)
    return [(int(a), int(b)) for a, b in np.unique(pairs, axis=0) if not (a in openings and b in openings)]


# --- the curves ---


@dataclass(frozen=True)
class _Curve:
    """`values` (F,) with a name and a unit; the panel shows at least `span`, lowest to highest."""

    name: str
    unit: str
    values: np.ndarray
    span: tuple[float, float]
    colour: Colour


def _curves(motion: FaceMotion) -> list[_Curve]:
    offsets = motion.vertices - motion.neutral
    pitch, yaw, roll = motion.rotation.T
    swing = 5.0 if motion.pose == "head" else 15.0
    return [
        _Curve("mouth", "eye distances", mouth_opening(motion.vertices), (0.0, 0.15), (236, 112, 126)),
        _Curve(
            "blink", "%", 100 * eyelid_closure(motion.vertices, motion.neutral).mean(axis=1), (0, 100), (120, 190, 255)
        ),
        _Curve("brows", "mm", 10 * offsets[:, [52, 282], 1].mean(axis=1), (-2.0, 4.0), (214, 168, 110)),
        _Curve("pitch", "degrees", pitch, (-swing, swing), (134, 214, 150)),
        _Curve("yaw", "degrees", yaw, (-swing, swing), (206, 160, 250)),
        _Curve("roll", "degrees", roll, (-swing, swing), (242, 210, 104)),
    ]


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

    def panel(self, curve: _Curve, row: int, rows: int) -> None:
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

    def time_axis(self) -> None:
        steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200)
        step = next((s for s in steps if self.seconds / s <= 14), steps[-1])
        for tick in range(int(self.seconds / step) + 1):
            x = self.left + (self.right - self.left) * tick * step / self.seconds
            self.draw.line([(x, self.bottom), (x, self.bottom + 5 * self.unit)], fill=(128, 134, 150))
            label = f"{tick * step:g}" + (" s" if tick == 0 else "")
            self.draw.text((x, self.bottom + 8 * self.unit), label, fill=(128, 134, 150), font=self.small, anchor="mt")
