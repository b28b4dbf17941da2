"""The MediaPipe Tasks face landmarker (478 points, 52 expression scores) as an engine of the landmark stage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...models.face.face_mesh import BLENDSHAPES
from ..errors import TalkingPortraitError
from ..memory import closed_with
from ..packages import first_line
from .face import Face

MAX_FACES = 16


class MediaPipeLandmarker:
    """Runs a `.task` file with the mediapipe package, 0.10.30 or later.

    Pictures are always taken one by one (its IMAGE mode): the package's own video mode smooths with a delay, which
    would shift lips against the sound, so smoothing is the landmark stage's business.
    """

    name = "MediaPipe"
    hint = ""

    def __init__(self, path: Path) -> None:
        """Raises ImportError where the package is missing or can't be loaded, and TalkingPortraitError for a file that
        is no landmarker."""
        try:
            from mediapipe import Image, ImageFormat, tasks
        except Exception as error:  # a package beside it that doesn't fit, or a library of the system that is missing
            raise ImportError(first_line(error)) from error
        self._path = path
        # Read here, not by the package, whose file access fails on some paths with letters beyond ASCII.
        self._model = path.read_bytes()
        self._tasks = tasks
        self._wrap = lambda picture: Image(image_format=ImageFormat.SRGB, data=picture)
        self._confidence: float | None = None
        self._task: Any = None
        self._close: Callable[[], None] | None = None
        self._start(0.5)

    def faces(self, picture: np.ndarray, min_confidence: float) -> list[Face]:
        """Every face in `picture` (H, W, 3) uint8 RGB, points in its pixels."""
        if self._confidence != min_confidence:
            self._start(min_confidence)
        height, width = picture.shape[:2]
        result = self._task.detect(self._wrap(np.ascontiguousarray(picture)))
        unit = np.array([width, height, width], dtype=np.float64)
        faces = []
        for landmarks, categories in zip(result.face_landmarks, result.face_blendshapes, strict=True):
            points = np.array([(point.x, point.y, point.z) for point in landmarks]) * unit
            scores = {category.category_name: category.score for category in categories}
            blendshapes = np.array([scores.get(name, 0.0) for name in BLENDSHAPES], dtype=np.float32)
            faces.append(Face(points=points, blendshapes=blendshapes, score=None))
        return faces

    def _start(self, confidence: float) -> None:
        tasks = self._tasks
        options = tasks.vision.FaceLandmarkerOptions(
            base_options=tasks.BaseOptions(model_asset_buffer=self._model),
            running_mode=tasks.vision.RunningMode.IMAGE,
            num_faces=MAX_FACES,
            min_face_detection_confidence=confidence,
            min_face_presence_confidence=confidence,
            output_face_blendshapes=True,
        )
        try:
            task = tasks.vision.FaceLandmarker.create_from_options(options)
        except (RuntimeError, ValueError, OSError) as error:  # OSError: the archive lacks a network
            raise TalkingPortraitError(
                f"{self._path} is not a face landmarker that mediapipe can open ({first_line(error)})"
            ) from error
        if self._close is not None:
            self._close()
        self._task, self._confidence = task, confidence
        # Closed before the interpreter takes mediapipe apart, else it complains at exit.
        self._close = closed_with(self, task.close)
