"""Crops the face and what is around it out of pictures of any size."""

from __future__ import annotations

from typing import Any

from .. import host
from ..checked_node import checked_node
from ..frames import clip_with_room
from ..host import io
from ..inputs import colours, images_socket, landmarks_socket, track_from
from ..sockets import CropSocket, FaceLandmarks


class CropPortrait(io.ComfyNode):
    """IMAGE and FACE_LANDMARKS to a cropped IMAGE and CROP."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="TalkingPortraitCropPortrait",
            display_name="Crop Portrait",
            category="Talking Portrait/face",
            description="Crops the face out of pictures of any size and aspect ratio; Paste Back puts it back.",
            search_aliases=["crop face", "align face", "face crop"],
            has_intermediate_output=True,
            inputs=[
                io.Image.Input("images", tooltip="One picture, or the frames of a video."),
                FaceLandmarks.Input("landmarks", tooltip="The landmarks of the face in these pictures."),
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
                    tooltip="What the box contains. AniPortrait app: the rule of that app, with black outside the "
                    "picture. AniTalker: as its training pictures were cropped.",
                ),
                io.Float.Input(
                    "scale",
                    default=1.0,
                    min=0.5,
                    max=4.0,
                    step=0.05,
                    round=0.001,
                    tooltip="Factor on the size of the box.",
                ),
                io.Boolean.Input("upright", default=False, tooltip="Rotates the box so that the eyes are level."),
                io.Boolean.Input(
                    "follow",
                    default=False,
                    tooltip="The box follows the face through a video, smoothly; off, one box is used for all frames.",
                ),
                host.advanced(
                    io.Combo.Input(
                        "border",
                        options=["edge", "black"],
                        default="edge",
                        tooltip="What is outside the picture: its edge repeated, or black.",
                    )
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The cropped pictures."),
                CropSocket.Output(display_name="crop", tooltip="The position of the crops; for Paste Back."),
                FaceLandmarks.Output(
                    display_name="landmarks", tooltip="The landmarks of the face in the cropped pictures."
                ),
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
    ) -> io.NodeOutput:
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
            empty=clip_with_room,
            progress=host.progress(),
        )
        return io.NodeOutput(cut, crop, landmarks_socket(track), ui=host.shown(colours(cut[0])))
