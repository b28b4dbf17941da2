"""The systems that are trained for one person, and the preparation of a person for one of them or for both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from .errors import TalkingPortraitError, quoted
from .types import Progress, no_progress

if TYPE_CHECKING:
    from ..models.audiodvp.expression_regressor import ExpressionRegressor
    from ..models.audiodvp.face_model import FaceModel
    from .face.face import Landmarker
    from .person.person import Person
    from .person.prepare import Settings
    from .person.speech import Encoder

PersonSystems = Literal["audiodvp", "syncanimation", "both"]
PERSON_SYSTEMS: tuple[PersonSystems, ...] = get_args(PersonSystems)
AVATAR = 0.6
"""Part of the progress that SyncAnimation's own preparation is given: about its part of the time, an estimate."""


def check_is_used(systems: str, given: Mapping[str, object]) -> None:
    """Raises TalkingPortraitError for what is given, not None, and used for none of the systems alone.

    `given` has the avatar's size and parser and the regressor, in this order, by the names that the caller gives them.
    """
    for (name, value), user in zip(given.items(), ("syncanimation", "syncanimation", "audiodvp"), strict=True):
        if value is not None and systems in PERSON_SYSTEMS and systems not in (user, "both"):
            raise TalkingPortraitError(
                f"{name} was given, but the person is prepared for {systems} alone, which has no use for it; prepare "
                f"for {user} or both, or leave it out."
            )


def prepare_person_for(
    systems: PersonSystems,
    video: str | Path,
    folder: str | Path,
    *,
    settings: Settings | None = None,
    avatar_size: int | None = None,
    parser: str | Path | None = None,
    landmarker: Landmarker | None = None,
    encoder: Encoder | None = None,
    face_model: FaceModel | None = None,
    regressor: ExpressionRegressor | None = None,
    say: Callable[[str], None] = lambda line: None,
    progress: Progress = no_progress,
) -> Person:
    """Prepares a video of a person for these systems; goes on with what is begun, and adds to what is finished.

    `avatar_size` is the side of SyncAnimation's pictures, `parser` the file of a network that tells head, neck and
    torso from the background, see `open_parser`; `face_model` is what AudioDVP fits, by a `regressor` as published, see
    `fit_face`, and what SyncAnimation's tracker has the head's shape from. The other arguments are those of
    `prepare_person`, and so are errors.
    """
    from .audiodvp.morphable.head_shape import MorphableHead
    from .audiodvp.prepare import prepare_fitted_person
    from .person.prepare import prepare_person
    from .progress import share
    from .syncanimation import prepare as syncanimation
    from .syncanimation.preparation.parsers import open_parser

    if systems not in PERSON_SYSTEMS:
        raise TalkingPortraitError(
            f"The person is to be prepared for {quoted(systems)}, but one of {', '.join(PERSON_SYSTEMS)} is expected."
        )
    for_avatar = systems != "audiodvp"
    chosen = syncanimation.Settings(avatar_size)
    given = open_parser(parser) if parser and for_avatar else None
    shape = MorphableHead(face_model) if face_model is not None and for_avatar else None
    common: dict[str, Any] = {
        "settings": settings,
        "landmarker": landmarker,
        "encoder": encoder,
        "say": say,
        "progress": share(progress, 0, 1 - AVATAR) if for_avatar else progress,
    }
    if systems == "syncanimation":
        person = prepare_person(video, folder, **common)
    else:
        person = prepare_fitted_person(video, folder, face_model=face_model, regressor=regressor, **common)
    if for_avatar:
        syncanimation.prepare_avatar(
            person, chosen, parser=given, shape=shape, say=say, progress=share(progress, 1 - AVATAR, 1)
        )
    return person
