"""Draws a face motion: a line drawing of the face, and its curves over time."""

from __future__ import annotations

from typing import Any

from ...pipelines.types import FaceMotion
from .. import host
from ..checked_node import checked_node
from ..frames import check_memory
from ..host import io
from ..inputs import sound_from
from ..sockets import FaceMotionSocket


class PreviewMotion(io.ComfyNode):
    """FACE_MOTION to a drawn IMAGE batch and a plot."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        def side(name: str, default: int, tooltip: str) -> io.Input:
            return io.Int.Input(name, default=default, min=64, max=4096, step=8, tooltip=tooltip)

        return host.schema(
            node_id="TalkingPortraitPreviewMotion",
            display_name="Preview Motion",
            category="Talking Portrait/motion",
            description="Draws a face motion: an animated line drawing, and one plot of mouth, blinks, brows and head "
            "over time.",
            search_aliases=["draw landmarks", "plot motion", "motion curves", "visualize motion"],
            has_intermediate_output=True,
            inputs=[
                FaceMotionSocket.Input("motion", tooltip="The motion to draw."),
                io.Audio.Input("audio", optional=True, tooltip="The speech of this motion, drawn behind the curves."),
                side("size", 512, "Side of the drawn face's pictures, in pixels."),
                host.advanced(side("plot_width", 1280, "Width of the plot in pixels.")),
                host.advanced(side("plot_height", 720, "Height of the plot in pixels.")),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The drawn face, frame by frame."),
                io.Image.Output(display_name="plot", tooltip="One picture with all curves over time."),
                io.Float.Output(display_name="fps", tooltip="Frames per second; connect it to Create Video."),
            ],
        )

    @classmethod
    @checked_node
    def execute(
        cls, motion: FaceMotion, size: int, audio: Any = None, plot_width: int = 1280, plot_height: int = 720
    ) -> io.NodeOutput:
        from ...pipelines.motion.preview import preview

        check_memory(motion.frames, size, size, 3)
        images, plot = preview(
            motion,
            None if audio is None else sound_from(audio),
            (size, size),
            (plot_height, plot_width),
            progress=host.progress(),
        )
        return io.NodeOutput(host.to_socket(images), host.to_socket(plot[None]), float(motion.fps), ui=host.shown(plot))
