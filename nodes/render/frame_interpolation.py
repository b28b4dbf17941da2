"""Frames between frames, by the interpolation networks that ComfyUI loads."""

from __future__ import annotations

from typing import Any

import torch

from ...pipelines.errors import TalkingPortraitError
from ...pipelines.memory import loaded
from .. import host
from ..checked_node import checked_node, described
from ..inputs import colours, images_socket, rate_input
from ..sockets import InterpolationModel

io: Any = host.io


class FrameInterpolation(io.ComfyNode):
    """IMAGE and ComfyUI's INTERP_MODEL to more frames."""

    @classmethod
    def define_schema(cls) -> Any:
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
    def execute(cls, images: Any, fps: float, insert: int, model: Any = None) -> Any:
        from ...pipelines.image.frame_interpolation import interpolated
        from ...pipelines.timing import as_rate

        frames = colours(images_socket(images))
        between = _network(model)
        result = torch.empty((len(frames) - 1) * (insert + 1) + 1, *frames.shape[1:])
        for index, frame in enumerate(interpolated(frames, insert, between, host.progress())):
            result[index] = frame[0]
        return io.NodeOutput(host.to_socket(result), float(as_rate(fps) * (insert + 1)))


def _network(model: Any) -> Any:
    """(frame, later frame, time) to the frame between, by ComfyUI's network.

    Raises TalkingPortraitError where there is none.
    """
    if model is None:
        raise TalkingPortraitError(
            "No interpolation network is connected; connect Load Frame Interpolation Model, which newer versions of "
            "ComfyUI have and this command line has not, or make the video without this node."
        )
    if not callable(getattr(model, "model", None)) or not hasattr(model, "load_device"):
        raise TalkingPortraitError(
            f'The input "model" is {described(model)}, but a frame interpolation network is expected; connect Load '
            "Frame Interpolation Model."
        )
    managed = host.ManagedModule(model.model, patcher=model)
    multiple = getattr(model.model, "pad_align", 1)

    @torch.no_grad()
    def between(first: torch.Tensor, last: torch.Tensor, time: float) -> torch.Tensor:
        network, device = loaded(managed, torch.nn.Module)
        dtype = next(network.parameters()).dtype
        height, width = first.shape[1:3]
        pads = (0, -width % multiple, 0, -height % multiple)
        pair = [
            torch.nn.functional.pad(frame.movedim(-1, 1).to(device, dtype), pads, mode="replicate")
            for frame in (first, last)
        ]
        times = torch.full((1, 1, *pair[0].shape[-2:]), time, device=device, dtype=dtype)
        made = network(*pair, timestep=times)[..., :height, :width]
        return made.float().clamp(0, 1).movedim(1, -1).cpu()

    return between
