"""Videos whose pictures say what a landmark engine is to find in them, so that tests need no network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
from talking_portrait.models.face.face_mesh import face_mesh
from talking_portrait.pipelines.face.face import Face
from talking_portrait.pipelines.files.example import example_portrait, example_speech, example_track
from talking_portrait.pipelines.files.video import VideoWriter
from talking_portrait.pipelines.types import Audio

SIZE = 128
STEP = 25
"""Values of colour between two of the things that a mark says."""
MARK = 16
"""Side of a mark in pixels; there is one for each number, along the top."""


@dataclass(frozen=True)
class Scene:
    """One frame: `persons` from left to right (0 none, 1 Ann, 2 Bob, 3 both), what Ann does, and another `place`."""

    persons: int = 1
    opening: float = 0.0
    """Of Ann's mouth, 0..1."""
    yaw: int = 0
    """Of Ann's head, in tens of degrees."""
    place: int = 0
    """Another one is another picture, as after a cut."""


def picture(scene: Scene) -> np.ndarray:
    """(SIZE, SIZE, 3) uint8 with marks of what is in it."""
    frame = np.full((SIZE, SIZE, 3), 90 + 80 * scene.place, np.uint8)
    frame[MARK:] = np.roll(_portrait()[MARK:], 40 * scene.place, axis=0) // (1 + scene.place)
    for person, points in ((1, _ann(0, 0)), (2, _bob())):
        if scene.persons & person:
            _draw(frame, points, _portrait() // (1 + scene.place), upside_down=person == 2)
    values = (scene.persons, round(scene.opening * 10), scene.yaw, scene.place)
    for number, value in enumerate(values):
        frame[:MARK, number * MARK : (number + 1) * MARK] = value * STEP
    return frame


@cache
def _portrait() -> np.ndarray:
    from PIL import Image

    whole = (example_portrait()[0] * 255).byte().numpy()
    return np.array(Image.fromarray(whole).resize((SIZE, SIZE)))


def _draw(frame: np.ndarray, points: np.ndarray, portrait: np.ndarray, *, upside_down: bool) -> None:
    """Draws the portrait's face where the points are; a face upside down looks like somebody else's."""
    own, there = ((box.min(axis=0), box.max(axis=0)) for box in (_landmarks()[:, :2], points[:, :2]))
    scale = (there[1] - there[0]) / (own[1] - own[0])
    left, top = np.floor(there[0]).astype(int)
    right, bottom = np.ceil(there[1]).astype(int)
    x, y = np.meshgrid(np.arange(left, right), np.arange(max(top, MARK), bottom))
    u, v = (x - there[0][0]) / scale[0] + own[0][0], (y - there[0][1]) / scale[1] + own[0][1]
    v = own[0][1] + own[1][1] - v if upside_down else v
    frame[y, x] = portrait[v.round().astype(int).clip(0, SIZE - 1), u.round().astype(int).clip(0, SIZE - 1)]


@cache
def _landmarks() -> np.ndarray:
    return example_track().points[0] * SIZE / 512


class MarkLandmarker:
    """Finds what the marks say, in pictures of any size and in views of them that show the marks."""

    name = "marks"
    hint = ""

    def __init__(self) -> None:
        self.calls = 0

    def faces(self, image: np.ndarray, min_confidence: float) -> list[Face]:
        self.calls += 1
        scale = image.shape[0] / SIZE
        centres = (np.arange(3) * MARK + MARK / 2) * scale
        persons, opening, yaw = (round(image[int(MARK / 2 * scale), int(x), 1] / STEP) for x in centres)
        found = []
        if persons & 1:
            found.append(_ann(opening / 10, 10 * yaw))
        if persons & 2:
            found.append(_bob())
        return [Face(points * scale, np.full(52, 0.25, np.float32), 0.9) for points in found]


def _ann(opening: float, yaw: float) -> np.ndarray:
    """The shipped portrait's landmarks, smaller and to the left, with the mouth open and the head turned."""
    points = _landmarks().copy()
    below = np.clip((-4.2 - face_mesh().vertices[:, 1]) / 0.5, 0, 1)
    points[:468, 1] += 6 * opening * below
    middle = points.mean(axis=0)
    turn = np.radians(yaw)
    x, z = points[:, 0] - middle[0], points[:, 2] - middle[2]
    points[:, 0] = middle[0] + x * np.cos(turn) + z * np.sin(turn)
    points[:, 2] = middle[2] - x * np.sin(turn) + z * np.cos(turn)
    return (points - middle) * 0.7 + [SIZE * 0.3, SIZE * 0.55, 0]


def _bob() -> np.ndarray:
    """Somebody with a longer and narrower face, on the right, smaller."""
    points = _landmarks()
    points = (points - points.mean(axis=0)) * [0.3, 0.45, 0.35]
    return points + [SIZE * 0.75, SIZE * 0.55, 0]


def speaking(seconds: float, fps: Fraction = Fraction(25), **others: int) -> list[Scene]:
    """Ann speaks: her mouth opens and closes three times a second."""
    count = round(seconds * fps)
    openings = 0.5 - 0.5 * np.cos(2 * np.pi * 3 * np.arange(count) / float(fps))
    return [Scene(opening=float(opening), **others) for opening in openings]


def write_video(
    path: Path,
    scenes: Sequence[Scene],
    *,
    fps: Fraction = Fraction(25),
    sound: float | None = 1.0,
    drawn: Callable[[Scene], np.ndarray] = picture,
) -> Path:
    """A video of these scenes with the shipped speech, `sound` times as loud; without any for None."""
    wave = example_speech().waveform[:, : round(16000 * len(scenes) / fps)]
    audio = None if sound is None else Audio(wave * sound, 16000)
    with VideoWriter(path, (SIZE, SIZE), fps, audio) as video:
        for scene in scenes:
            video.write(drawn(scene))
    return path
