"""AniTalker's motion becomes frames."""

from __future__ import annotations

from typing import Any

import torch

from .. import host
from ..checked_node import checked_node
from ..inputs import portrait_socket
from ..loaded_models import LoadedAniTalker
from ..sockets import AniTalkerSocket, MotionLatentsSocket

io: Any = host.io


class AniTalkerRender(io.ComfyNode):
    """A portrait and MOTION_LATENTS to frames."""

    @classmethod
    def define_schema(cls) -> Any:
        return host.schema(
            node_id="TalkingPortraitAniTalkerRender",
            display_name="AniTalker Render",
            category="Talking Portrait/render",
            description="Makes a portrait move as the motion says: 256 x 256 pixels, by a warping network.",
            search_aliases=["anitalker", "animate portrait", "talking head", "face animation"],
            inputs=[
                AniTalkerSocket.Input("anitalker", tooltip="From Load AniTalker."),
                io.Image.Input(
                    "portrait", tooltip="A square picture with the head in its middle; of a batch the first is taken."
                ),
                MotionLatentsSocket.Input("motion", tooltip="From AniTalker Motion or AniTalker Motion from Video."),
                host.advanced(
                    io.Int.Input(
                        "batch_size",
                        default=8,
                        min=1,
                        max=256,
                        tooltip="Frames that are computed together; fewer are taken where memory is short.",
                    )
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The frames."),
                io.Float.Output(display_name="fps", tooltip="Frames a second; connect it to Create Video."),
            ],
        )

    @classmethod
    @checked_node
    def execute(cls, anitalker: LoadedAniTalker, portrait: Any, motion: Any, batch_size: int = 8) -> Any:
        from ...pipelines.anitalker.portrait import encode_portrait
        from ...pipelines.anitalker.rendering import render

        picture = portrait_socket(portrait, "portrait")
        progress = host.progress()
        progress(0, motion.frames, picture)
        network: Any = anitalker.stage1.module
        images = torch.empty(motion.frames, network.size, network.size, 3)
        done = 0
        encoded = encode_portrait(anitalker.stage1, picture)
        for frames in render(anitalker.stage1, encoded, motion, batch=batch_size, progress=progress):
            images[done : done + len(frames)] = frames
            done += len(frames)
        return io.NodeOutput(host.to_socket(images), float(motion.fps))
