"""The files that a task needs: all found at once, or all that are missing named at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from ..errors import TalkingPortraitError
from .store import Command, Folders, default_folders, find, list_files, models_command
from .table import ModelFile


def required_files(
    system: str,
    names: Mapping[str, str],
    given: Mapping[str, str | Path] | None = None,
    *,
    spare: Collection[str] = (),
    folders: Folders = default_folders,
    command: Command = models_command,
) -> dict[str, Path]:
    """Where the files of `names` (option to name in the table of models) lie, by option.

    `given` are other files for some options: paths, or names below the option's model folder, as nodes list them.
    Those of `spare` are left out where they are missing.

    Raises TalkingPortraitError, once for all that are missing, with the command that fetches them.
    """
    given = given or {}
    paths: dict[str, Path] = {}
    missing: list[ModelFile] = []
    for option, name in names.items():
        (model,) = list_files(name)
        path = _named(option, given[option], folders(model.folder)) if option in given else find(model, folders)
        if path is not None:
            paths[option] = path
        elif option not in spare:
            missing.append(model)
    if missing:
        raise missing_files(system, missing, folders=folders, command=command)
    return paths


def missing_files(
    system: str, models: list[ModelFile], *, folders: Folders = default_folders, command: Command = models_command
) -> TalkingPortraitError:
    """The sentence about files that are not where they belong."""
    places = ", ".join(str(folders(model.folder)[0] / model.file) for model in models)
    pages = ", ".join(dict.fromkeys(model.page for model in models))
    one = len(models) == 1
    return TalkingPortraitError(
        f"The model {'file' if one else 'files'} {places} {'is' if one else 'are'} missing; download "
        f"{'it' if one else 'them'} from {pages}, or run: {command(f'get {models[0].name if one else system}')}"
    )


def _named(option: str, name: str | Path, folders: list[Path]) -> Path:
    """The file that a user named for an option."""
    for path in (Path(name), *(folder / name for folder in folders)):
        if path.exists():
            return path
    raise TalkingPortraitError(
        f"The file {name} for --{option.replace('_', '-')} is neither there nor in {folders[0]}; name one that is, or "
        "leave the option out."
    )
