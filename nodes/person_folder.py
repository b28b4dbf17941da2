"""Where prepared persons lie: in a folder of their own inside the output folder."""

from __future__ import annotations

from pathlib import Path

from ..pipelines.errors import TalkingPortraitError, quoted
from ..pipelines.workflow.result_names import plain_name
from . import host

PERSONS = "persons"


def person_folder(name: str) -> Path:
    """The folder of the person of that name. Raises TalkingPortraitError for what is no plain name."""
    if not name or plain_name(name) != name:
        raise TalkingPortraitError(
            f"The person's name is {quoted(name)}, but a plain one that a folder can have is expected, such as anna."
        )
    return host.output_folder() / PERSONS / name
