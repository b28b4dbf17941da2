"""Samples a video from a portrait and pose images, by AniPortrait's diffusion."""

from __future__ import annotations

from typing import Any

import torch

from ...pipelines.aniportrait.settings import LONGEST_WINDOW, AnimationState
from ...pipelines.errors import TalkingPortraitError
from ...pipelines.types import FaceMotion
from .. import host
from ..checked_node import checked_node
from ..host import io
from ..inputs import (
    colours,
    compiled_input,
    decode_batch_input,
    deep_every_input,
    frame_rate,
    guidance_inputs,
    guidance_scale_input,
    images_socket,
    portrait_socket,
    portrait_track,
    rate_input,
    seed_input,
    size_input,
)
from ..loaded_models import LoadedAniPortrait
from ..renderer_node import HIDDEN, RendererNode, sound_input, sound_of, video_output
from ..sockets import AniPortraitSocket, AniPortraitStateSocket, FaceLandmarks, FaceMotionSocket


class AniPortraitSampler(RendererNode):
    """Portrait, pose frames or FACE_MOTION, VAE and CLIP_VISION to frames."""

    VIDEO_OUTPUT = 3

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="TalkingPortraitAniPortraitSampler",
            display_name="AniPortrait Sampler",
            category="Talking Portrait/render",
            description="Animates a portrait with a motion or with pose frames, by AniPortrait's video diffusion.",
            search_aliases=["aniportrait", "animate portrait", "portrait diffusion", "talking head"],
            inputs=[
                AniPortraitSocket.Input("aniportrait", tooltip="From Load AniPortrait."),
                io.Image.Input(
                    "portrait",
                    tooltip="The picture to animate, resized to width and height; of a batch the first is used.",
                ),
                io.Vae.Input("vae", tooltip="Stable Diffusion 1.x's VAE, sd-vae-ft-mse, from Load VAE."),
                io.ClipVision.Input(
                    "clip_vision", tooltip="The image encoder of sd-image-variations, from Load CLIP Vision."
                ),
                size_input("width", "Width of the video; the networks were trained on 512 x 512."),
                size_input("height", "Height of the video; use the aspect ratio of the portrait."),
                io.Int.Input("steps", default=25, min=1, max=1000, tooltip="Denoising steps; 25 as published."),
                guidance_scale_input("Classifier-free guidance scale; 1 and less turn guidance off, at half the cost."),
                io.Combo.Input(
                    "scheduler",
                    options=["ddim", "dpmpp_2m", "unipc", "lcm"],
                    default="ddim",
                    tooltip="ddim is the published one. dpmpp_2m and unipc need fewer steps; lcm needs a distilled "
                    "network.",
                ),
                seed_input("Selects the noise; the same seed gives the same video.", default=42),
                io.Combo.Input(
                    "mode",
                    options=["reference", "seamless"],
                    default="reference",
                    tooltip="reference: as published, all frames at once. seamless: segment by segment in constant "
                    "memory, without seams; another sampler can continue the video.",
                ),
                rate_input("fps", "Frames per second of the pose frames; a motion has its own rate.", 30.0),
                FaceMotionSocket.Input(
                    "motion", optional=True, tooltip="The motion of the face; the node draws it as pose images."
                ),
                FaceLandmarks.Input(
                    "landmarks",
                    optional=True,
                    tooltip="The landmarks of the face in the portrait, from Detect Landmarks; a motion is drawn onto "
                    "it.",
                ),
                io.Image.Input(
                    "pose_frames",
                    optional=True,
                    tooltip="Pose images, from Draw Pose or a pose video, in place of a motion.",
                ),
                AniPortraitStateSocket.Input(
                    "previous", optional=True, tooltip="The state of the sampler before, which this one continues."
                ),
                host.advanced(
                    io.Int.Input(
                        "window",
                        default=16,
                        min=1,
                        max=LONGEST_WINDOW,
                        tooltip="Length of the context window: frames that the network denoises together; 16 as "
                        "published.",
                    )
                ),
                host.advanced(
                    io.Int.Input(
                        "overlap",
                        default=4,
                        min=0,
                        max=31,
                        tooltip="Frames that neighbouring windows share; fewer than the length of the window.",
                    )
                ),
                host.advanced(
                    io.Int.Input(
                        "window_batch",
                        default=1,
                        min=1,
                        max=64,
                        tooltip="Windows computed at once: faster on a large graphics card; halved when memory runs "
                        "out.",
                    )
                ),
                decode_batch_input(),
                host.advanced(
                    io.Int.Input(
                        "stretch",
                        default=16,
                        min=1,
                        max=1000,
                        tooltip="For seamless: length of a segment in windows; longer segments cost less time and more "
                        "memory.",
                    )
                ),
                host.advanced(
                    io.Boolean.Input(
                        "continued",
                        default=False,
                        tooltip="For seamless: another sampler continues the video; a few frames beyond the end are "
                        "sampled, so that there is no seam.",
                    )
                ),
                host.advanced(
                    io.Boolean.Input(
                        "published_pose",
                        default=True,
                        tooltip="Pose images are normalised as in the published program; off, as in its training.",
                    )
                ),
                *guidance_inputs(),
                host.advanced(
                    io.Boolean.Input(
                        "swap_colours",
                        default=False,
                        tooltip="For pose frames from a video made by AniPortrait's own tool, in which red and blue "
                        "are swapped.",
                    )
                ),
                deep_every_input("For seamless: the deep layers"),
                compiled_input(),
                sound_input(),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The frames."),
                io.Float.Output(display_name="fps", tooltip="Frames per second; connect it to Create Video."),
                AniPortraitStateSocket.Output(
                    display_name="state", tooltip="For the input previous of a sampler that continues this one."
                ),
                video_output(),
            ],
            hidden=HIDDEN,
        )

    @classmethod
    @checked_node
    def execute(
        cls,
        aniportrait: LoadedAniPortrait,
        portrait: Any,
        vae: Any,
        clip_vision: Any,
        width: int,
        height: int,
        steps: int,
        cfg: float,
        scheduler: Any,
        seed: int,
        mode: Any,
        fps: float,
        motion: FaceMotion | None = None,
        landmarks: Any = None,
        pose_frames: Any = None,
        previous: AnimationState | None = None,
        window: int = 16,
        overlap: int = 4,
        window_batch: int = 1,
        decode_batch: int = 4,
        stretch: int = 16,
        continued: bool = False,
        published_pose: bool = True,
        guide_from: float = 0.0,
        guide_to: float = 1.0,
        swap_colours: bool = False,
        deep_every: int = 1,
        compiled: bool = False,
        audio: Any = None,
    ) -> io.NodeOutput:
        from ...pipelines.aniportrait.animate import Settings, animate
        from ..vae_and_clip import codec, picture_encoder

        picture = portrait_socket(portrait, "portrait")
        faces = _faces(motion, pose_frames, swap_colours)
        count, rate = (faces.frames, faces.fps) if isinstance(faces, FaceMotion) else (len(faces), frame_rate(fps))
        sound = sound_of(audio, count, rate)
        progress = host.progress()
        settings = Settings(
            size=(height, width),
            steps=steps,
            cfg=cfg,
            seed=seed,
            window=window,
            overlap=overlap,
            window_batch=window_batch,
            decode_batch=decode_batch,
            mode=mode,
            segment_windows=stretch,
            continued=continued,
            published_pose=published_pose,
            scheduler=scheduler,
            guided=(guide_from, guide_to),
            deep_every=deep_every,
            compiled=compiled,
        )
        animation = animate(
            aniportrait.networks,
            codec(vae),
            picture_encoder(clip_vision),
            picture,
            faces,
            settings,
            track=None if landmarks is None else portrait_track(landmarks),
            state=previous,
            progress=progress,
        )
        progress(0, count, picture)
        images, video = cls.images_and_video(animation, count, rate, sound, (height, width))
        return io.NodeOutput(images, float(rate), animation.state, video)


def _faces(motion: FaceMotion | None, pose_frames: Any, swapped: bool) -> torch.Tensor | FaceMotion:
    """What the face is to do: the motion, or the pose frames."""
    if (motion is None) == (pose_frames is None):
        found = "Neither a motion nor pose frames are" if motion is None else "Both a motion and pose frames are"
        raise TalkingPortraitError(f"{found} connected, but one of the two is expected; connect one.")
    if motion is not None:
        return motion
    drawn = colours(images_socket(pose_frames, "pose_frames"))
    return drawn.flip(-1) if swapped else drawn
