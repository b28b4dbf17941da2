"""Where prepared persons lie, in folders of their own inside the output folder, their trainings and their drivers."""

from __future__ import annotations

from pathlib import Path

from ..pipelines.errors import TalkingPortraitError, quoted
from ..pipelines.person.person import Person
from ..pipelines.workflow.result_names import plain_name
from . import host

PERSONS, RUNS, DRIVERS = "persons", "runs", "drivers"


def person_folder(name: str) -> Path:
    """The folder of the person of that name. Raises TalkingPortraitError for what is no plain name."""
    return host.output_folder() / PERSONS / _plain(name, "person", "anna")


def run_folder(person: Person, name: str) -> Path:
    """The folder of a training of that name, in the person's. Raises as `person_folder`."""
    return person.folder / RUNS / _plain(name, "run", "audiodvp")


def driver_file(name: str) -> Path:
    """The file of a person's driver of that name. Raises as `person_folder`."""
    return host.output_folder() / DRIVERS / f"{_plain(name, 'driver', 'anna')}.safetensors"


def _plain(name: str, what: str, example: str) -> str:
    if not name or plain_name(name) != name:
        raise TalkingPortraitError(
            f"The {what}'s name is {quoted(name)}, but a plain one that a folder can have is expected, such as "
            f"{example}."
        )
    return name
