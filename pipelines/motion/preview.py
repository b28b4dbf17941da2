"""Previews of a face motion without a portrait: a drawn face over time, and its curves in one picture."""

from __future__ import annotations

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
from ..face.head_pose import head_matrix, project
from ..image.curve_plot import PAPER, SHARPER, Colour, Curve, checked_size, plot_curves
from ..types import Audio, Camera, FaceMotion, Progress, no_progress

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

_DISTANCE, _FIELD_OF_VIEW = 60.0, 23.5
"""Camera, cm and degrees, for a head whose motion is relative to a portrait: it fills most of the picture."""

_MESH, _LINE = (38, 43, 56), (122, 140, 176)
_SKIN, _LIP, _MOUTH, _EYE, _IRIS, _BROW = (
    (28, 31, 42),
    (196, 88, 104),
    (52, 14, 22),
    (226, 230, 238),
    (70, 110, 140),
    (150, 120, 96),
)
_NOSE = ((168, 6, 197, 195, 5, 4), (98, 97, 2, 326, 327))

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

    height, width = checked_size(size)
    frames = torch.empty(motion.frames, height, width, 3)
    canvas_size = height * SHARPER, width * SHARPER
    scale = min(canvas_size) / 512
    for index in range(motion.frames):
        points = _on_screen(motion, index, canvas_size)
        canvas = Image.new("RGB", (canvas_size[1], canvas_size[0]), PAPER)
        _draw_face(ImageDraw.Draw(canvas), points, scale)
        picture = canvas.reduce(SHARPER)
        frames[index] = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)
        progress(index + 1, motion.frames, frames[index])
    return frames


def plot_motion(motion: FaceMotion, audio: Audio | None = None, size: tuple[int, int] = (720, 1280)) -> torch.Tensor:
    """One picture (H, W, 3) in 0..1 of mouth, blinks, brows, yaw, pitch and roll over time, and the waveform behind.

    Mouth opening is in eye distances, blinks and brows in percent and mm, angles in degrees as FaceMotion holds them.
    """
    return plot_curves(_curves(motion), float(motion.seconds), audio, size)


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
    for colour, size in ((_IRIS, radius), (PAPER, radius * 0.45)):
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


def _curves(motion: FaceMotion) -> list[Curve]:
    offsets = motion.vertices - motion.neutral
    pitch, yaw, roll = motion.rotation.T
    swing = 5.0 if motion.pose == "head" else 15.0
    return [
        Curve("mouth", "eye distances", mouth_opening(motion.vertices), (0.0, 0.15), (236, 112, 126)),
        Curve(
            "blink", "%", 100 * eyelid_closure(motion.vertices, motion.neutral).mean(axis=1), (0, 100), (120, 190, 255)
        ),
        Curve("brows", "mm", 10 * offsets[:, [52, 282], 1].mean(axis=1), (-2.0, 4.0), (214, 168, 110)),
        Curve("pitch", "degrees", pitch, (-swing, swing), (134, 214, 150)),
        Curve("yaw", "degrees", yaw, (-swing, swing), (206, 160, 250)),
        Curve("roll", "degrees", roll, (-swing, swing), (242, 210, 104)),
    ]
