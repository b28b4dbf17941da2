"""What a run is set to, written down in its folder, so that it goes on as it began."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from ...errors import TalkingPortraitError, quoted
from ...files.output_paths import replacing, writing

FILE = "run.json"
VIDEO = "video"
"""Where the file names the video of the person that the run was begun on."""
LATER = "later"
"""In the metadata of a field that older runs don't name; they have its default."""
LEFT_TO_THE_PROGRAM = ("auto", "", 0)
"""Defaults that stand for what the program chooses."""
Settings = TypeVar("Settings")


def check_option(name: str, value: int | None, least: int, most: int) -> None:
    """Raises TalkingPortraitError where the option --`name` was given a number out of its range."""
    if value is not None and not least <= value <= most:
        raise TalkingPortraitError(f"--{name} {quoted(value)} was given, but {least} to {most} is expected.")


def write_settings(folder: Path, settings: Any, video: str) -> None:
    """Writes a dataclass of numbers and strings, and the fingerprint of the person's video.

    Raises TalkingPortraitError when the disk refuses it.
    """
    path = folder / FILE
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_text(json.dumps(asdict(settings) | {VIDEO: video}, indent=1) + "\n", encoding="utf-8")


def read_settings(folder: Path, kind: type[Settings]) -> Settings | None:
    """Those of the run in this folder, None where there is none.

    Raises TalkingPortraitError for a file of another program, or of another system's training.
    """
    values = _read(folder)
    return None if values is None else _settings_of(values, folder, kind)


def _settings_of(written: Mapping[str, Any], folder: Path, kind: type[Settings]) -> Settings:
    known = {entry.name: type(entry.default) for entry in fields(kind)}  # type: ignore[arg-type]
    later = {entry.name: entry.default for entry in fields(kind) if entry.metadata.get(LATER)}  # type: ignore[arg-type]
    values = later | {name: value for name, value in written.items() if name != VIDEO}
    if not _typed(values, known):
        raise TalkingPortraitError(
            f"{folder / FILE} was not written by this training; give another folder for the run."
        )
    return kind(**values)


def _read(folder: Path) -> dict[str, Any] | None:
    """What is written in a run's folder, None where there is nothing, {} for what no run wrote."""
    try:
        values = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def begun_settings(folder: Path, kind: type[Settings], model: str, video: str, *, resume: bool) -> Settings | None:
    """Those of the run in this folder that is to go on, None where it is to begin there.

    Raises TalkingPortraitError for a run that is not to go on, or of a person with another `video` (its fingerprint), a
    file in place of the folder, and a `model` file there that no run wrote; and as `read_settings`.
    """
    if folder.is_file():
        raise TalkingPortraitError(f"{folder} is a file, but a folder for the run is expected; give another name.")
    written = _read(folder)
    before = None if written is None else _settings_of(written, folder, kind)
    if before is not None and not resume:
        raise TalkingPortraitError(
            f"{folder} holds a training run already ({FILE}); go on with it by --resume (in Python resume=True), or "
            "give another folder."
        )
    if written is not None and written.get(VIDEO, video) != video:  # older runs don't name it
        raise TalkingPortraitError(
            f"The run in {folder} was begun on another person's video, whose face it has learnt; give this person "
            "another run."
        )
    if before is None and (folder / model).exists():
        raise TalkingPortraitError(
            f"{folder / model} would be written over, but no run in this folder wrote it; give another folder for the "
            "run."
        )
    return before


def say_what_stays(begun: Any, given: Any, changing: Collection[str], say: Callable[[str], None]) -> None:
    """Says in a line which of the `given` settings a run that goes on leaves as it `begun`.

    None of those of `changing` names, and none that is left to the program.
    """
    stay = [
        f"{name} {getattr(begun, name)}"
        for name, default in asdict(type(given)()).items()
        if name not in changing
        and (wanted := getattr(given, name)) != getattr(begun, name)
        and not (wanted == default and default in LEFT_TO_THE_PROGRAM and default is not False)
    ]
    if stay:
        say(f"This run goes on with {', '.join(stay)}, as it was begun; for other settings begin another run.")


def _typed(values: Mapping[str, Any], known: Mapping[str, type]) -> bool:
    return values.keys() == known.keys() and all(
        isinstance(values[name], kind) or (kind is float and isinstance(values[name], int))
        for name, kind in known.items()
    )
