"""Samples a video from a portrait and speech, by APasco's (and Hallo's) diffusion."""

from __future__ import annotations

from typing import Any

from ...pipelines.apasco.masks import RegionMasks
from ...pipelines.apasco.settings import AnimationState, Networks
from ...pipelines.errors import TalkingPortraitError
from ...pipelines.face.identity import FaceIdentity
from ...pipelines.types import FaceMotion, FaceTrack, SpeechFeatures
from .. import host
from ..checked_node import checked_node
from ..host import io
from ..inputs import (
    amount_input,
    compiled_input,
    decode_batch_input,
    deep_every_input,
    guidance_inputs,
    guidance_scale_input,
    portrait_socket,
    seed_input,
    size_input,
    track_from,
)
from ..renderer_node import HIDDEN, RendererNode, sound_input, sound_of, video_output
from ..sockets import (
    APascoSocket,
    APascoStateSocket,
    FaceEmbeddingSocket,
    FaceLandmarks,
    FaceMotionSocket,
    RegionMasksSocket,
    SpeechFeaturesSocket,
)


def share_input(name: str, tooltip: str) -> io.Input:
    return host.advanced(io.Float.Input(name, default=0.0, min=0.0, max=1.0, step=0.05, round=0.001, tooltip=tooltip))


class APascoSampler(RendererNode):
    """Portrait, SPEECH_FEATURES, FACE_EMBEDDING, REGION_MASKS and VAE to frames."""

    VIDEO_OUTPUT = 3

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="TalkingPortraitAPascoSampler",
            display_name="APasco Sampler",
            category="Talking Portrait/render",
            description="Animates a portrait with speech, clip by clip, by the video diffusion of APasco and Hallo.",
            search_aliases=["apasco", "hallo", "animate portrait", "lip sync", "talking head"],
            inputs=[
                APascoSocket.Input("apasco", tooltip="From Load APasco."),
                io.Image.Input(
                    "portrait",
                    tooltip="The picture to animate, resized to width and height; of a batch the first is used.",
                ),
                io.Vae.Input("vae", tooltip="Stable Diffusion 1.x's VAE, sd-vae-ft-mse, from Load VAE."),
                SpeechFeaturesSocket.Input(
                    "features", tooltip="All layers of wav2vec2-base in the resampled timing, from Encode Speech."
                ),
                FaceEmbeddingSocket.Input("embedding", tooltip="The identity of the face, from Face Embedding."),
                RegionMasksSocket.Input(
                    "masks", tooltip="The areas of face and lips in this picture, from Region Masks."
                ),
                size_input("width", "Width of the video; the networks were trained on 512 x 512."),
                size_input("height", "Height of the video; use the aspect ratio of the portrait."),
                io.Int.Input("steps", default=40, min=1, max=1000, tooltip="Denoising steps; 40 as published."),
                guidance_scale_input(
                    "Classifier-free guidance scale, for the face and the speech; 1 and less turn guidance "
                    "off, at half the cost."
                ),
                seed_input("Selects the noise; the same seed gives the same video.", default=42),
                amount_input("pose_weight", "Weight of the audio attention outside the face: head and background."),
                amount_input("face_weight", "Weight of the audio attention in the face."),
                amount_input("lip_weight", "Weight of the audio attention on the lips."),
                FaceLandmarks.Input(
                    "landmarks",
                    optional=True,
                    tooltip="Face geometry, for weights that were trained with it: the portrait's landmarks, or those "
                    "of a driving video.",
                ),
                FaceMotionSocket.Input(
                    "motion", optional=True, tooltip="Face geometry from a driver, in place of landmarks."
                ),
                APascoStateSocket.Input(
                    "previous",
                    optional=True,
                    tooltip="The state of the sampler before; this one continues the same speech from there.",
                ),
                host.advanced(
                    io.Int.Input(
                        "frames",
                        default=0,
                        min=0,
                        max=1000000,
                        tooltip="Number of frames to make in this run; 0 for all that are left of the speech.",
                    )
                ),
                host.advanced(
                    io.Int.Input(
                        "clip_length",
                        default=16,
                        min=1,
                        max=30,
                        tooltip="Frames of a clip, which are sampled together; 16 as published.",
                    )
                ),
                host.advanced(
                    io.Combo.Input(
                        "schedule",
                        options=["linear", "scaled_linear"],
                        default="linear",
                        tooltip="Noise schedule: linear as in the published program, scaled_linear as in its training.",
                    )
                ),
                host.advanced(amount_input("geometry_weight", "Weight of the attention to face geometry.")),
                host.advanced(
                    io.Int.Input(
                        "overlap",
                        default=0,
                        min=0,
                        max=15,
                        tooltip="Against jumps between clips: frames over which one clip is blended into the next, at "
                        "most half a clip. Each costs time.",
                    )
                ),
                host.advanced(
                    io.Boolean.Input(
                        "shared_noise", default=False, tooltip="Against flicker: every clip starts from the same noise."
                    )
                ),
                share_input("calming", "Against flicker: averages neighbouring frames, except on the lips."),
                share_input("anchoring", "Against drift: moves the colours of each clip towards the portrait's."),
                host.advanced(
                    io.Boolean.Input(
                        "mixed_rows",
                        default=True,
                        tooltip="Assigns the portrait's tokens to rows of the guidance batch in the order of the "
                        "published program, which its results depend on; off for weights trained without that.",
                    )
                ),
                decode_batch_input(),
                sound_input(),
                *guidance_inputs(),
                deep_every_input("The deep layers"),
                compiled_input(),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The frames."),
                io.Float.Output(display_name="fps", tooltip="Frames per second; connect it to Create Video."),
                APascoStateSocket.Output(
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
        apasco: Networks,
        portrait: Any,
        vae: Any,
        features: SpeechFeatures,
        embedding: FaceIdentity,
        masks: RegionMasks,
        width: int,
        height: int,
        steps: int,
        cfg: float,
        seed: int,
        pose_weight: float,
        face_weight: float,
        lip_weight: float,
        landmarks: Any = None,
        motion: FaceMotion | None = None,
        previous: AnimationState | None = None,
        frames: int = 0,
        clip_length: int = 16,
        schedule: Any = "linear",
        geometry_weight: float = 1.0,
        overlap: int = 0,
        shared_noise: bool = False,
        calming: float = 0.0,
        anchoring: float = 0.0,
        mixed_rows: bool = True,
        decode_batch: int = 4,
        audio: Any = None,
        guide_from: float = 0.0,
        guide_to: float = 1.0,
        deep_every: int = 1,
        compiled: bool = False,
    ) -> io.NodeOutput:
        from ...pipelines.apasco.animate import Inputs, Settings, animate
        from ..vae_and_clip import codec

        picture = portrait_socket(portrait, "portrait")
        settings = Settings(
            size=(height, width),
            clip=clip_length,
            steps=steps,
            cfg=cfg,
            seed=seed,
            schedule=schedule,
            weights=(pose_weight, face_weight, lip_weight),
            geometry=geometry_weight,
            mixed_rows=mixed_rows,
            decode_batch=decode_batch,
            compiled=compiled,
            guided=(guide_from, guide_to),
            deep_every=deep_every,
            shared_noise=shared_noise,
            overlap=overlap,
            deflicker=calming,
            anchoring=anchoring,
        )
        inputs = Inputs(picture, embedding.embedding, masks, features, _geometry(landmarks, motion))
        progress = host.progress()
        progress(0, features.frames - features.padding, picture)
        animation = animate(apasco, codec(vae), inputs, settings, frames=frames, state=previous, progress=progress)
        sound = sound_of(audio, animation.frames, features.fps, first=previous.frames if previous else 0)
        pictures = animation.pictures()
        images, video = cls.images_and_video(pictures, animation.frames, features.fps, sound, (height, width))
        return io.NodeOutput(images, float(features.fps), animation.state, video)


def _geometry(landmarks: Any, motion: FaceMotion | None) -> FaceTrack | FaceMotion | None:
    """The face geometry's source: a track or a motion, or None."""
    if landmarks is not None and motion is not None:
        raise TalkingPortraitError(
            "Both landmarks and a motion are connected as face geometry, but at most one of the two is expected; "
            "disconnect one."
        )
    return motion if landmarks is None else track_from(landmarks)
