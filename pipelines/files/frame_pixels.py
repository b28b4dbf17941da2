"""Decoded video frames as upright RGB bytes with square pixels, whatever their format, matrix, range or orientation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..image.affine_sampling import over_white
from ..image.hdr import HdrToSdr
from ..image.video_rotation import VideoRotation
from .images import to_uint8
from .media_streams import VideoStream, import_av

# swscale's fast paths round downwards, which darkens a picture by about 1/255 each time it is written and read.
EXACT_SCALING = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
_MATRICES = {1: "bt709", 4: "fcc", 5: "bt470", 6: "smpte170m", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}
"""Names of swscale's matrices by AVColorSpace."""
_FULL_RANGE = 2


class FramePixels:
    """Turns the frames of one stream into (H, W, 3) uint8 RGB of one `size` (height, width)."""

    def __init__(self, stream: VideoStream) -> None:
        self._rotation = VideoRotation.of_matrix(_display_matrix(stream.first))
        width, height, aspect = stream.first.width, stream.first.height, stream.pixel_aspect
        # The longer side of a pixel counts, so that no detail is lost.
        self._stored = (max(1, round(width * max(aspect, 1))), max(1, round(height / min(aspect, 1))))
        self.size = self._stored if self._rotation.swaps else self._stored[::-1]
        self._hdr = HdrToSdr.for_transfer(stream.transfer)
        self._key: tuple[Any, ...] | None = None
        self._graph: Any = None

    def __call__(self, frame: Any) -> np.ndarray:
        alpha = may_be_transparent(frame)
        # swscale makes planes of YUV in half the time, by the same arithmetic.
        target = "rgb48le" if self._hdr else "rgba" if alpha else "gbrp" if _is_yuv(frame) else "rgb24"
        key = (frame.format.name, frame.width, frame.height, frame.colorspace, frame.color_range, target)
        if key != self._key:
            self._graph, self._key = self._graph_for(frame, target), key
        frame.pts = None  # the graph has no clock
        self._graph.push(frame)
        picture = self._graph.pull().to_ndarray()
        if self._hdr:
            picture = self._hdr(picture)
        elif alpha:
            picture = to_uint8(over_white(torch.from_numpy(picture) / 255))
        return self._rotation(picture)

    def _graph_for(self, frame: Any, target: str) -> Any:
        av = import_av()
        width, height = self._stored
        scaling = f"{width}:{height}:flags={EXACT_SCALING}"
        if _is_yuv(frame):
            full = frame.color_range == _FULL_RANGE or frame.format.name.startswith("yuvj")
            scaling += f":in_color_matrix={_matrix(frame)}:in_range={'pc' if full else 'tv'}:out_range=pc"
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
        steps = [source, graph.add("scale", scaling), graph.add("format", target), graph.add("buffersink")]
        for before, after in zip(steps, steps[1:], strict=False):
            before.link_to(after)
        graph.configure()
        return graph


def may_be_transparent(frame: Any) -> bool:
    """Whether the format of a frame has transparency, which `FramePixels` lays over white."""
    return frame.format.has_palette or any(component.is_alpha for component in frame.format.components)


def _is_yuv(frame: Any) -> bool:
    return not frame.format.is_rgb and not frame.format.has_palette and len(frame.format.components) > 2


def _matrix(frame: Any) -> str:
    """The YUV matrix a frame names, else the one that players assume for its size."""
    return _MATRICES.get(int(frame.colorspace), "bt709" if frame.width >= 1280 or frame.height > 576 else "smpte170m")


def _display_matrix(frame: Any) -> bytes | None:
    av = import_av()
    entry = frame.side_data.get(av.sidedata.sidedata.Type.DISPLAYMATRIX)
    return None if entry is None else bytes(entry)
