"""What a face does in a video becomes the motion of another face."""

from __future__ import annotations

from typing import Any

from .. import host
from ..checked_node import checked_node
from ..inputs import amount_input, portrait_track, rate_input, track_from
from ..sockets import FaceLandmarks, FaceMotionSocket

io: Any = host.io


class ReenactMotion(io.ComfyNode):
    """Two FACE_LANDMARKS to FACE_MOTION."""

    @classmethod
    def define_schema(cls) -> Any:
        return host.schema(
            node_id="TalkingPortraitReenactMotion",
            display_name="Reenact Motion",
            category="Talking Portrait/motion",
            description="Carries expression and head movement from a video's face over to a portrait's.",
            search_aliases=["reenactment", "face transfer", "driving video", "retarget"],
            inputs=[
                FaceLandmarks.Input("driving", tooltip="The face of the video, from Detect Landmarks on its frames."),
                FaceLandmarks.Input("portrait", tooltip="The face that is to move; the first frame counts."),
                rate_input("fps", "The video's frame rate; connect the one from Get Video Components."),
                amount_input("expression", "Size of the expression: 1 as in the video, 0 none."),
                amount_input("head", "How far the head turns: 1 as in the video, 0 not at all."),
                amount_input("translation", "How far the head moves: 1 as in the video, 0 not at all."),
                io.Combo.Input(
                    "pose",
                    options=["relative", "absolute"],
                    default="relative",
                    tooltip="relative: the head moves from where the portrait's is. absolute: it turns as the video's "
                    "head is turned, as AniPortrait does.",
                ),
                host.advanced(
                    io.Int.Input(
                        "window",
                        default=3,
                        min=1,
                        max=99,
                        step=2,
                        tooltip="Frames over which head poses are averaged; 1 is none.",
                    )
                ),
                host.advanced(
                    io.Combo.Input(
                        "transfer",
                        options=["fitted", "published"],
                        default="fitted",
                        tooltip="fitted: expressions in the portrait's proportions, with lips and lids that really "
                        "close. published: as they are, as AniPortrait does.",
                    )
                ),
            ],
            outputs=[FaceMotionSocket.Output(display_name="motion", tooltip="What the portrait's face does.")],
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
    ) -> Any:
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
