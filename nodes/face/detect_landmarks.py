"""Pictures become face landmarks."""

from __future__ import annotations

from typing import Any

from .. import host
from ..checked_node import checked_node
from ..inputs import amount_input, colours, images_socket, landmarks_socket
from ..loaded_models import landmarker, landmarker_fingerprint
from ..model_paths import Fingerprint
from ..sockets import FaceLandmarks

io: Any = host.io


class DetectLandmarks(io.ComfyNode):
    """IMAGE batch to ComfyUI's FACE_LANDMARKS, by MediaPipe or OpenCV."""

    @classmethod
    def define_schema(cls) -> Any:
        return host.schema(
            node_id="TalkingPortraitDetectLandmarks",
            display_name="Detect Landmarks",
            category="Talking Portrait/face",
            description="Finds one face and its 478 points in pictures or in the frames of a video, and follows it.",
            search_aliases=["face mesh", "mediapipe", "face detection", "face tracking"],
            inputs=[
                io.Image.Input("images", tooltip="One picture, or the frames of a video in order."),
                io.Combo.Input(
                    "face",
                    options=["largest", "nearest", "index"],
                    default="largest",
                    tooltip="Which of several faces: the largest, the nearest to the middle, or one by its index.",
                ),
                io.Int.Input(
                    "index", default=0, min=0, max=63, tooltip="With face = index: counted from the left, from 0."
                ),
                io.Combo.Input(
                    "missing",
                    options=["hold", "interpolate", "error"],
                    default="hold",
                    tooltip="What a frame without the face gets: the last points, points between the neighbours, or an "
                    "error.",
                ),
                host.advanced(
                    io.Float.Input(
                        "min_confidence",
                        default=0.5,
                        min=0.05,
                        max=1.0,
                        step=0.05,
                        tooltip="How sure the detector must be; lower finds faint faces, and things that are none.",
                    )
                ),
                host.advanced(
                    amount_input(
                        "smoothing", "Calms trembling points in a video without slowing them down; 0 is off.", max=2.0
                    )
                ),
                host.advanced(
                    io.Combo.Input(
                        "engine",
                        options=["auto", "mediapipe", "opencv"],
                        default="auto",
                        tooltip="What finds the points: the mediapipe package with face_landmarker.task (478 points, "
                        "learnt expressions), or the shipped networks in OpenCV (468 points). auto takes the first "
                        "that is there.",
                    )
                ),
            ],
            outputs=[
                FaceLandmarks.Output(display_name="landmarks", tooltip="ComfyUI's native face landmarks, one face."),
                io.String.Output(display_name="report", tooltip="How many frames show the face, in words."),
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
    ) -> Any:
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
        return io.NodeOutput(landmarks_socket(track), f"{report} {found_by.hint}".strip())
