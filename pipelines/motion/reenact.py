"""Re-enactment: what one face does in a video becomes the motion of another face in a portrait."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Literal, get_args

import numpy as np

from ...models.face.eyelid_shapes import eye_opening, eyelid_shapes
from ...models.face.face_mesh import BLENDSHAPES, LIPS_INNER, VERTICES, eye_distance, face_mesh, mouth_opening
from ...models.face.mouth_shapes import close_lips, lip_curves
from ..errors import TalkingPortraitError, quoted
from ..face.head_pose import head_matrix, smooth_poses, split_matrix
from ..face.metric_mesh import metric_mesh
from ..timing import as_rate
from ..types import FaceMotion, FaceTrack, Progress, no_progress

Pose = Literal["relative", "absolute"]
Transfer = Literal["fitted", "published"]

POSE_WINDOW = 3
"""Frames over which AniPortrait averages the poses of a driving video."""
MAX_LIP_FLOOR = 0.02
"""Landmarkers report closed lips as up to this opening, in eye distances."""
SHUT_EYE = 0.18
"""Landmarkers report a shut eye as about this part of its open height."""
FULL_GAZE = 30.0
"""Degrees that an eye turns for a score of 1, about."""
_REST_SHARE = 0.05
"""Share of a video's frames, those that move least, whose mean is the driving face at rest."""
_CHUNK = 512


def most_neutral_frame(blendshapes: np.ndarray) -> int:
    """Index of the frame whose expression scores (F, 51), all but `_neutral`, add up to the least."""
    return int(np.asarray(blendshapes, dtype=np.float64).sum(axis=1).argmin())


def transfer_vertices(vertices: np.ndarray, neutral: int, reference: np.ndarray) -> np.ndarray:
    """Driving meshes (F, 468, 3) as AniPortrait puts them on a `reference` mesh: what changed since frame `neutral`."""
    return vertices - vertices[neutral] + reference


def transfer_poses(matrices: np.ndarray, reference: np.ndarray, window: int = POSE_WINDOW) -> np.ndarray:
    """Poses (F, 6), Euler degrees and cm, of a driving video's head matrices (F, 4, 4) for a portrait's (4, 4).

    AniPortrait's video-to-video chain: rotation is the driving head's own, translation is counted from the first frame
    on from the portrait's place; both are averaged over `window` frames.
    """
    rotation, translation = split_matrix(matrices)
    moved = translation - translation[0] + np.asarray(reference)[:3, 3]
    return smooth_poses(np.concatenate([rotation, moved], axis=1), window)


def reenact(
    driving: FaceTrack,
    portrait: FaceTrack,
    *,
    fps: float | int | Fraction | str,
    expression: float = 1.0,
    head: float = 1.0,
    translation: float = 1.0,
    pose: Pose = "relative",
    window: int = POSE_WINDOW,
    transfer: Transfer = "fitted",
    progress: Progress = no_progress,
) -> FaceMotion:
    """The motion that makes the face of `portrait` (its first frame counts) do what `driving` does.

    Args:
        driving: a face followed through a video; `fps` is that video's rate and becomes the motion's.
        expression: size of the expression, 0..3. It is counted from the driving face's calmest frames with lips closed
            and fitted to the portrait's proportions; lips and lids that shut in the video shut in the portrait.
        head: size of the head's rotation, 0..3; translation: of its movement, 0..3.
        pose: "relative" moves the portrait's head from where it is as the driving head moves from its median pose.
            "absolute" turns it as the driving head is turned, as AniPortrait does; amounts below 1 then hold it nearer
            to the mean pose.
        window: frames over which poses are averaged, 1 for none.
        transfer: "published" puts the driving face's movement since its calmest frame on the portrait's mesh as it is,
            in cm, as AniPortrait does; "fitted" is described above.

    Returns FaceMotion whose `neutral` is the portrait's own metric mesh with closed lips.
    Raises TalkingPortraitError for tracks without frames or amounts out of range.
    """
    rate = as_rate(fps)
    if pose not in get_args(Pose):
        raise TalkingPortraitError(f"The pose is {quoted(pose)}, but relative or absolute is expected.")
    if transfer not in get_args(Transfer):
        raise TalkingPortraitError(f"The transfer is {quoted(transfer)}, but fitted or published is expected.")
    if not (isinstance(window, int) and window >= 1):
        raise TalkingPortraitError(f"The window is {quoted(window)} frames, but a whole number from 1 is expected.")
    for name, amount in (("expression", expression), ("head", head), ("translation", translation)):
        if not (math.isfinite(amount) and 0 <= amount <= 3):
            raise TalkingPortraitError(f"The {name} amount is {amount}, but a number from 0 to 3 is expected.")
    for name, track in (("driving video", driving), ("portrait", portrait)):
        if track.frames == 0 or not np.isfinite(track.points).all():
            raise TalkingPortraitError(
                f"The landmarks of the {name} hold no face; use a picture or video in which Detect Landmarks finds one."
            )
    face, face_matrix = metric_mesh(portrait.points[0], portrait.image_size)
    neutral = close_lips(face)
    meshes, matrices = _metric_meshes(driving, progress)
    calm = _calmest(driving, meshes)
    rest = meshes[calm].mean(axis=0)

    if transfer == "published":
        vertices = face + expression * (transfer_vertices(meshes, int(calm[0]), face) - face)
    else:
        offsets = _fitted(_with_true_closures(meshes) - close_lips(rest), rest, neutral)
        lids = eyelid_shapes(neutral)
        offsets[:, np.abs(lids).max(axis=(0, 2)) > 0] = 0
        offsets += np.einsum("fe,evc->fvc", _closure(meshes), lids)
        vertices = neutral + expression * offsets

    if pose == "relative":
        scale = eye_distance(neutral) / eye_distance(rest)
        rotation, moved = _relative_poses(matrices, window, head, translation * scale)
    else:
        poses = transfer_poses(matrices, face_matrix, window)
        middle = poses.mean(axis=0)
        poses = middle + (poses - middle) * np.repeat([head, translation], 3)
        rotation, moved = poses[:, :3], poses[:, 3:]
    lip_press, pucker = lip_curves(vertices, neutral)
    return FaceMotion(
        vertices=vertices.astype(np.float32),
        neutral=neutral.astype(np.float32),
        rotation=rotation.astype(np.float32),
        translation=moved.astype(np.float32),
        fps=rate,
        blendshapes=None if driving.blendshapes is None else (expression * driving.blendshapes).clip(0, 1),
        pose="head" if pose == "relative" else "camera",
        lip_press=lip_press,
        pucker=pucker,
        gaze=None if driving.blendshapes is None else expression * _gaze(driving.blendshapes, calm),
    )


