"""A face motion as AniPortrait's networks take it: one drawn face a frame, drawn on request."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ...models.face.face_mesh import VERTICES
from ...models.face.mouth_shapes import close_lips
from ..errors import TalkingPortraitError
from ..face.head_pose import head_matrix, project
from ..face.metric_mesh import metric_mesh
from ..types import FaceMotion, FaceTrack, Progress, no_progress
from .pose_image import draw_pose_image

LONGEST_SIDE = 16384
"""Of drawings, in pixels."""
SAME_FACE = 1e-3
"""Two rest shapes whose points are no further apart, in cm, are of one face."""


def drawn_frames(
    motion: FaceMotion, size: tuple[int, int], portrait: FaceTrack | None, *, progress: Progress = no_progress
) -> Iterator[torch.Tensor]:
    """All of `PoseDrawings` in order, as batches (1, H, W, 3). What it raises for is raised at once."""
    drawings = PoseDrawings(motion, size, portrait)

    def frames() -> Iterator[torch.Tensor]:
        for number in range(len(drawings)):
            frame = drawings[number]
            yield frame[None]
            progress(number + 1, len(drawings), frame)

    return frames()


class PoseDrawings:
    """Pictures (H, W, 3) in 0..1 by frame number; `size` is (height, width).

    With a portrait, the motion is put on its face, and points are projected into its picture and stretched with it to
    `size`, as the sampler stretches the portrait itself; else into a picture of `size`.
    """

    def __init__(self, motion: FaceMotion, size: tuple[int, int], portrait: FaceTrack | None = None) -> None:
        """`portrait`'s first frame counts.

        Raises TalkingPortraitError for a motion that moves the portrait's own head, without a portrait; for none at
        all, and for sizes without a pixel.
        """
        if motion.frames == 0:
            raise TalkingPortraitError("The motion has no frames, so there is nothing to draw; make a longer one.")
        if min(size) < 1 or max(size) > LONGEST_SIDE:
            raise TalkingPortraitError(
                f"The drawings' size is {size[1]} x {size[0]}, but sides of 1 to {LONGEST_SIDE} are expected."
            )
        if motion.pose == "head" and portrait is None:
            raise TalkingPortraitError(
                "The motion moves the portrait's head from where it is, so the portrait's landmarks are expected too; "
                "connect Detect Landmarks of the portrait."
            )
        self._motion, self._size = motion, size
        self._picture_size = portrait.image_size if portrait else size
        self._head = np.eye(4)
        self._fit = np.zeros((VERTICES, 3))
        if portrait:
            face, matrix = metric_mesh(portrait.points[0], portrait.image_size)
            self._head = matrix if motion.pose == "head" else self._head
            # A motion that was made for this very face stays to the last digit as it is.
            fit = close_lips(face) - motion.neutral
            self._fit = fit if np.abs(fit).max() > SAME_FACE else self._fit

    def __len__(self) -> int:
        return self._motion.frames

    def __getitem__(self, frame: int, /) -> torch.Tensor:
        motion = self._motion
        matrix = self._head @ head_matrix(motion.rotation[frame], motion.translation[frame])
        points = project(motion.vertices[frame] + self._fit, matrix, self._picture_size, motion.camera)
        scale = np.array([self._size[1] / self._picture_size[1], self._size[0] / self._picture_size[0]])
        return torch.from_numpy(draw_pose_image(points * scale, self._size)) / 255
