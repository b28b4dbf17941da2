"""Speech to the motion of a portrait's face, as AniPortrait goes about it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np

from ...models.aniportrait.audio2mesh import FPS, Audio2Mesh
from ...models.aniportrait.audio2pose import POSE, Audio2Pose
from ...models.array_file import read_array
from ...models.face.mouth_shapes import close_lips, lip_curves
from ..errors import TalkingPortraitError, quoted
from ..face.head_pose import tile_template
from ..face.metric_mesh import metric_mesh
from ..memory import Managed, loaded
from ..motion.edit import fit_length, resample
from ..progress import share
from ..timing import as_rate, frame_count
from ..types import Audio, FaceMotion, FaceTrack, Progress, SpeechFeatures, no_progress
from .audio_motion import check_style, predict_offsets, predict_poses

LARGEST_POSE = 1e5
"""Beyond all degrees and centimetres of a head."""
SHAPE_SHARE = 0.3
"""Of the work, what the face's shape takes where the head's movement is predicted too, frame by frame."""


def offsets_of(audio: Audio, audio2mesh: Managed, *, progress: Progress = no_progress) -> np.ndarray:
    """How the face moves with the speech: (frames, 468, 3) cm at 30 frames a second."""
    model, _ = loaded(audio2mesh, Audio2Mesh)
    return predict_offsets(audio, model, progress=progress)


def offsets_of_features(features: SpeechFeatures, audio2mesh: Managed) -> np.ndarray:
    """As `offsets_of`, of features that the encoder inside Audio2Mesh gave already.

    Raises TalkingPortraitError for features of another timing, rate or width, or mixed of several layers.
    """
    width = cast(Audio2Mesh, audio2mesh.module).in_fn.in_features
    channels = features.states.shape[-1]
    if features.timing != "resampled" or features.fps != FPS or features.mixed or channels != width:
        mixture = ", mixed of several layers" if features.mixed else ""
        raise TalkingPortraitError(
            f"The speech features are {features.model}'s, {channels} wide, {features.timing} at "
            f"{float(features.fps):g} frames a second{mixture}, but {width} wide, resampled at {FPS} "
            "is expected; load audio2mesh as the speech encoder and encode with that timing."
        )
    model, device = loaded(audio2mesh, Audio2Mesh)
    return model(features.states[:, -1].to(device, model.in_fn.weight.dtype)).cpu().numpy()


def predicted_poses(
    audio: Audio, audio2pose: Managed, style: int, *, progress: Progress = no_progress
) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and translation (frames, 3) from the portrait's own pose; see `predict_poses`."""
    model, _ = loaded(audio2pose, Audio2Pose)
    return predict_poses(audio, model, style, progress=progress)


def motion_of_offsets(
    offsets: np.ndarray,
    portrait: FaceTrack,
    poses: tuple[np.ndarray, np.ndarray],
    *,
    pose: Literal["head", "camera"] = "head",
    fps: float | Fraction = FPS,
    sound: Audio | None = None,
) -> FaceMotion:
    """The portrait's face, moved by `offsets` (F, 468, 3) and `poses`, both at 30 frames a second, at a rate of `fps`.

    `poses` are a rotation and a translation (F, 3); where the last frames lack them, the last pose stays. With the
    `sound` there are as many frames as cover it: the last of 30 a second may reach further past it than one of `fps`.
    """
    face, _ = metric_mesh(portrait.points[0], portrait.image_size)
    frames = np.minimum(np.arange(len(offsets)), len(poses[0]) - 1)
    vertices, neutral = face + offsets, close_lips(face)
    lip_press, pucker = lip_curves(vertices, neutral)
    motion = FaceMotion(
        vertices=vertices.astype(np.float32),
        neutral=neutral.astype(np.float32),
        rotation=poses[0][frames].astype(np.float32),
        translation=poses[1][frames].astype(np.float32),
        fps=Fraction(FPS),
        pose=pose,
        lip_press=lip_press,
        pucker=pucker,
    )
    motion = resample(motion, as_rate(fps))
    if sound is None:
        return motion
    return fit_length(motion, min(motion.frames, frame_count(sound.samples, sound.sample_rate, motion.fps)))


HeadKind = Literal["predicted", "template", "motion", "still"]


@dataclass(frozen=True)
class HeadMovement:
    """Where head movement comes from, for `motion_from_speech`.

    kind: "predicted" from the speech in the `style` of one of the hundred people in the training, a "template" file,
    another "motion", or "still".
    """

    kind: HeadKind = "predicted"
    style: int = 0
    template: Path | None = None
    motion: FaceMotion | None = None


