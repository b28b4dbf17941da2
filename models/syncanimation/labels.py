"""What the syncers are trained on: head poses as Euler angles, translations and blendshapes, normalised, and smoothed.

Poses (N, 4, 4) here are camera-to-world matrices of the head tracker, before the renderer's change of axes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F

UPPER_FACE = (0, 1, 2, 3, 4, 8, 9)
"""Columns, of the 52 blendshapes that follow MediaPipe's `_neutral`, that the emotion syncer predicts.

browDownLeft, browDownRight, browInnerUp, browOuterUpLeft, browOuterUpRight, eyeBlinkLeft and eyeBlinkRight.
"""
BROWS = 5
"""How many of the predicted values are the brows'; blinks follow."""
POSE = 6
"""Values of a pose: Euler angles, then translation."""
BROW_WINDOW = 11
BLINK_DEVIATIONS, BLINK_MARGIN = 2.5, 0.05
_DEGENERATE = 1e-6


def matrix_to_euler(rotation: torch.Tensor) -> torch.Tensor:
    """Rotations (..., 3, 3) = Rz Ry Rx to angles (..., 3) about x, y and z in radians."""
    size = (rotation[..., 0, 0].square() + rotation[..., 1, 0].square()).sqrt()
    regular = size >= _DEGENERATE
    y = torch.atan2(-rotation[..., 2, 0], size)
    x = torch.where(
        regular,
        torch.atan2(rotation[..., 2, 1], rotation[..., 2, 2]),
        torch.atan2(-rotation[..., 1, 2], rotation[..., 1, 1]),
    )
    z = torch.where(regular, torch.atan2(rotation[..., 1, 0], rotation[..., 0, 0]), 0)
    return torch.stack([x, y, z], -1)


def euler_to_matrix(angles: torch.Tensor) -> torch.Tensor:
    """Angles (..., 3) about x, y and z in radians to rotations (..., 3, 3) = Rz Ry Rx."""
    (cx, cy, cz), (sx, sy, sz) = angles.cos().unbind(-1), angles.sin().unbind(-1)
    rows = (
        (cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx),
        (sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx),
        (-sy, cy * sx, cy * cx),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def mean_rotation(rotations: torch.Tensor) -> torch.Tensor:
    """The rotation (..., 3, 3) nearest to all of (..., N, 3, 3): least sum of squared differences ("chordal")."""
    left, _, right = torch.linalg.svd(rotations.double().mean(-3))
    turn = torch.linalg.det(left @ right)
    signs = torch.stack([torch.ones_like(turn), torch.ones_like(turn), turn], -1)
    return (left * signs[..., None, :] @ right).to(rotations.dtype)


@dataclass(frozen=True)
class Statistics:
    """Averages of a person's labels, and mean and deviation of the labels' distances from them.

    `mean` and `std` are (13,): Euler angles, translation, blendshapes.
    """

    mean: torch.Tensor
    std: torch.Tensor
    average_euler: torch.Tensor
    average_translation: torch.Tensor
    average_expression: torch.Tensor

    def to(self, device: torch.device | str) -> Statistics:
        return Statistics(*(getattr(self, field.name).to(device) for field in fields(self)))

    @property
    def average(self) -> torch.Tensor:
        """(13,)"""
        return torch.cat([self.average_euler, self.average_translation, self.average_expression])

    def offsets(self, poses: torch.Tensor, expressions: torch.Tensor) -> torch.Tensor:
        """Distances (N, 13) from the averages."""
        return raw_labels(poses, expressions) - self.average

    def normalise(self, poses: torch.Tensor, expressions: torch.Tensor) -> torch.Tensor:
        """Poses (N, 4, 4) and blendshapes (N, 7) to labels (N, 13) of mean 0 and deviation 1 over the training."""
        return self.normalise_raw(raw_labels(poses, expressions))

    def normalise_raw(self, labels: torch.Tensor) -> torch.Tensor:
        """The same from `raw_labels` (N, 13)."""
        return (labels - self.average - self.mean) / (self.std + 1e-8)

    def poses(self, labels: torch.Tensor) -> torch.Tensor:
        """Normalised labels (N, 6) to poses (N, 4, 4)."""
        values = labels * self.std[:POSE] + self.mean[:POSE] + self.average[:POSE]
        upper = torch.cat([euler_to_matrix(values[:, :3]), values[:, 3:, None]], -1)
        last = upper.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(upper), 1, 4)
        return torch.cat([upper, last], 1)

    def expressions(self, labels: torch.Tensor) -> torch.Tensor:
        """Normalised labels (N, 7) to blendshapes."""
        return labels * self.std[POSE:] + self.mean[POSE:] + self.average_expression


