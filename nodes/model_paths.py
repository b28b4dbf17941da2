"""Model files of nodes: their lists, their paths in the host's folders, and one sentence on how to get missing ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..pipelines.errors import TalkingPortraitError, quoted
from ..pipelines.model_files.model_file import ModelFile
from ..pipelines.model_files.required import missing_files
from ..pipelines.model_files.store import find, list_files
from . import host
from .host import io

Chosen = TypeVar("Chosen")
Fingerprint = tuple[tuple[str, int, int], ...]
"""Path, size and time of change of files: by which a changed file is recognised."""


def file_input(name: str, files: list[str], default: str, tooltip: str) -> io.Input:
    """A list of the model files that are there; `default` is chosen at first, there or not.

    ComfyUI offers to download a workflow's file where the list lacks it. So an absent file is never in the list, and
    each node that has one names it in `validate_inputs`, which returns `files_verdict`.
    """
    return io.Combo.Input(name, options=files, default=default, tooltip=tooltip)


def known_model(name: str) -> Path | None:
    """The file that the table of models calls `name`, if it is here; our own folder is always searched too."""
    (model,) = list_files(name)
    return find(model, host.model_folders)


def missing_model(name: str) -> TalkingPortraitError:
    """The error for a file of the table that is not there."""
    (model,) = list_files(name)
    return _missing(model.folder, {model.file: model})


def verdict(check: Callable[[Chosen], object], chosen: Chosen | None) -> bool | str:
    """What `validate_inputs` returns: True, or the sentence that `check` raises, as for a file that is missing.

    A host validates all nodes of a workflow before it runs any, so that the files that several of them lack are named
    at once, before slow work. It gives None for what comes by a link; that is not known yet, and left to `execute`.
    ComfyUI repeats the sentence for each input that `validate_inputs` names. It gives no way to say it once: a list of
    files that is not named there is checked by itself, which refuses an absent file without saying how to get it.
    """
    try:
        if chosen is not None:
            check(chosen)
    except TalkingPortraitError as error:
        return str(error)
    return True


def files_verdict(category: str, names: Mapping[str, str | None]) -> bool | str:
    """`verdict` on the names that `chosen_models` takes."""
    return verdict(partial(chosen_models, category), not_linked(names))


def not_linked(names: Mapping[str, str | None]) -> dict[str, str]:
    """The names that `validate_inputs` knows."""
    return {key: name for key, name in names.items() if name is not None}


def _missing(category: str, files: Mapping[str, ModelFile]) -> TalkingPortraitError:
    """`files` are the names of files of a category that are not there, and the published file for each."""
    folder = Path(host.model_folders(category)[0])
    return missing_files({folder / name: model for name, model in files.items()}, host.models_command)


def chosen_model(category: str, name: str, known: str) -> Path:
    """The file `name` of a category; see `chosen_models`."""
    return chosen_models(category, {known: name})[known]


def chosen_models(category: str, names: Mapping[str, str]) -> dict[str, Path]:
    """The chosen files of a category, by what the table of models calls the file that is usual for each.

    Raises TalkingPortraitError when any is not there, one error for all of them, with the way to the files that were
    chosen, or where those are not published, to the usual ones.
    """
    categories = (category, host.OWN_CATEGORY)
    paths = {known: host.model_path(categories, name) for known, name in names.items()}
    missing = {name: _published(category, name, known) for known, name in names.items() if paths[known] is None}
    if missing:
        raise _missing(category, missing)
    return {known: path for known, path in paths.items() if path is not None}


NO_FILE = "none"


def optional_file_input(name: str, endings: tuple[str, ...], tooltip: str) -> io.Input:
    """A list of the files of our own folder, and none, which is chosen at first; see `optional_own_model`."""
    files = [NO_FILE, *host.model_names(host.OWN_CATEGORY, endings)]
    return host.advanced(io.Combo.Input(name, options=files, default=NO_FILE, optional=True, tooltip=tooltip))


def optional_own_model(name: str, what: str, advice: str) -> Path | None:
    """`own_model`, or None for none."""
    return None if name == NO_FILE else own_model(name, what, advice)


def own_model(name: str, what: str, advice: str) -> Path:
    """A file in our own folder of a kind that is made and not published; `what` and `advice` are for its absence.

    Raises TalkingPortraitError when it is not there.
    """
    folder = host.model_folders(host.OWN_CATEGORY)[0]
    if name == "":  # what a list without entries has chosen
        raise TalkingPortraitError(f"No file of {folder} is chosen, but {what} is expected; {advice}.")
    path = host.model_path((host.OWN_CATEGORY,), name)
    if path is None:
        raise TalkingPortraitError(f"There is no {quoted(name)} in {folder}, but {what} is expected; {advice}.")
    return path


def _published(category: str, name: str, known: str) -> ModelFile:
    """The published file of that name, or else the one that the table calls `known`."""
    same = [model for model in list_files() if (model.folder, model.file) == (category, name)]
    return same[0] if same else list_files(known)[0]


def fingerprint(paths: Iterable[Path | None]) -> Fingerprint:
    """For `fingerprint_inputs`, so that a result that a host keeps is made anew with a file that came or changed."""
    states = []
    for path in paths:
        try:
            state = path.stat() if path else None
        except OSError:
            state = None
        if path and state:
            states.append((str(path), state.st_size, state.st_mtime_ns))
    return tuple(states)


def files_fingerprint(category: str, *names: Any) -> Fingerprint:
    """`fingerprint` of the files of these names; none for what is no file's name, which `execute` reports."""

    def path(name: Any) -> Path | None:
        try:
            return host.model_path((category, host.OWN_CATEGORY), name)
        except TalkingPortraitError:
            return None

    return fingerprint(path(name) for name in names)