def motion_from_speech(
    audio2mesh: Managed,
    audio2pose: Managed,
    portrait: FaceTrack,
    head: HeadMovement,
    *,
    audio: Audio | None = None,
    features: SpeechFeatures | None = None,
    fps: float | Fraction = FPS,
    progress: Progress = no_progress,
) -> FaceMotion:
    """The portrait's face (one frame of landmarks) as it speaks, with the movement of its head.

    Args:
        audio: the speech; it moves the face, and predicted head movement.
        features: of audio2mesh's own encoder, which move the face in place of the audio.

    Raises TalkingPortraitError where what the head movement needs is not given, before any network runs.
    """
    rate = as_rate(fps)
    if head.kind not in get_args(HeadKind):
        raise TalkingPortraitError(
            f"The head movement is {quoted(head.kind)}, but one of {', '.join(get_args(HeadKind))} is expected."
        )
    if audio is None and (features is None or head.kind == "predicted"):
        need = "predicted head movement needs audio" if features is not None else "audio or speech features are needed"
        raise TalkingPortraitError(f"No audio is connected, but {need}; connect Load Audio.")
    if head.kind == "motion" and head.motion is None:
        raise TalkingPortraitError(
            "The head is to follow another motion, but none is connected; connect Reenact Motion or another driver to "
            "head_motion."
        )
    if head.kind == "template" and head.template is None:
        raise TalkingPortraitError(
            "The head is to follow a template, but no .npy file is chosen; choose one that AniPortrait has saved."
        )
    template = read_template(head.template) if head.kind == "template" and head.template else None
    if head.kind == "predicted":
        check_style(head.style)
        cast(Audio2Pose, audio2pose.module)  # read now, as its file may be missing or damaged
    begun = SHAPE_SHARE if head.kind == "predicted" and features is None else 0.0
    if features is not None:
        offsets = offsets_of_features(features, audio2mesh)
    else:
        assert audio is not None
        offsets = offsets_of(audio, audio2mesh, progress=share(progress, 0.0, begun or 1.0))
    if head.kind == "predicted":
        assert audio is not None
        poses = predicted_poses(audio, audio2pose, head.style, progress=share(progress, begun, 1.0))
    elif template is not None:
        poses = template_poses(template, len(offsets))
    elif head.kind == "motion":
        assert head.motion is not None
        poses = poses_of_motion(head.motion, len(offsets))
    else:
        poses = still_poses(len(offsets))
    pose = head.motion.pose if head.kind == "motion" and head.motion is not None else "head"
    return motion_of_offsets(offsets, portrait, poses, pose=pose, fps=rate, sound=audio)


def still_poses(frames: int) -> tuple[np.ndarray, np.ndarray]:
    """A head that does not move."""
    return np.zeros((frames, 3)), np.zeros((frames, 3))


def template_poses(template: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """A template (T, 6), played forward and back again as often as needed."""
    poses = tile_template(template, frames)
    return poses[:, :3], poses[:, 3:]


def poses_of_motion(motion: FaceMotion, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Another motion's head movement at 30 frames a second, played forward and back again where it is shorter."""
    if motion.frames == 0:
        raise TalkingPortraitError("The motion for the head has no frames, but at least one is expected.")
    head = resample(motion, Fraction(FPS))
    return template_poses(np.concatenate([head.rotation, head.translation], axis=1), frames)


def read_template(path: str | Path) -> np.ndarray:
    """A head-pose template (T, 6) from a .npy file: Euler angles in degrees and cm at 30 frames a second.

    Raises TalkingPortraitError for a file that is none.
    """
    path = Path(path)
    try:
        poses = read_array(path)
    except ValueError:
        poses = None
    if poses is None or poses.ndim != 2 or poses.shape[1] != POSE or poses.dtype.kind not in "fiu":
        found = "no array of numbers" if poses is None else f"an array of the shape {poses.shape}"
        raise TalkingPortraitError(
            f"{path.name} holds {found}, but a head-pose template (frames, {POSE}) is expected: Euler angles and "
            "translations, as AniPortrait saves them."
        )
    if len(poses) == 0 or not (np.abs(poses) < LARGEST_POSE).all():
        raise TalkingPortraitError(
            f"{path.name} holds no poses, or NaN or far too large numbers among them; make the template again."
        )
    return poses.astype(np.float64)
