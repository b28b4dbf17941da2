"""Renders AniTalker's motion latents as frames."""

from __future__ import annotations

from typing import Any

from ...pipelines.types import MotionLatents
from .. import host
from ..checked_node import checked_node
from ..host import io
from ..inputs import portrait_socket
from ..loaded_models import LoadedAniTalker
from ..renderer_node import HIDDEN, RendererNode, sound_input, sound_of, video_output
from ..sockets import AniTalkerSocket, MotionLatentsSocket


class AniTalkerRender(RendererNode):
    """A portrait and MOTION_LATENTS to frames."""

    VIDEO_OUTPUT = 2

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="TalkingPortraitAniTalkerRender",
            display_name="AniTalker Render",
            category="Talking Portrait/render",
            description="Animates a portrait with AniTalker's warping network, at 256 x 256 pixels.",
            search_aliases=["anitalker", "animate portrait", "talking head", "face animation"],
            inputs=[
                AniTalkerSocket.Input("anitalker", tooltip="From Load AniTalker."),
                io.Image.Input(
                    "portrait", tooltip="A square picture with the head in its centre; of a batch the first is used."
                ),
                MotionLatentsSocket.Input("motion", tooltip="From AniTalker Motion or AniTalker Motion from Video."),
                host.advanced(
                    io.Int.Input(
                        "batch_size",
                        default=8,
                        min=1,
                        max=256,
                        tooltip="Frames that are computed at once; reduced when memory runs out.",
                    )
                ),
                sound_input(),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The frames."),
                io.Float.Output(display_name="fps", tooltip="Frames per second; connect it to Create Video."),
                video_output(),
            ],
            hidden=HIDDEN,
        )

    @classmethod
    @checked_node
    def execute(
        cls, anitalker: LoadedAniTalker, portrait: Any, motion: MotionLatents, batch_size: int = 8, audio: Any = None
    ) -> io.NodeOutput:
        from ...pipelines.anitalker.animate import animate

        picture = portrait_socket(portrait, "portrait")
        progress = host.progress()
        progress(0, motion.frames, picture)
        sound = sound_of(audio, motion.frames, motion.fps)
        frames = animate(anitalker.stage1, picture, motion, batch=batch_size, progress=progress)
        images, video = cls.images_and_video(frames, motion.frames, motion.fps, sound)
        return io.NodeOutput(images, float(motion.fps), video)
