"""Finding model files for nodes: in the host's folders, or one sentence on how to get them."""

from __future__ import annotations

from pathlib import Path

from ..pipelines.errors import TalkingPortraitError, quoted
from ..pipelines.model_files.store import find, list_files, way_to_get
from . import host


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
