"""The files that a task needs: all found at once, or all that are missing named at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ..errors import TalkingPortraitError
from .store import Command, Folders, default_folders, find, list_files, models_command
from .table import ModelFile


def required_files(
    system: str,
    names: Mapping[str, str],
    given: Mapping[str, str | Path] | None = None,
    *,
    spare: Callable[[str, Mapping[str, Path]], bool] = lambda option, found: False,
    folders: Folders = default_folders,
    command: Command = models_command,
) -> dict[str, Path]:
    """Where the files of `names` (option to name in the table of models) lie, by option.

    `given` are other files for some options: paths, or names below the option's model folder, as nodes list them.
    One that is missing is left out where `spare` says, by its option and the files found so far, that it is not needed.

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
        elif not spare(option, paths):
            missing.append(model)
    if missing:
        places = ", ".join(str(folders(model.folder)[0] / model.file) for model in missing)
        pages = ", ".join(dict.fromkeys(model.page for model in missing))
        one = len(missing) == 1
        raise TalkingPortraitError(
            f"The model {'file' if one else 'files'} {places} {'is' if one else 'are'} missing; download "
            f"{'it' if one else 'them'} from {pages}, or run: {command(f'get {missing[0].name if one else system}')}"
        )
    return paths


def _named(option: str, name: str | Path, folders: list[Path]) -> Path:
    """The file that a user named for an option."""
    for path in (Path(name), *(folder / name for folder in folders)):
        if path.exists():
            return path
    raise TalkingPortraitError(
        f"The file {name} for --{option.replace('_', '-')} is neither there nor in {folders[0]}; name one that is, or "
        "leave the option out."
    )
