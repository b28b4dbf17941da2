"""Predicts the motion of a portrait's face from speech, by AniPortrait's two audio networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...pipelines.errors import TalkingPortraitError, one_line
from ...pipelines.types import FaceMotion, SpeechFeatures
from .. import host
from ..checked_node import checked_node
from ..host import io
from ..inputs import portrait_track, rate_input, sound_from
from ..loaded_models import LoadedAniPortrait
from ..model_paths import Fingerprint, files_fingerprint, verdict
from ..sockets import AniPortraitSocket, FaceLandmarks, FaceMotionSocket, SpeechFeaturesSocket

NO_TEMPLATE = "none"


class AniPortraitAudioMotion(io.ComfyNode):
    """AUDIO or SPEECH_FEATURES, and a portrait's FACE_LANDMARKS, to FACE_MOTION."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="TalkingPortraitAniPortraitAudioMotion",
            display_name="AniPortrait Audio Motion",
            category="Talking Portrait/motion",
            description="Predicts the motion of the portrait's face and head from speech with AniPortrait's networks.",
            search_aliases=["aniportrait", "audio2mesh", "audio2pose", "lip sync", "speech to face"],
            inputs=[
                AniPortraitSocket.Input("aniportrait", tooltip="From Load AniPortrait."),
                FaceLandmarks.Input(
                    "landmarks", tooltip="The landmarks of the face in the portrait, from Detect Landmarks."
                ),
                io.Combo.Input(
                    "head_pose",
                    options=["predicted", "template", "motion", "still"],
                    default="predicted",
                    tooltip="Source of the head movement: predicted from the speech, a template file, another face "
                    "motion, or none.",
                ),
                io.Int.Input(
                    "style",
                    default=0,
                    min=0,
                    max=99,
                    tooltip="For predicted head movement: the person whose style is predicted, one of the hundred in "
                    "the training data.",
                ),
                rate_input(
                    "fps",
                    "Frames per second of the motion. The networks predict 30; other rates are interpolated.",
                    30.0,
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="The speech. If there is loud music in it, use Separate Vocals first.",
                ),
                SpeechFeaturesSocket.Input(
                    "features",
                    optional=True,
                    tooltip="Features of audio2mesh's own encoder, resampled at 30 fps; when connected they drive the "
                    "face instead of the audio.",
                ),
                FaceMotionSocket.Input(
                    "head_motion",
                    optional=True,
                    tooltip="For head_pose motion: the motion whose head movement is used; where it is shorter, it is "
                    "played forward and backward.",
                ),
                host.advanced(
                    io.Combo.Input(
                        "template",
                        options=[NO_TEMPLATE, *host.model_names(host.OWN_CATEGORY, (".npy",))],
                        default=NO_TEMPLATE,
                        tooltip="For head_pose template: a .npy file of poses in AniPortrait's format, in "
                        "models/talking_portrait.",
                    )
                ),
            ],
            outputs=[FaceMotionSocket.Output(display_name="motion", tooltip="The motion of the portrait's face.")],
        )

    @classmethod
    def validate_inputs(cls, template: str | None = None) -> bool | str:
        return verdict(_template_file, None if template == NO_TEMPLATE else template)

    @classmethod
    def fingerprint_inputs(cls, template: Any = NO_TEMPLATE, **_: Any) -> Fingerprint:
        return files_fingerprint(host.OWN_CATEGORY, template)

    @classmethod
    @checked_node
    def execute(
        cls,
        aniportrait: LoadedAniPortrait,
        landmarks: Any,
        head_pose: Any,
        style: int,
        fps: float,
        audio: Any = None,
        features: SpeechFeatures | None = None,
        head_motion: FaceMotion | None = None,
        template: Any = NO_TEMPLATE,
    ) -> io.NodeOutput:
        from ...pipelines.aniportrait.face_motion import HeadMovement, motion_from_speech

        motion = motion_from_speech(
            aniportrait.audio2mesh,
            aniportrait.audio2pose,
            portrait_track(landmarks),
            HeadMovement(head_pose, style, _template_file(template) if head_pose == "template" else None, head_motion),
            audio=None if audio is None else sound_from(audio),
            features=features,
            fps=fps,
            progress=host.progress(),
        )
        return io.NodeOutput(motion)


def _template_file(name: str) -> Path:
    """Raises TalkingPortraitError where none is chosen, and for one that is not there."""
    folder = host.model_folders(host.OWN_CATEGORY)[0]
    if name == NO_TEMPLATE:
        raise TalkingPortraitError(
            f"The head is to follow a template, but no .npy file is chosen; put one into {folder} and choose it."
        )
    path = host.model_path((host.OWN_CATEGORY,), name)
    if path is None:
        raise TalkingPortraitError(
            f"The head-pose template {one_line(name)} is not in {folder}; put it there or pick another from the list."
        )
    return path
