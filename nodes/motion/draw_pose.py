"""Draws a face motion as the pose images that AniPortrait's networks take."""

from __future__ import annotations

from typing import Any

from ...pipelines.types import FaceMotion
from .. import host
from ..checked_node import checked_node
from ..frames import frames_in_memory
from ..host import io
from ..inputs import portrait_track, size_input
from ..sockets import FaceLandmarks, FaceMotionSocket


class DrawPose(io.ComfyNode):
    """FACE_MOTION to pose frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="TalkingPortraitDrawPose",
            display_name="Draw Pose",
            category="Talking Portrait/motion",
            description="Draws a motion as pose images: the coloured face lines that AniPortrait's networks were "
            "trained on.",
            search_aliases=["pose frames", "landmark drawing", "aniportrait", "pose video"],
            has_intermediate_output=True,
            inputs=[
                FaceMotionSocket.Input(
                    "motion", tooltip="The motion of the face, from a driver, Reenact Motion or Edit Motion."
                ),
                size_input("width", "Width of the frames; AniPortrait was trained on 512."),
                size_input("height", "Height of the frames; use the aspect ratio of the portrait."),
                FaceLandmarks.Input(
                    "landmarks",
                    optional=True,
                    tooltip="The landmarks of the portrait's face, from Detect Landmarks. Needed for every motion "
                    "except those with absolute poses.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="images", tooltip="One pose image for each frame, for AniPortrait Sampler."
                ),
                io.Float.Output(display_name="fps", tooltip="Frames per second; connect it to Create Video."),
            ],
        )

    @classmethod
    @checked_node
    def execute(cls, motion: FaceMotion, width: int, height: int, landmarks: Any = None) -> io.NodeOutput:
        from ...pipelines.aniportrait.pose_drawings import drawn_frames

        portrait = None if landmarks is None else portrait_track(landmarks)
        frames = drawn_frames(motion, (height, width), portrait, progress=host.progress())
        images = frames_in_memory(frames, motion.frames, (height, width))
        return io.NodeOutput(images, float(motion.fps), ui=host.shown(images[0]))
