"""Transfers the motion of a face in a video to another face."""

from __future__ import annotations

from typing import Any

from .. import host
from ..checked_node import checked_node
from ..host import io
from ..inputs import amount_input, portrait_track, rate_input, track_from
from ..sockets import FaceLandmarks, FaceMotionSocket


class ReenactMotion(io.ComfyNode):
    """Two FACE_LANDMARKS to FACE_MOTION."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="TalkingPortraitReenactMotion",
            display_name="Reenact Motion",
            category="Talking Portrait/motion",
            description="Transfers expression and head movement from a video's face to a portrait's.",
            search_aliases=["reenactment", "face transfer", "driving video", "retarget"],
            inputs=[
                FaceLandmarks.Input(
                    "driving", tooltip="The landmarks of the video's face, from Detect Landmarks on its frames."
                ),
                FaceLandmarks.Input(
                    "portrait", tooltip="The landmarks of the face to animate; the first frame is used."
                ),
                rate_input("fps", "The video's frame rate; connect the one from Get Video Components."),
                amount_input("expression", "Scale of the expression: 1 as in the video, 0 none."),
                amount_input("head", "Scale of the head rotation: 1 as in the video, 0 none."),
                amount_input("translation", "Scale of the head translation: 1 as in the video, 0 none."),
                io.Combo.Input(
                    "pose",
                    options=["relative", "absolute"],
                    default="relative",
                    tooltip="relative: head movement starts from the portrait's head pose. absolute: the head takes "
                    "the poses of the video, as in AniPortrait.",
                ),
                host.advanced(
                    io.Int.Input(
                        "window",
                        default=3,
                        min=1,
                        max=99,
                        step=2,
                        tooltip="Number of frames over which head poses are averaged; 1 is off.",
                    )
                ),
                host.advanced(
                    io.Combo.Input(
                        "transfer",
                        options=["fitted", "published"],
                        default="fitted",
                        tooltip="fitted: expressions are scaled to the portrait's proportions, and lips and eyelids "
                        "close completely. published: vertex offsets are copied unchanged, as in AniPortrait.",
                    )
                ),
            ],
            outputs=[FaceMotionSocket.Output(display_name="motion", tooltip="The motion of the portrait's face.")],
        )

    @classmethod
    @checked_node
    def execute(
        cls,
        driving: Any,
        portrait: Any,
        fps: float,
        expression: float,
        head: float,
        translation: float,
        pose: Any,
        window: int = 3,
        transfer: Any = "fitted",
    ) -> io.NodeOutput:
        from ...pipelines.motion.reenact import reenact

        motion = reenact(
            track_from(driving),
            portrait_track(portrait),
            fps=fps,
            expression=expression,
            head=head,
            translation=translation,
            pose=pose,
            window=window,
            transfer=transfer,
            progress=host.progress(),
        )
        return io.NodeOutput(motion)
