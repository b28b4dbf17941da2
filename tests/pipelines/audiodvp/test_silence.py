"""What a person's closed mouth is, and that it is the mouth in long silence."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import torch
from talking_portrait.pipelines.audiodvp.silence import closed_in_silence, closed_mouth

from ...toy_person import fitted_face
from ..audio.test_silence import spoken


def test_the_closed_mouth_is_that_of_the_persons_least_open_frames() -> None:
    audio = spoken()
    face = fitted_face(audio, Fraction(25), 100)
    model = face.face_model
    bases = torch.zeros(len(model.geo_mean) // 3, 3, 2)
    lower = model.landmark_index[66]
    bases[lower, 1, 0] = -1.0
    mean = model.geo_mean.view(-1, 3).clone()
    mean[lower] = mean[model.landmark_index[62]]
    model = replace(model, exp_base=bases.flatten(0, 1), geo_mean=mean.flatten())
    opening = torch.linspace(0.1, 2, 100)
    face = replace(face, face_model=model, expression=torch.stack([opening.flip(0), torch.ones(100)], 1))
    torch.testing.assert_close(closed_mouth(face), torch.tensor([opening[:5].mean(), 1.0]))

    driven = torch.full((175, 2), 1.5)
    eased = closed_in_silence(driven, audio, face, Fraction(25))
    torch.testing.assert_close(eased[30:90], driven[30:90])
    torch.testing.assert_close(eased[120], closed_mouth(face), atol=0.02, rtol=0)
