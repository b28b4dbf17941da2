"""Renders a motion by warping a picture."""

from __future__ import annotations

from typing import Any

from ...pipelines.types import FaceMotion
from .. import host
from ..checked_node import checked_node
from ..frames import check_memory, even_sides, new_clip
from ..host import io
from ..inputs import colours, cut_out_socket, first_frame, images_socket, portrait_socket, track_from
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
                io.Image.Input(
                    "image",
                    tooltip="The portrait, or the frames of a video, which then speak: head and eyes stay as filmed.",
                ),
                FaceLandmarks.Input(
                    "landmarks",
                    tooltip="The landmarks of the face from Detect Landmarks: of this picture, or of every frame of "
                    "the video.",
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
        cls,
        image: Any,
        landmarks: Any,
        motion: FaceMotion,
        batch_size: int = 8,
        audio: Any = None,
    ) -> io.NodeOutput:
        from ...pipelines.instant.animate import Source, animate_source

        track, pictures, keeps = track_from(landmarks), images_socket(image, "image"), cls.keeps_frames()
        if len(pictures) > 1 and track.frames > 1:
            track.check_pictures(pictures)
            source = Source(colours(pictures), track)
        else:
            portrait = cut_out_socket(image) if keeps else portrait_socket(image)
            source = Source(portrait[None], first_frame(track))
        progress, rate, count, shape = host.progress(), motion.fps, motion.frames, source.images.shape[1:]
        progress(0, count, colours(source.images[0]))
        device = host.torch_device()
        pieces = animate_source(source, motion, batch=batch_size, device=device, as_bytes=not keeps, progress=progress)
        sound = sound_of(audio, count, rate)
        if not keeps:
            stream = (frames for frames, _ in pieces)
            return io.NodeOutput(None, None, float(rate), streamed_video(stream, rate, sound))
        height, width = (side + side % 2 for side in shape[:2])
        check_memory(count, height, width, shape[2] + 1, smaller=SMALLER)
        images, masks = new_clip(count, height, width, shape[2]), new_clip(count, height, width)
        done = 0
        for frames, moved in pieces:
            assert moved is not None
            images[done : done + len(frames)], masks[done : done + len(frames)] = even_sides(frames), even_sides(moved)
            done += len(frames)
        return io.NodeOutput(images, masks, float(rate), video_of(colours(images), rate, sound))
