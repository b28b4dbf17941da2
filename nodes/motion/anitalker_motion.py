"""Predicts AniTalker's motion latents from speech."""

from __future__ import annotations

from typing import Any

from ...pipelines.types import FaceMotion, SpeechFeatures
from .. import host
from ..checked_node import checked_node
from ..host import io
from ..inputs import curve_inputs, curve_socket, portrait_socket, portrait_track, seed_input
from ..loaded_models import LoadedAniTalker
from ..sockets import AniTalkerSocket, FaceLandmarks, FaceMotionSocket, MotionLatentsSocket, SpeechFeaturesSocket


def _angle(name: str, what: str) -> io.Input:
    return io.Float.Input(name, default=0.0, min=-90.0, max=90.0, step=1.0, round=0.01, tooltip=what)


def _part(name: str, what: str) -> io.Input:
    return io.Float.Input(name, default=0.5, min=0.0, max=1.0, step=0.01, round=0.001, tooltip=what)


def _drawn_angle(name: str) -> str:
    return (
        f"For numbers: {name} as a curve from the speech's start to its end, in place of the number and its line in "
        "curves. The bottom is -45 degrees, the middle 0, the top 45."
    )


def _drawn_part(name: str) -> str:
    return (
        f"For full_control: {name} as a curve from the speech's start to its end, in place of the number and its line "
        "in curves. The bottom is 0, the top 1."
    )


class AniTalkerMotion(io.ComfyNode):
    """SPEECH_FEATURES and a portrait to MOTION_LATENTS."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="TalkingPortraitAniTalkerMotion",
            display_name="AniTalker Motion",
            category="Talking Portrait/motion",
            description="Predicts the motion of a portrait from speech by diffusion: lips, head, eyes and brows.",
            search_aliases=["anitalker", "audio driven", "lip sync", "motion diffusion", "head pose"],
            inputs=[
                AniTalkerSocket.Input("anitalker", tooltip="From Load AniTalker."),
                SpeechFeaturesSocket.Input(
                    "features",
                    tooltip="HuBERT features from Encode Speech (timing paired), or Speech MFCC (anitalker), depending "
                    "on the model.",
                ),
                io.Image.Input("portrait", tooltip="The square portrait to animate."),
                io.Combo.Input(
                    "control",
                    options=["none", "numbers", "face motion"],
                    default="none",
                    tooltip="What controls the head: the speech alone, the numbers below, or the head of a face "
                    "motion. The last two need a pose_only or full_control model.",
                ),
                _angle("yaw", "For numbers: degrees to the face's left; keep near the portrait's own pose."),
                _angle("pitch", "For numbers: degrees downwards."),
                _angle("roll", "For numbers: degrees towards the face's right shoulder."),
                _part(
                    "location",
                    "For full_control: horizontal position of the nose, 0 at the left edge and 1 at the right one.",
                ),
                _part("scale", "For full_control: distance from brows to chin, as a fraction of the picture's width."),
                io.Int.Input(
                    "steps",
                    default=50,
                    min=2,
                    max=1000,
                    tooltip="Diffusion steps; a number that gives no whole stride through the time steps is raised to "
                    "the next that does.",
                ),
                seed_input("Selects the noise; the same seed gives the same motion."),
                FaceMotionSocket.Input(
                    "motion", optional=True, tooltip="For face motion: the motion whose head pose is used."
                ),
                FaceLandmarks.Input(
                    "landmarks",
                    optional=True,
                    tooltip="The landmarks of the face in this portrait; a face motion then starts from its pose and "
                    "position.",
                ),
                host.advanced(
                    io.String.Input(
                        "curves",
                        default="",
                        multiline=True,
                        tooltip="For numbers: one line for each value that changes over time, as seconds:value points, "
                        "such as yaw 0:0 1.5:20 3:-10.",
                    )
                ),
                host.advanced(
                    io.Float.Input(
                        "window_seconds",
                        default=0.0,
                        min=0.0,
                        max=600.0,
                        step=1.0,
                        tooltip="Length of the windows that the model denoises; 0 takes up to two minutes at once, as "
                        "published, and longer speech in overlapping, blended windows of one minute.",
                    )
                ),
                host.advanced(
                    io.Combo.Input(
                        "noise",
                        options=["own", "published"],
                        default="own",
                        tooltip="published: the noise that AniTalker's own program draws for this seed.",
                    )
                ),
                *curve_inputs(
                    {f"{name}_curve": _drawn_angle(name) for name in ("yaw", "pitch", "roll")}
                    | {f"{name}_curve": _drawn_part(name) for name in ("location", "scale")}
                ),
            ],
            outputs=[MotionLatentsSocket.Output(display_name="motion", tooltip="For AniTalker Render.")],
        )

    @classmethod
    @checked_node
    def execute(
        cls,
        anitalker: LoadedAniTalker,
        features: SpeechFeatures,
        portrait: Any,
        control: Any,
        yaw: float,
        pitch: float,
        roll: float,
        location: float,
        scale: float,
        steps: int,
        seed: int,
        motion: FaceMotion | None = None,
        landmarks: Any = None,
        curves: str = "",
        window_seconds: float = 0.0,
        noise: Any = "own",
        yaw_curve: Any = None,
        pitch_curve: Any = None,
        roll_curve: Any = None,
        location_curve: Any = None,
        scale_curve: Any = None,
    ) -> io.NodeOutput:
        from ...pipelines.anitalker.animate import HeadControls, MotionSettings, motion_from_speech

        picture = portrait_socket(portrait, "portrait")
        drawn = {
            "yaw": yaw_curve,
            "pitch": pitch_curve,
            "roll": roll_curve,
            "location": location_curve,
            "scale": scale_curve,
        }
        settings = MotionSettings(
            control=control,
            head=HeadControls.constant(yaw, pitch, roll, location, scale),
            curves=curves,
            drawn={name: curve_socket(curve, f"{name}_curve") for name, curve in drawn.items() if curve is not None},
            steps=steps,
            seed=seed,
            noise=noise,
            seconds=window_seconds or None,
        )
        progress = host.progress()
        progress(0, 1, picture)
        codes = motion_from_speech(
            anitalker.stage1,
            anitalker.stage2,
            features,
            picture,
            settings,
            motion=motion,
            track=None if landmarks is None else portrait_track(landmarks),
            progress=progress,
        )
        return io.NodeOutput(codes)
