"""The face and what is around it, cut out of pictures of any size."""

from __future__ import annotations

from typing import Any

from .. import host
from ..checked_node import checked_node
from ..inputs import images_socket, landmarks_socket, track_from
from ..sockets import CropSocket, FaceLandmarks

io: Any = host.io


class CropPortrait(io.ComfyNode):
    """IMAGE and FACE_LANDMARKS to a cut IMAGE and CROP."""

    @classmethod
    def define_schema(cls) -> Any:
        return host.schema(
            node_id="TalkingPortraitCropPortrait",
            display_name="Crop Portrait",
            category="Talking Portrait/face",
            description="Cuts the face out of pictures of any size and aspect; Paste Back puts it in again.",
            search_aliases=["crop face", "align face", "face crop"],
            inputs=[
                io.Image.Input("images", tooltip="One picture, or the frames of a video."),
                FaceLandmarks.Input("landmarks", tooltip="The face in these very pictures."),
                io.Int.Input(
                    "size",
                    default=512,
                    min=0,
                    max=4096,
                    step=8,
                    tooltip="Side of the square result in pixels; 0 keeps the size it has in the picture.",
                ),
                io.Combo.Input(
                    "framing",
                    options=["face", "head", "head and shoulders", "AniPortrait app", "AniTalker"],
                    default="head and shoulders",
                    tooltip="How much is in the box. AniPortrait app: that app's own rule, with black beyond the edge. "
                    "AniTalker: as its training pictures were cut.",
                ),
                io.Float.Input(
                    "scale",
                    default=1.0,
                    min=0.5,
                    max=4.0,
                    step=0.05,
                    round=0.001,
                    tooltip="Makes the box larger or smaller than the framing says.",
                ),
                io.Boolean.Input("upright", default=False, tooltip="Turns the box so that the eyes are level."),
                io.Boolean.Input(
                    "follow",
                    default=False,
                    tooltip="Lets the box follow the face through a video, smoothly; else one box serves all frames.",
                ),
                host.advanced(
                    io.Combo.Input(
                        "border",
                        options=["edge", "black"],
                        default="edge",
                        tooltip="What lies beyond the picture: its edge repeated, or black.",
                    )
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The cut pictures."),
                CropSocket.Output(display_name="crop", tooltip="How they were cut; for Paste Back."),
                FaceLandmarks.Output(display_name="landmarks", tooltip="The face in the cut pictures."),
            ],
        )

    @classmethod
    @checked_node
    def execute(
        cls,
        images: Any,
        landmarks: Any,
        size: int,
        framing: Any,
        scale: float,
        upright: bool,
        follow: bool,
        border: Any = "edge",
    ) -> Any:
        from ...pipelines.face.crop import crop_portrait

        cut, crop, track = crop_portrait(
            images_socket(images),
            track_from(landmarks),
            size=size or None,
            preset=framing,
            scale=scale,
            upright=upright,
            follow=follow,
            border=border,
            progress=host.progress(),
        )
        return io.NodeOutput(host.to_socket(cut), crop, landmarks_socket(track))
