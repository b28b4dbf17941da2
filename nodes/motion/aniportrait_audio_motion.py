"""Predicts the motion of a portrait's face from speech, by AniPortrait's two audio networks."""

from __future__ import annotations

from typing import Any

from ...pipelines.errors import TalkingPortraitError
from .. import host
from ..aniportrait_files import LoadedAniPortrait
from ..checked_node import checked_node
from ..inputs import first_frame, rate_input
from ..sockets import AniPortraitSocket, FaceLandmarks, FaceMotionSocket, SpeechFeaturesSocket

io: Any = host.io

NO_TEMPLATE = "none"
SHAPE_SHARE = 0.3
"""Fraction of the progress that the face's shape takes where head movement is predicted too, frame by frame."""


class AniPortraitAudioMotion(io.ComfyNode):
    """AUDIO or SPEECH_FEATURES, and a portrait's FACE_LANDMARKS, to FACE_MOTION."""

    @classmethod
    def define_schema(cls) -> Any:
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
    def validate_inputs(cls, template: str = NO_TEMPLATE) -> bool | str:
        return True  # a missing file is reported by execute

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
        features: Any = None,
        head_motion: Any = None,
        template: Any = NO_TEMPLATE,
    ) -> Any:
        from ...pipelines.aniportrait import face_motion
        from ...pipelines.audio.waveform import check_audio
        from ...pipelines.face.landmark_payload import from_payload
        from ...pipelines.progress import share

        portrait = first_frame(from_payload(landmarks))
        _check_choice(head_pose, audio, features, head_motion, template)
        sound = None if audio is None else check_audio(audio)
        progress = host.progress()
        begun = SHAPE_SHARE if head_pose == "predicted" and features is None else 0.0
        if features is not None:
            offsets = face_motion.offsets_of_features(features, aniportrait.audio2mesh)
        else:
            assert sound is not None
            offsets = face_motion.offsets_of(sound, aniportrait.audio2mesh, progress=share(progress, 0.0, begun or 1.0))
        if head_pose == "predicted":
            assert sound is not None
            moving = share(progress, begun, 1.0)
            poses = face_motion.predicted_poses(sound, aniportrait.audio2pose, style, progress=moving)
        elif head_pose == "template":
            poses = face_motion.template_poses(_template(template), len(offsets))
        elif head_pose == "motion":
            poses = face_motion.poses_of_motion(head_motion, len(offsets))
        else:
            poses = face_motion.still_poses(len(offsets))
        acts_on: Any = head_motion.pose if head_pose == "motion" else "head"
        motion = face_motion.motion_of_offsets(offsets, portrait, poses, pose=acts_on, fps=fps, sound=sound)
        return io.NodeOutput(motion)


def _check_choice(head_pose: str, audio: Any, features: Any, head_motion: Any, template: str) -> None:
    """Raises TalkingPortraitError where what the choice needs is not connected."""
    if audio is None and (features is None or head_pose == "predicted"):
        need = "predicted head movement needs audio" if features is not None else "audio or speech features are needed"
        raise TalkingPortraitError(f"No audio is connected, but {need}; connect Load Audio.")
    if head_pose == "motion" and head_motion is None:
        raise TalkingPortraitError(
            "The head is to follow another motion, but none is connected; connect Reenact Motion or another driver to "
            "head_motion."
        )
    if head_pose == "template" and template == NO_TEMPLATE:
        raise TalkingPortraitError(
            f"The head is to follow a template, but no .npy file is chosen; put one into "
            f"{host.model_folders(host.OWN_CATEGORY)[0]} and choose it."
        )


def _template(name: str) -> Any:
    from ...pipelines.aniportrait.face_motion import read_template

    path = host.model_path((host.OWN_CATEGORY,), name)
    if path is None:
        raise TalkingPortraitError(
            f"The head-pose template {name} is not in {host.model_folders(host.OWN_CATEGORY)[0]}; put it there or pick "
            "another from the list."
        )
    return read_template(path)
