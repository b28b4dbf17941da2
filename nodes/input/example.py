"""The portrait and the speech that ship with the pack."""

from __future__ import annotations

from .. import host
from ..checked_node import checked_node
from ..host import io
from ..inputs import audio_socket, landmarks_socket
from ..sockets import FaceLandmarks


class Example(io.ComfyNode):
    """The shipped portrait, its landmarks and speech, to try other nodes with."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="TalkingPortraitSample",
            display_name="Example Portrait and Speech",
            category="Talking Portrait/input",
            description="A portrait with its landmarks and a few seconds of speech, to try nodes and workflows with.",
            search_aliases=["sample portrait", "sample speech", "demo"],
            inputs=[],
            outputs=[
                io.Image.Output(display_name="image", tooltip="A portrait of 512 x 512 pixels."),
                io.Audio.Output(display_name="audio", tooltip="A few seconds of synthetic speech."),
                FaceLandmarks.Output(display_name="landmarks", tooltip="The landmarks of the face in the portrait."),
            ],
        )

    @classmethod
    @checked_node
    def execute(cls) -> io.NodeOutput:
        from ...pipelines.files.example import example

        image, track, speech = example()
        return io.NodeOutput(host.to_socket(image[None]), audio_socket(speech), landmarks_socket(track))
