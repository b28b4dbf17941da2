"""Frames between frames, by the interpolation networks that ComfyUI loads."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any

from ...pipelines.errors import TalkingPortraitError
from .. import host
from ..checked_node import checked_node, described
from ..frames import frames_in_memory
from ..host import io
from ..inputs import colours, frame_rate, images_socket, rate_input
from ..sockets import InterpolationModel


class FrameInterpolation(io.ComfyNode):
    """IMAGE and ComfyUI's INTERP_MODEL to more frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="TalkingPortraitFrameInterpolation",
            display_name="Frame Interpolation",
            category="Talking Portrait/render",
            description="Interpolates frames with ComfyUI's FILM or RIFE, in AniPortrait's order.",
            search_aliases=["film", "rife", "frame interpolation", "smooth video", "aniportrait acceleration"],
            inputs=[
                io.Image.Input("images", tooltip="The frames, at least two."),
                rate_input("fps", "Their frames per second; connect the sampler's.", 10.0),
                io.Int.Input(
                    "insert",
                    default=2,
                    min=1,
                    max=15,
                    tooltip="Frames inserted between each two. AniPortrait's fast mode samples every third frame and "
                    "inserts 2.",
                ),
                InterpolationModel.Input(
                    "model",
                    optional=True,
                    tooltip="From ComfyUI's Load Frame Interpolation Model, which only newer versions have.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The frames and the inserted ones."),
                io.Float.Output(display_name="fps", tooltip="The new frames per second; connect it to Create Video."),
            ],
        )

    @classmethod
    @checked_node
    def execute(cls, images: Any, fps: float, insert: int, model: Any = None) -> io.NodeOutput:
        from ...pipelines.image.frame_interpolation import interpolated_by

        frames, rate = colours(images_socket(images)), frame_rate(fps)
        network = _network(model)
        multiple = getattr(network.module, "pad_align", 1)
        made = interpolated_by(network, frames, insert, multiple=multiple, progress=host.progress())
        height, width = frames.shape[1:3]
        result = frames_in_memory(made, (len(frames) - 1) * (insert + 1) + 1, (height, width))
        return io.NodeOutput(result, float(rate * (insert + 1)))


def _network(model: Any) -> host.ManagedModule:
    """The network that ComfyUI has loaded. Raises TalkingPortraitError where there is none."""
    if model is None:
        raise TalkingPortraitError(
            "No interpolation network is connected; connect Load Frame Interpolation Model, which newer versions of "
            "ComfyUI have and this command line has not, or make the video without this node."
        )
    network = getattr(model, "model", None)
    if not callable(network) or not hasattr(model, "load_device") or "timestep" not in _arguments_of(network):
        raise TalkingPortraitError(
            f'The input "model" is {described(model)}, but a frame interpolation network is expected; connect Load '
            "Frame Interpolation Model."
        )
    return host.ManagedModule(network, patcher=model)


def _arguments_of(network: Any) -> Collection[str]:
    """Names of what a network takes; diffusion models and others have other ones."""
    try:
        return inspect.signature(getattr(network, "forward", network)).parameters
    except (TypeError, ValueError):
        return ()
