"""Where the face and the lips of a portrait are, as masks."""

from __future__ import annotations

from typing import Any

import torch

from .. import host
from ..checked_node import checked_node
from ..host import io
from ..inputs import portrait_socket, track_from
from ..sockets import FaceLandmarks, RegionMasksSocket


def ratio_input(name: str, default: float, tooltip: str) -> io.Input:
    return io.Float.Input(name, default=default, min=0.1, max=10.0, step=0.1, round=0.01, tooltip=tooltip)


class RegionMasks(io.ComfyNode):
    """FACE_LANDMARKS to REGION_MASKS, and to the same as three MASKs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="TalkingPortraitRegionMasks",
            display_name="Region Masks",
            category="Talking Portrait/face",
            description="Soft masks of the area outside the face, the face, and the lips; APasco's audio attention is "
            "weighted with them.",
            search_aliases=["face mask", "lip mask", "hallo masks"],
            has_intermediate_output=True,
            inputs=[
                FaceLandmarks.Input(
                    "landmarks",
                    optional=True,
                    tooltip="The landmarks of the face in the portrait, from Detect Landmarks.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="For a portrait without landmarks: the whole picture counts as face, and nothing as lips.",
                ),
                ratio_input("face_ratio", 1.2, "Width of the face's box relative to the face; 1.2 as published."),
                ratio_input("lip_ratio", 2.0, "Width of the lips' box relative to the lips; 2 as published."),
            ],
            outputs=[
                RegionMasksSocket.Output(display_name="masks", tooltip="For APasco Sampler."),
                io.Mask.Output(display_name="pose", tooltip="Near 1 outside the face."),
                io.Mask.Output(display_name="face", tooltip="Near 1 in the face, around the lips."),
                io.Mask.Output(display_name="lips", tooltip="Near 1 on the lips."),
            ],
        )

    @classmethod
    @checked_node
    def execute(cls, face_ratio: float, lip_ratio: float, landmarks: Any = None, image: Any = None) -> io.NodeOutput:
        from ...pipelines.apasco.masks import portrait_masks

        masks = portrait_masks(
            None if landmarks is None else track_from(landmarks),
            None if image is None or landmarks is not None else portrait_socket(image),
            face_ratio=face_ratio,
            lip_ratio=lip_ratio,
        )
        outputs = [masks.mask_of(region) for region in ("full", "face", "lip")]
        picture = torch.cat(outputs).movedim(0, -1)  # each a colour: red around the face, green in it, blue on the lips
        return io.NodeOutput(masks, *map(host.to_socket, outputs), ui=host.shown(picture))