def raw_labels(poses: torch.Tensor, expressions: torch.Tensor) -> torch.Tensor:
    """(N, 13): Euler angles, translations and blendshapes as they are."""
    return torch.cat([matrix_to_euler(poses[:, :3, :3]), poses[:, :3, 3], expressions], 1)


def measure(poses: torch.Tensor, expressions: torch.Tensor) -> Statistics:
    """The statistics of a person's training frames: poses (N, 4, 4) and blendshapes (N, 7), of two frames or more."""
    nothing = expressions.new_zeros(POSE + expressions.shape[1])
    averages = Statistics(
        nothing,
        nothing,
        matrix_to_euler(mean_rotation(poses[:, :3, :3])),
        poses[:, :3, 3].mean(0),
        expressions.mean(0),
    )
    offsets = averages.offsets(poses, expressions)
    return Statistics(
        offsets.mean(0),
        offsets.std(0),
        averages.average_euler,
        averages.average_translation,
        averages.average_expression,
    )


def previous_labels(labels: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
    """Labels (N, D) of the frame before; the first and the last row stay (published). `noise` (N, D) is added."""
    previous = torch.cat([labels[:1], labels[:-2], labels[-1:]])[: len(labels)] if len(labels) > 1 else labels
    return previous if noise is None else previous + noise


def smooth_poses(poses: torch.Tensor, window: int | None = None, *, causal: bool = True) -> torch.Tensor:
    """Mean rotations and translations over a window of poses (N, 4, 4), cut at both ends.

    The published program's driving takes the 17 frames up to each one, and its evaluation the 11 around each one.
    """
    window = window or (17 if causal else 11)
    before = window - 1 if causal else window // 2
    frames = torch.arange(len(poses), device=poses.device)
    near = frames[:, None] + torch.arange(-before, window - before, device=poses.device)
    inside = ((near >= 0) & (near < len(poses))).to(poses.dtype)
    values = poses[near.clamp(0, len(poses) - 1)] * inside[..., None, None]
    smooth = values.sum(1) / inside.sum(1)[:, None, None]
    rotation = mean_rotation(smooth[:, None, :3, :3])
    upper = torch.cat([rotation, smooth[:, :3, 3:]], -1)
    return torch.cat([upper, poses[:, 3:]], 1)


def smooth_expressions(expressions: torch.Tensor, blink_maximum: torch.Tensor | None = None) -> torch.Tensor:
    """Predicted blendshapes (N, 7): brows averaged over 11 frames, and strong blinks closed.

    A blink above the mean by 2.5 deviations becomes `blink_maximum` (2,), of a reference, plus 0.05; without a
    reference it stays.
    """
    brows, blinks = expressions[:, :BROWS], expressions[:, BROWS:]
    reach = BROW_WINDOW // 2
    rows = F.pad(brows.T[None], (reach, reach), mode="replicate")
    smooth = F.avg_pool1d(rows, BROW_WINDOW, 1)[0].T
    if blink_maximum is not None and len(blinks) > 1:
        closed = blinks > blinks.mean(0) + BLINK_DEVIATIONS * blinks.std(0)
        blinks = torch.where(closed, blink_maximum + BLINK_MARGIN, blinks)
    return torch.cat([smooth, blinks], 1)
