"""Detects face landmarks in pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .. import host
from ..checked_node import checked_node
from ..host import io
from ..inputs import amount_input, boxes_socket, colours, images_socket, landmarks_socket
from ..loaded_models import landmarker, landmarker_fingerprint
from ..model_paths import Fingerprint
from ..sockets import BoundingBoxes, FaceLandmarks


class DetectLandmarks(io.ComfyNode):
    """IMAGE batch to ComfyUI's FACE_LANDMARKS, by MediaPipe or OpenCV."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="TalkingPortraitDetectLandmarks",
            display_name="Detect Landmarks",
            category="Talking Portrait/face",
            description="Detects one face and its 478 landmarks in pictures or video frames, and tracks it through a "
            "video.",
            search_aliases=["face mesh", "mediapipe", "face detection", "face tracking"],
            has_intermediate_output=True,
            inputs=[
                io.Image.Input("images", tooltip="One picture, or the frames of a video in order."),
                io.Combo.Input(
                    "face",
                    options=["largest", "nearest", "index"],
                    default="largest",
                    tooltip="Which of several faces: the largest, the nearest to the centre, or one by its index.",
                ),
                io.Int.Input(
                    "index", default=0, min=0, max=63, tooltip="With face = index: counted from the left, from 0."
                ),
                io.Combo.Input(
                    "missing",
                    options=["hold", "interpolate", "error"],
                    default="hold",
                    tooltip="What a frame without a face gets: the last landmarks, landmarks interpolated between the "
                    "neighbours, or an error.",
                ),
                host.advanced(
                    io.Float.Input(
                        "min_confidence",
                        default=0.5,
                        min=0.05,
                        max=1.0,
                        step=0.05,
                        tooltip="Minimum confidence of the detector; a lower one finds more faces, and more false "
                        "ones.",
                    )
                ),
                host.advanced(
                    amount_input(
                        "smoothing",
                        "Reduces jitter of the landmarks in a video, without delaying fast movement; 0 is off.",
                        max=2.0,
                    )
                ),
                host.advanced(
                    io.Combo.Input(
                        "engine",
                        options=["auto", "mediapipe", "opencv"],
                        default="auto",
                        tooltip="What detects the landmarks: the mediapipe package with face_landmarker.task (478 "
                        "points, predicted blendshape scores), or the shipped networks in OpenCV (468 points). auto "
                        "uses the first that is installed.",
                    )
                ),
            ],
            outputs=[
                FaceLandmarks.Output(display_name="landmarks", tooltip="ComfyUI's native face landmarks, of one face."),
                io.String.Output(display_name="report", tooltip="In how many frames a face was found, as text."),
                BoundingBoxes.Output(
                    display_name="bboxes",
                    tooltip="The box around the landmarks in each picture, for ComfyUI's nodes that crop or draw them.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, engine: Any = "auto", **_: Any) -> Fingerprint:
        return landmarker_fingerprint(engine)

    @classmethod
    @checked_node
    def execute(
        cls,
        images: Any,
        face: Any,
        index: int,
        missing: Any,
        min_confidence: float = 0.5,
        smoothing: float = 1.0,
        engine: Any = "auto",
    ) -> io.NodeOutput:
        from ...pipelines.face.landmarks import detect

        progress = host.progress()
        images = images_socket(images)

        def show(done: int, total: int, preview: Any = None) -> None:
            progress(done, total, colours(images[max(done, 1) - 1]))

        found_by = landmarker(engine)
        track, report = detect(
            images,
            found_by,
            choose=face,
            index=index,
            missing=missing,
            min_confidence=min_confidence,
            smoothing=smoothing,
            progress=show,
        )
        first = int(track.found.argmax())
        picture = _marked(colours(images[first]), track.points[first])
        payload = landmarks_socket(track)
        words = f"{report} {found_by.hint}".strip()
        return io.NodeOutput(payload, words, boxes_socket(payload), ui=host.shown(picture))


def _marked(picture: torch.Tensor, points: np.ndarray) -> torch.Tensor:
    """The picture (H, W, 3) with green dots at the points (P, 3)."""
    height, width = picture.shape[:2]
    size = max(1, round(float(np.ptp(points[:, 1])) / 200))
    marked = picture.clone()
    for x, y in (points[:, :2] - size / 2).round().astype(int).tolist():
        if 0 <= x < width and 0 <= y < height:
            marked[y : y + size, x : x + size] = torch.tensor([0.0, 1.0, 0.0])
    return marked
