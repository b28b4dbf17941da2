"""A face motion becomes the coloured line drawings that AniPortrait's networks follow."""

from __future__ import annotations

from typing import Any

from .. import host
from ..checked_node import checked_node
from ..inputs import portrait_track, size_input
from ..renderer_node import frames_in_memory
from ..sockets import FaceLandmarks, FaceMotionSocket

io: Any = host.io


class DrawPose(io.ComfyNode):
    """FACE_MOTION to pose frames."""

    @classmethod
    def define_schema(cls) -> Any:
        return host.schema(
            node_id="TalkingPortraitDrawPose",
            display_name="Draw Pose",
            category="Talking Portrait/motion",
            description="Draws a motion as the coloured face lines that AniPortrait's networks follow.",
            search_aliases=["pose frames", "landmark drawing", "aniportrait", "pose video"],
            inputs=[
                FaceMotionSocket.Input("motion", tooltip="What the face does, from a driver, Reenact or Edit Motion."),
                size_input("width", "Width of the frames; 512 is what AniPortrait was trained on."),
                size_input("height", "Height of the frames; give them the shape of the portrait."),
                FaceLandmarks.Input(
                    "landmarks",
                    optional=True,
                    tooltip="The portrait's face, from Detect Landmarks. Needed for every motion but one with absolute "
                    "poses.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="One drawn face a frame, for AniPortrait Sampler."),
                io.Float.Output(display_name="fps", tooltip="Frames a second; connect it to Create Video."),
            ],
        )

    @classmethod
    @checked_node
    def execute(cls, motion: Any, width: int, height: int, landmarks: Any = None) -> Any:
        from ...pipelines.aniportrait.pose_drawings import drawn_frames

        portrait = None if landmarks is None else portrait_track(landmarks)
        frames = drawn_frames(motion, (height, width), portrait, progress=host.progress())
        return io.NodeOutput(frames_in_memory(frames, motion.frames, (height, width)), float(motion.fps))
