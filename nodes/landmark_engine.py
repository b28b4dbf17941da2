"""The landmark engine that a node's file list or socket names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host
from .model_paths import known_model, missing_model

if TYPE_CHECKING:
    from ..pipelines.face.landmarker_mediapipe import MediaPipeLandmarker
    from ..pipelines.face.landmarker_opencv import TFLiteLandmarker


def landmarker(engine: Any = "auto") -> MediaPipeLandmarker | TFLiteLandmarker:
    """The landmark engine, with the model file that the host has for it."""
    from ..pipelines.face.landmarks import open_landmarker

    task = known_model("face_landmarker")
    if task is None and engine == "mediapipe":
        raise missing_model("face_landmarker")
    return open_landmarker(task, engine, command=host.models_command)
