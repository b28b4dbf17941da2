"""Model files of nodes: their lists, their paths in the host's folders, and one sentence on how to get missing ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..pipelines.errors import TalkingPortraitError, quoted
from ..pipelines.model_files.store import find, list_files, way_to_get
from . import host
from .host import io

Fingerprint = tuple[tuple[str, int, int], ...]
"""Path, size and time of change of files: what tells a file from another one that took its name."""


def file_input(name: str, files: list[str], default: str, tooltip: str) -> io.Input:
    """A list of the model files that are there; `default` is chosen at first, there or not.

    ComfyUI offers to download a workflow's file where the list lacks it. So an absent file is never in the list, and
    each node that has one names it in `validate_inputs`: its `execute` then says how to get the file.
    """
    return io.Combo.Input(name, options=files, default=default, tooltip=tooltip)


def known_model(name: str) -> Path | None:
    """The file that the table of models calls `name`, if it is here; our own folder is always searched too."""
    (model,) = list_files(name)
    return find(model, lambda category: host.model_folders(category, host.OWN_CATEGORY))


def missing_model(name: str) -> TalkingPortraitError:
    """The error for a missing file of the table, with its file, folder, page and command."""
    (model,) = list_files(name)
    folder = host.model_folders(model.folder)[0]
    return TalkingPortraitError(
        f"The model file {model.file} is not in {folder}, where it belongs; {way_to_get(name, host.models_command)}"
    )


def chosen_model(category: str, name: str, known: str) -> Path:
    """The file `name` of a category.

    Raises TalkingPortraitError when it is not there, with the way to the table's file `known` when that was meant.
    """
    path = host.model_path((category, host.OWN_CATEGORY), name)
    if path is not None:
        return path
    (model,) = list_files(known)
    if name == model.file:
        raise missing_model(known)
    folder = host.model_folders(category)[0]
    raise TalkingPortraitError(
        f"The model file {quoted(name)} is not in {folder}; put it there, or take {model.file} from {model.page} with: "
        + host.models_command(f"get {model.name}")
    )


def chosen_models(category: str, names: Mapping[str, str]) -> dict[str, Path]:
    """The chosen files of a category, by what the table of models calls the file that is meant for each.

    Raises TalkingPortraitError when any is not there, one error for all of them.
    """
    categories = (category, host.OWN_CATEGORY)
    missing = [known for known, name in names.items() if host.model_path(categories, name) is None]
    if len(missing) > 1:
        raise _several_missing(category, {known: names[known] for known in missing})
    return {known: chosen_model(category, name, known) for known, name in names.items()}


def _several_missing(category: str, names: Mapping[str, str]) -> TalkingPortraitError:
    models = [model for known in names for model in list_files(known)]
    files = ", ".join(
        name if name == model.file else quoted(name) for name, model in zip(names.values(), models, strict=True)
    )
    if len(models) > 2:  # rather the system as a whole than many commands
        commands = [f"get {models[0].systems[0]}"]
    else:
        commands = [f"get {model.name}" for model in models]
    return TalkingPortraitError(
        f"The model files {files} are not in {host.model_folders(category)[0]}, where they belong; download them from "
        f"{' and '.join(dict.fromkeys(model.page for model in models))}, or run: "
        + ", then: ".join(host.models_command(command) for command in commands)
    )


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
