"""Pastes changed crops back into the pictures they were cropped from."""

from __future__ import annotations

from typing import Any

from ...pipelines.types import Crop
from .. import host
from ..checked_node import checked_node
from ..frames import as_before, check_memory, even_sides
from ..host import io
from ..inputs import images_socket, mask_socket
from ..sockets import CropSocket


class PasteBack(io.ComfyNode):
    """IMAGE and CROP to IMAGE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="TalkingPortraitPasteBack",
            display_name="Paste Back",
            category="Talking Portrait/face",
            description="Pastes pictures into those they were cropped from, with a soft edge; all other pixels stay "
            "identical.",
            search_aliases=["uncrop", "composite face", "paste face"],
            inputs=[
                io.Image.Input(
                    "images",
                    tooltip="The changed crops, of any size; any number of them can be pasted into one picture.",
                ),
                CropSocket.Input("crop", tooltip="From Crop Portrait."),
                io.Image.Input(
                    "source", optional=True, tooltip="The pictures to paste into; by default those that were cropped."
                ),
                io.Mask.Input("mask", optional=True, tooltip="Which part of the crop to paste; by default all of it."),
                io.Float.Input(
                    "feather",
                    default=0.1,
                    min=0.0,
                    max=0.5,
                    step=0.01,
                    round=0.001,
                    tooltip="Width of the soft edge, as a fraction of the crop's shorter side; 0 is a hard edge.",
                ),
                host.advanced(
                    io.Float.Input(
                        "colour_match",
                        default=0.0,
                        min=0.0,
                        max=1.0,
                        step=0.05,
                        round=0.001,
                        tooltip="Matches brightness and contrast of the crops to the picture around them.",
                    )
                ),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="The whole pictures.")],
        )

    @classmethod
    @checked_node
    def execute(
        cls,
        images: Any,
        crop: Crop,
        feather: float,
        source: Any = None,
        mask: Any = None,
        colour_match: float = 0.0,
    ) -> io.NodeOutput:
        from ...pipelines.face.paste import paste_back

        crops = as_before(images_socket(images), crop.size)
        pictures = crop.source if source is None else images_socket(source, "source")
        check_memory(len(crops), *crop.source_size, 3 if pictures is None else max(3, pictures.shape[-1]))
        pasted = paste_back(
            crops,
            crop,
            pictures,
            feather=feather,
            mask=None if mask is None else as_before(mask_socket(mask), crop.size),
            colour_match=colour_match,
            progress=host.progress(),
        )
        return io.NodeOutput(host.to_socket(even_sides(pasted) if len(pasted) > 1 else pasted))
