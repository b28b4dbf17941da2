"""The files that a task needs: all found at once, or all that are missing named at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from ..errors import TalkingPortraitError
from ..files.output_paths import shortened
from .model_file import ModelFile
from .store import Command, Folders, default_folders, find, list_files, models_command, searched_folders


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
        path = (
            _named(option, given[option], searched_folders(model.folder, folders))
            if option in given
            else find(model, folders)
        )
        if path is not None:
            paths[option] = path
        elif not spare(option, paths):
            missing.append(model)
    if missing:
        raise missing_files({folders(model.folder)[0] / model.file: model for model in missing}, command, system)
    return paths


def missing_files(
    files: Mapping[Path, ModelFile], command: Command = models_command, system: str | None = None
) -> TalkingPortraitError:
    """One sentence for all of `files`: where each was expected, and the published file that suits there.

    It names pages and the commands that fetch them; several are fetched with all of their `system`, if it is given.
    """
    models = list({model.name: model for model in files.values()}.values())
    what, are, them = ("file", "is", "it") if len(files) == 1 else ("files", "are", "them")
    *others, last = dict.fromkeys(model.page for model in models)
    pages = f"{', '.join(others)} and {last}" if others else last
    if all(path.as_posix().endswith(f"/{model.file}") for path, model in files.items()):
        way = f"download {them} from {pages}, or run: "
    else:
        way = f"put {them} there, or take {', '.join(model.file for model in models)} from {pages} with: "
    names = [model.name for model in models]
    whole = system or next((one for one in models[0].systems if all(one in model.systems for model in models)), None)
    if whole and (len(models) > 2 or (system and len(models) > 1)):  # rather the system than many commands
        names = [whole]
    return TalkingPortraitError(
        f"The model {what} {', '.join(shortened(path) for path in files)} {are} missing; {way}"
        + ", then: ".join(command(f"get {name}") for name in names)
    )


def _named(option: str, name: str | Path, folders: list[Path]) -> Path:
    """The file that a user named for an option."""
    for path in (Path(name), *(folder / name for folder in folders)):
        if os.path.exists(path):  # False, and not an error, for what no file can be called
            return path
    raise TalkingPortraitError(
        f"The file {name} for --{option.replace('_', '-')} is neither there nor in {folders[0]}; name one that is, or "
        "leave the option out."
    )
