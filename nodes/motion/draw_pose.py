"""Draws a face motion as the pose images that AniPortrait's networks take."""

from __future__ import annotations

from typing import Any

import torch

from .. import host
from ..checked_node import checked_node
from ..inputs import first_frame, size_input
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
            description="Draws a motion as pose images: the coloured face lines that AniPortrait's networks were "
            "trained on.",
            search_aliases=["pose frames", "landmark drawing", "aniportrait", "pose video"],
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
    def execute(cls, motion: Any, width: int, height: int, landmarks: Any = None) -> Any:
        from ...pipelines.aniportrait.pose_drawings import PoseDrawings
        from ...pipelines.face.landmark_payload import from_payload

        portrait = None if landmarks is None else first_frame(from_payload(landmarks))
        drawings = PoseDrawings(motion, (height, width), portrait)
        progress = host.progress()
        images = torch.empty(len(drawings), height, width, 3)
        for frame in range(len(drawings)):
            images[frame] = drawings[frame]
            progress(frame + 1, len(drawings), images[frame])
        return io.NodeOutput(host.to_socket(images), float(motion.fps))
