"""The person's closed mouth in long silence."""

from __future__ import annotations

from fractions import Fraction

import torch

from ...models.face.landmarks_68 import LANDMARKS_68
from ..audio.silence import silence_weight
from ..person.closed_mouth import LIPS_AND_EYES, least_open
from ..types import Audio
from .fitted_face import FittedFace


def closed_in_silence(expression: torch.Tensor, audio: Audio, face: FittedFace, fps: Fraction) -> torch.Tensor:
    """Coefficients (F, K) of the frames of `audio`, with the person's closed mouth in long silence."""
    weight = torch.from_numpy(silence_weight(audio, len(expression), fps)).to(expression)[:, None]
    return expression + weight * (closed_mouth(face).to(expression) - expression)


def closed_mouth(face: FittedFace) -> torch.Tensor:
    """The mean expression (K,) of the frames in which the person's lips are least apart."""
    model = face.face_model
    places = list(LIPS_AND_EYES)
    if len(model.landmark_index) > len(LANDMARKS_68):  # MediaPipe's, of a person's own mesh
        places = [LANDMARKS_68[place] for place in places]
    corners = model.landmark_index[places]
    mean = model.geo_mean.view(-1, 3)[corners]
    bases = model.exp_base.view(-1, 3, model.exp_base.shape[-1])[corners]
    points = torch.stack([mean[i] + face.expression @ bases[i].T for i in range(len(places))], dim=1)
    return face.expression[least_open(points)].mean(0)
