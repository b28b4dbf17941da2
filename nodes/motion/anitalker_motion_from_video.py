"""Encodes the movement of a face in a video as AniTalker's motion latents."""

from __future__ import annotations

from typing import Any

from ...pipelines.errors import TalkingPortraitError
from .. import host
from ..checked_node import checked_node
from ..host import io
from ..inputs import colours, images_socket, portrait_socket, rate_input
from ..loaded_models import LoadedAniTalker
from ..sockets import AniTalkerSocket, MotionLatentsSocket


class AniTalkerMotionFromVideo(io.ComfyNode):
    """The frames of a video to MOTION_LATENTS."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="TalkingPortraitAniTalkerMotionFromVideo",
            display_name="AniTalker Motion from Video",
            category="Talking Portrait/motion",
            description="Transfers expression and head movement of a face in a video to a portrait of anybody.",
            search_aliases=["anitalker", "reenact", "video driven", "expression transfer"],
            inputs=[
                AniTalkerSocket.Input("anitalker", tooltip="From Load AniTalker; only its stage 1 is used."),
                io.Image.Input(
                    "images", tooltip="The driving frames: square, with the head cropped as in the portrait."
                ),
                rate_input("fps", "Frames per second of the driving video."),
                io.Combo.Input(
                    "transfer",
                    options=["absolute", "relative"],
                    default="absolute",
                    tooltip="absolute: the portrait takes the poses of the driving face, as published. relative: it "
                    "moves from its own pose as the driving face moves from its first frame.",
                ),
                io.Image.Input("portrait", optional=True, tooltip="For relative: the square portrait to animate."),
                host.advanced(
                    io.Int.Input(
                        "batch_size",
                        default=8,
                        min=1,
                        max=256,
                        tooltip="Frames that are computed at once; reduced when memory runs out.",
                    )
                ),
            ],
            outputs=[MotionLatentsSocket.Output(display_name="motion", tooltip="For AniTalker Render.")],
        )

    @classmethod
    @checked_node
    def execute(
        cls,
        anitalker: LoadedAniTalker,
        images: Any,
        fps: float,
        transfer: Any,
        portrait: Any = None,
        batch_size: int = 8,
    ) -> io.NodeOutput:
        from ...pipelines.anitalker.animate import motion_from_video

        if transfer == "relative" and portrait is None:
            raise TalkingPortraitError(
                "A relative transfer starts from the portrait's own pose, but no portrait is connected; connect it, or "
                "choose absolute."
            )
        motion = motion_from_video(
            anitalker.stage1,
            colours(images_socket(images)),
            fps,
            portrait=portrait_socket(portrait, "portrait") if transfer == "relative" else None,
            batch=batch_size,
            progress=host.progress(),
        )
        return io.NodeOutput(motion)
