"""What a face motion says about a person: poses of the head, and brows and blinks, within what was trained."""

from __future__ import annotations

import numpy as np
import torch

from ...models.syncanimation.labels import BROWS, UPPER_FACE, euler_to_matrix
from ..errors import TalkingPortraitError
from ..face.expression_scores import scores_from_shape
from ..face.head_pose import head_matrix
from ..motion.edit import fit_length, resample
from ..types import FaceMotion
from .avatar import METRES
from .person_model import PersonModel

MAX_HOLD_SECONDS = 0.5
"""Seconds for which the last pose of a face motion may be held when the speech goes on."""


def fitted(motion: FaceMotion, frames: int, model: PersonModel) -> FaceMotion:
    """The motion at the person's frame rate, for so many frames.

    Raises TalkingPortraitError for a motion that ends more than half a second before the speech.
    """
    fps = model.video.fps
    motion = resample(motion, fps)
    if motion.frames < frames - MAX_HOLD_SECONDS * fps:
        raise TalkingPortraitError(
            f"The face motion lasts {float(motion.frames / fps):.2f} s, but the speech {float(frames / fps):.2f} s; "
            "make the motion from the same speech, or lengthen it with Edit Motion."
        )
    return fit_length(motion, frames)


def motion_poses(motion: FaceMotion, model: PersonModel) -> torch.Tensor:
    """Camera-to-world matrices (F, 4, 4): the head moves from the person's average pose as in the motion from its rest.

    The rest of a motion that moves the portrait's head is the portrait's pose, that of an absolute one its first frame.
    """
    moves = head_matrix(motion.rotation, motion.translation)
    if motion.pose == "camera":
        moves = np.linalg.inv(moves[:1]) @ moves
    moves[:, :3, 3] *= METRES
    average = np.eye(4)
    average[:3, :3] = euler_to_matrix(model.statistics.average_euler.double()).numpy()
    average[:3, 3] = model.statistics.average_translation.double().numpy()
    return torch.from_numpy(np.linalg.inv(moves) @ average).float()


def motion_expressions(motion: FaceMotion, model: PersonModel) -> torch.Tensor:
    """Blendshapes (F, 7): brows move from the person's average, lids from as open as they mostly are to closed."""
    scores = motion.blendshapes if motion.blendshapes is not None else scores_from_shape(motion.vertices)
    columns = [1 + column for column in UPPER_FACE]  # the motion's scores begin with `_neutral`
    change = torch.from_numpy(np.asarray(scores, np.float32)[:, columns])
    change = change - change.median(dim=0).values
    change[:, BROWS:] = change[:, BROWS:].clamp(min=0) * (model.blink_maximum - model.rest_expression[BROWS:])
    return model.rest_expression + change
