"""Says whether a video was made by AI."""

from __future__ import annotations

from typing import Any

from .. import host
from ..checked_node import checked_node
from ..host import io
from ..video_input import video_file


class DetectMark(io.ComfyNode):
    """VIDEO to whether anything says that AI made it, and what."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="TalkingPortraitDetectMark",
            display_name="Detect Mark",
            category="Talking Portrait/output",
            description="Says whether a video was made by AI: looks for this pack's invisible mark, for metadata and "
            "for content credentials.",
            search_aliases=["watermark", "provenance", "C2PA", "AI generated"],
            is_output_node=True,
            inputs=[io.Video.Input("video", tooltip="The video; compressed, scaled and cropped copies work too.")],
            outputs=[
                io.Boolean.Output(
                    display_name="marked", tooltip="Whether anything says that AI made it; false proves nothing."
                ),
                io.String.Output(display_name="report", tooltip="What was found, one line each."),
                io.String.Output(display_name="json", tooltip="The same as JSON."),
            ],
        )

    @classmethod
    @checked_node
    def execute(cls, video: Any) -> io.NodeOutput:
        from ...pipelines.provenance.findings import inspect_video

        with video_file(video) as path:
            findings = inspect_video(path, progress=host.progress())
        return io.NodeOutput(findings.ai_made, findings.text(), findings.json())
