"""Renders a motion by warping a picture."""

from __future__ import annotations

from typing import Any

from ...pipelines.types import FaceMotion
from .. import host
from ..checked_node import checked_node
from ..frames import check_memory, even_sides, new_clip
from ..host import io
from ..inputs import colours, cut_out_socket, portrait_track
from ..renderer_node import HIDDEN, RendererNode, sound_input, sound_of, streamed_video, video_of, video_output
from ..sockets import FaceLandmarks, FaceMotionSocket

SMALLER = "scale the picture down with ComfyUI's Scale Image to Total Pixels, before Detect Landmarks"


class InstantRender(RendererNode):
    """IMAGE, FACE_LANDMARKS and FACE_MOTION to frames on a plain CPU."""

    FRAME_OUTPUTS = (0, 1)
    VIDEO_OUTPUT = 3

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="TalkingPortraitInstantRender",
            display_name="Instant Render",
            category="Talking Portrait/render",
            description="Animates one picture by warping it: moves the face, opens the mouth, closes the eyes. Needs "
            "no download.",
            search_aliases=["animate portrait", "talking photo", "lip sync", "face animation"],
            inputs=[
                io.Image.Input("image", tooltip="The portrait; of a batch the first picture is used."),
                FaceLandmarks.Input(
                    "landmarks",
                    tooltip="The landmarks of the face in this picture, from Detect Landmarks; the first "
                    "frame is used.",
                ),
                FaceMotionSocket.Input(
                    "motion", tooltip="The motion of the face, from a driver, Reenact Motion or Edit Motion."
                ),
                host.advanced(
                    io.Int.Input(
                        "batch_size",
                        default=8,
                        min=1,
                        max=64,
                        tooltip="Frames that are computed together; more can be faster on a graphics card.",
                    )
                ),
                sound_input(),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The frames."),
                io.Mask.Output(
                    display_name="mask", tooltip="1 where a pixel moved; all other pixels are those of the picture."
                ),
                io.Float.Output(display_name="fps", tooltip="Frames per second; connect it to Create Video."),
                video_output(),
            ],
            hidden=HIDDEN,
        )

    @classmethod
    @checked_node
    def execute(
        cls, image: Any, landmarks: Any, motion: FaceMotion, batch_size: int = 8, audio: Any = None
    ) -> io.NodeOutput:
        from ...pipelines.instant.animate import animate, frames_of

        portrait, track = cut_out_socket(image), portrait_track(landmarks)
        sound, device = sound_of(audio, motion.frames, motion.fps), host.torch_device()
        progress = host.progress()
        progress(0, motion.frames, colours(portrait))
        if not cls.keeps_frames():
            stream = frames_of(colours(portrait), track, motion, batch=batch_size, device=device, progress=progress)
            return io.NodeOutput(None, None, float(motion.fps), streamed_video(stream, motion.fps, sound))
        height, width = (side + side % 2 for side in portrait.shape[:2])
        channels = portrait.shape[2]
        check_memory(motion.frames, height, width, channels + 1, smaller=SMALLER)
        images, masks = new_clip(motion.frames, height, width, channels), new_clip(motion.frames, height, width)
        done = 0
        for frames, moved in animate(portrait, track, motion, batch=batch_size, device=device, progress=progress):
            images[done : done + len(frames)], masks[done : done + len(frames)] = even_sides(frames), even_sides(moved)
            done += len(frames)
        return io.NodeOutput(images, masks, float(motion.fps), video_of(colours(images), motion.fps, sound))