def _metric_meshes(track: FaceTrack, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
    meshes, matrices = np.empty((track.frames, VERTICES, 3)), np.empty((track.frames, 4, 4))
    for start in range(0, track.frames, _CHUNK):
        piece = slice(start, min(start + _CHUNK, track.frames))
        meshes[piece], matrices[piece] = metric_mesh(track.points[piece], track.image_size)
        progress(piece.stop, track.frames)
    return meshes, matrices


def _calmest(track: FaceTrack, meshes: np.ndarray) -> np.ndarray:
    """Indices of the frames in which the face is most at rest; frames without a face don't count."""
    if track.blendshapes is not None:
        unrest = track.blendshapes[:, 1:].astype(np.float64).sum(axis=1)
    else:
        eyes = eye_opening(meshes).mean(axis=1)
        unrest = mouth_opening(meshes) + np.abs(eyes - np.median(eyes))
    found = np.flatnonzero(track.found)
    if len(found) == 0:
        raise TalkingPortraitError(
            "No frame of the driving video shows a face; use a video in which Detect Landmarks finds one."
        )
    return found[np.argsort(unrest[found], kind="stable")][: max(1, round(len(found) * _REST_SHARE))]


def _with_true_closures(meshes: np.ndarray) -> np.ndarray:
    """The meshes with lips closed where a landmarker reports nearly closed ones: it never reports an opening of 0."""
    opening = mouth_opening(meshes)
    floor = min(float(np.percentile(opening, 2)), MAX_LIP_FLOOR)
    return close_lips(meshes, np.minimum(floor / np.maximum(opening, 1e-6), 1.0))


def _closure(meshes: np.ndarray) -> np.ndarray:
    """How far (F, 2) the right and left eye are shut, 0 as open as they usually are, a little below when wider."""
    opening = eye_opening(meshes)
    usual = np.percentile(opening, 75, axis=0)
    return np.clip((1 - opening / np.maximum(usual, 1e-6)) / (1 - SHUT_EYE), -0.2, 1.0)


def _gaze(blendshapes: np.ndarray, calm: np.ndarray) -> np.ndarray:
    """Degrees (F, 2) to the face's left and up that the eyes turn from where they look in the `calm` frames."""

    def score(*names: str) -> np.ndarray:
        return blendshapes[:, [BLENDSHAPES.index(f"eyeLook{name}") for name in names]].mean(axis=1)

    left = score("OutLeft", "InRight") - score("InLeft", "OutRight")
    up = score("UpLeft", "UpRight") - score("DownLeft", "DownRight")
    gaze = FULL_GAZE * np.stack([left, up], axis=1)
    return (gaze - gaze[calm].mean(axis=0)).astype(np.float32)


def _fitted(offsets: np.ndarray, rest: np.ndarray, neutral: np.ndarray) -> np.ndarray:
    """Offsets in the portrait's proportions: sizes in eye distances, the mouth's sideways movement in mouth widths."""
    corners = [LIPS_INNER[0], LIPS_INNER[10]]
    widths = [np.linalg.norm(mesh[corners[0]] - mesh[corners[1]]) / eye_distance(mesh) for mesh in (rest, neutral)]
    wider = float(np.clip(widths[1] / max(widths[0], 1e-6), 0.6, 1.4))
    height = face_mesh().vertices[:, 1]
    mouth = np.exp(-0.5 * ((height + 4.3) / 2.0) ** 2)
    offsets = offsets * (eye_distance(neutral) / eye_distance(rest))
    offsets[..., 0] *= 1 + (wider - 1) * mouth
    return offsets


def _relative_poses(
    matrices: np.ndarray, window: int, head: float, translation: float
) -> tuple[np.ndarray, np.ndarray]:
    """Angles and translation (F, 3) that act in the head's own frame, counted from the median pose."""
    poses = smooth_poses(np.concatenate(split_matrix(matrices), axis=1), window)
    middle = np.median(poses, axis=0)
    absolute = head_matrix(poses[:, :3], poses[:, 3:])
    rotation, moved = split_matrix(np.linalg.inv(head_matrix(middle[:3], middle[3:])) @ absolute)
    return rotation * head, moved * translation
