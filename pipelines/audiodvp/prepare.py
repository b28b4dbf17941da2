"""From a video to all that AudioDVP is trained on: the prepared person and the face model fitted to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...models.audiodvp.expression_regressor import ExpressionRegressor
from ...models.audiodvp.face_model import FaceModel
from ..face.face import Landmarker
from ..person.person import Person
from ..person.prepare import Settings, prepare_person
from ..person.speech import Encoder
from ..progress import share
from ..types import Progress, no_progress
from .fit import fit_face

PREPARED = 0.85
"""Part of the time that the preparation takes, the rest being the fit's; measured on videos of 512 pixels."""


def prepare_fitted_person(
    video: str | Path,
    folder: str | Path,
    *,
    settings: Settings | None = None,
    landmarker: Landmarker | None = None,
    encoder: Encoder | None = None,
    face_model: FaceModel | None = None,
    regressor: ExpressionRegressor | None = None,
    say: Callable[[str], None] = lambda line: None,
    progress: Progress = no_progress,
) -> Person:
    """Prepares a video, see `prepare_person`, and fits the face model, see `fit_face`; goes on with what is begun."""
    person = prepare_person(
        video,
        folder,
        settings=settings,
        landmarker=landmarker,
        encoder=encoder,
        say=say,
        progress=share(progress, 0, PREPARED),
    )
    fit_face(person, face_model, regressor, progress=share(progress, PREPARED, 1))
    return person
