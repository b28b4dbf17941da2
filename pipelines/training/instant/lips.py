"""Measured lips of speakers as training data: curves of the mouth beside the sound that was spoken with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ....models.face.face_mesh import BLENDSHAPES, CHIN, NOSE_TIP, OUTER_MOUTH_CORNERS, eye_distance, mouth_opening
from ....models.face.mouth_shapes import lip_opening
from ....models.speech.mouth_network import FRAME_RATE
from ...audio.mouth_states import SpeechSound

CURVES = ("opening", "width", "jaw", "pucker")
RANGE = np.array([0.19, 0.32, 0.11, 0.8])
"""From closed to wide open in a usual speaker: opening and jaw in eye distances, width over its mean, a score."""
SAME_RANGE = 0.7
"""How much of the logarithm of a speaker's own range is taken out, so that all open alike."""
WIDER_WHEN_OPEN = 0.2
"""What is added to the width for an opening: speakers who smile or purse their lips for long hide this relation."""
WIDTH_OF = (0.5525, 0.0859, -0.1177)
"""The mesh's mouth in eye distances at rest, and what full `width` and full `round` add to it."""
CHIN_OF_JAW = 0.369
"""Eye distances that the chin falls for jaw = 1."""


@dataclass(frozen=True)
class SpokenLips:
    """One clip: its `sound` at 100 Hz, `curves` (frames at 50 Hz, 4) in the order of CURVES.

    `known` (frames at 50 Hz,) is 0 where no face was found; `speaker` is any name. Pucker is NaN where it is unknown.
    """

    sound: SpeechSound
    curves: np.ndarray
    known: np.ndarray
    speaker: str


def mouth_measures(controls: torch.Tensor) -> torch.Tensor:
    """What CURVES measure, (..., 4), on the mesh that controls (..., 6) shape."""
    jaw, width, rounded = controls[..., 0], controls[..., 1], controls[..., 2]
    rest, wider, narrower = WIDTH_OF
    across = (wider * width + narrower * rounded) / rest
    return torch.stack([lip_opening(controls), across, CHIN_OF_JAW * jaw, rounded], dim=-1)


def measured_curves(points: np.ndarray, blendshapes: np.ndarray | None) -> np.ndarray:
    """CURVES (F, 4) of landmarks (F, P, 3), lengths in eye distances; pucker is NaN without scores (F, 52)."""
    eyes = eye_distance(points)

    def distance(a: int, b: int) -> np.ndarray:
        return np.linalg.norm(points[:, a] - points[:, b], axis=-1) / eyes

    pucker = np.full(len(points), np.nan) if blendshapes is None else blendshapes[:, BLENDSHAPES.index("mouthPucker")]
    return np.stack([mouth_opening(points), distance(*OUTER_MOUTH_CORNERS), distance(CHIN, NOSE_TIP), pucker], axis=1)


def usual_curves(curves: np.ndarray, known: np.ndarray, *, own: bool) -> np.ndarray:
    """Curves (T, 4) counted from closed lips on, the width about its mean; judged by the `known` (T,) frames.

    Without `own` they are brought near the range of a usual speaker.
    """
    low, high = np.quantile(curves[known], [0.02, 0.95], axis=0)
    usual, span = curves - low, np.maximum(high - low, 1e-4)
    middle = curves[known, 1].mean()
    usual[:, 1] = curves[:, 1] / middle - 1
    span[1] /= middle
    usual[:, 3] = curves[:, 3] / RANGE[3] if own else usual[:, 3]
    if own:
        return usual.astype(np.float32)
    scaled = usual * (RANGE / span) ** SAME_RANGE
    scaled[:, 1] += WIDER_WHEN_OPEN * (scaled[:, 0] - scaled[known, 0].mean())
    return scaled.astype(np.float32)


def at_control_rate(rows: np.ndarray, fps: float, frames: int, offset: float) -> np.ndarray:
    """Rows (F, N) of a video at the control frames (frames, N), the picture being `offset` seconds late."""
    places = (np.arange(frames) / FRAME_RATE + offset) * fps
    return np.stack([np.interp(places, np.arange(len(rows)), column) for column in rows.T], axis=1)
