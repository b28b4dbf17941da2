"""Model files: what there is, what is here, and fetching what is missing. Behind `talking_portrait models`.

Nodes never download; they name the command to run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

from ..errors import TalkingPortraitError, quoted, reason_of
from ..files.input_paths import is_file
from ..packages import PACK
from ..types import Progress, no_progress
from .comfyui_folders import category_folders, extra_model_paths
from .connection import NotFetchedError, check_address, without_secret
from .download import Expected, clear_lock, download, file_sha256, no_words
from .model_file import HUGGING_FACE, OWN_CATEGORY, ModelFile
from .table import MODEL_FILES

Folders = Callable[[str], list[Path]]
"""From a model folder's category ("vae", "detection" ...) to its paths; the first one is written to."""

Command = Callable[[str], str]
"""From arguments ("get kim_vocal_2") to the command line of `models` that a user of this host can type."""


@dataclass(frozen=True)
class FileStatus:
    """`state`: "ok" (all that is known agrees), "missing", "wrong size", "wrong checksum" or "wrong content"."""

    model: ModelFile
    state: str
    path: Path


class NoModelFolderError(TalkingPortraitError):
    """There is no folder for model files, and so none of them."""


def default_model_root() -> Path:
    """Where model folders lie without ComfyUI: TALKING_PORTRAIT_MODELS, the `models` folder of the ComfyUI that this
    pack is installed in, or the user's cache folder.

    Raises NoModelFolderError where that needs a home folder, and the user has none, as in many containers.
    """
    try:
        return _model_root()
    except RuntimeError:  # pathlib's, for an unknown user or one without a home
        kind = TalkingPortraitError if os.environ.get("TALKING_PORTRAIT_MODELS") else NoModelFolderError
        raise kind(
            "There is no home folder here to keep model files in (~ leads nowhere); name a folder for them in the "
            "environment variable TALKING_PORTRAIT_MODELS."
        ) from None


def _model_root() -> Path:
    chosen = os.environ.get("TALKING_PORTRAIT_MODELS")
    if chosen:
        return Path(chosen).expanduser()
    comfyui = _comfyui()
    if comfyui is not None:
        return comfyui / "models"
    variable = {"win32": "LOCALAPPDATA", "darwin": ""}.get(sys.platform, "XDG_CACHE_HOME")
    cache = Path(os.environ.get(variable) or "")
    if not cache.is_absolute():  # which counts as not set
        home = Path.home()
        usual = {"win32": home / "AppData" / "Local", "darwin": home / "Library" / "Caches"}
        cache = usual.get(sys.platform, home / ".cache")
    return cache / "talking_portrait" / "models"


def _comfyui() -> Path | None:
    """ComfyUI's folder, or its base directory, where the pack lies in its custom_nodes."""
    inside = PACK.parent.name == "custom_nodes" and (PACK.parents[1] / "models").is_dir()
    return PACK.parents[1] if inside else None


def extra_paths_file() -> Path | None:
    """The extra_model_paths.yaml that adds to `default_model_root()`, if there is one."""
    comfyui = None if os.environ.get("TALKING_PORTRAIT_MODELS") else _comfyui()
    return None if comfyui is None else extra_model_paths(comfyui)


def default_folders(category: str) -> list[Path]:
    """The folder of a category below `default_model_root()`, and in ComfyUI those that it has beside.

    Raises TalkingPortraitError where there is no home folder, or for an extra_model_paths.yaml that can't be read.
    """
    return category_folders(default_model_root(), category, extra_paths_file(), of_comfyui=category != OWN_CATEGORY)


def searched_folders(category: str, folders: Folders = default_folders) -> list[Path]:
    """Where files of a category are looked for: its folders, and the pack's own, as nodes do."""
    return list(dict.fromkeys((*folders(category), *folders(OWN_CATEGORY))))


def models_command(arguments: str) -> str:
    """The command line of `models` without a host: of the installed package, or of the folder where it is not one."""
    if any(finder.find_spec("talking_portrait", None) for finder in sys.meta_path):
        return f"python -m talking_portrait models {arguments}"
    return f'"{sys.executable}" "{PACK}" models {arguments}'


def way_to_get(name: str, command: Command = models_command) -> str:
    """How to get the file or system `name` of the table, for an error text: its page and the command."""
    (model,) = list_files(name)
    return f"download it from {model.page}, or run: {command(f'get {model.name}')}"


def list_files(name: str = "") -> list[ModelFile]:
    """All files, or the one of that name, or those of a system ("aniportrait", "anitalker", "apasco" ...).

    Raises TalkingPortraitError for a name that is neither.
    """
    if not name:
        return list(MODEL_FILES)
    chosen = [model for model in MODEL_FILES if name in (model.name, *model.systems)]
    if not chosen:
        systems = sorted({system for model in MODEL_FILES for system in model.systems})
        near = _nearest(name, systems)
        raise TalkingPortraitError(
            f"{quoted(name)} is neither a model file nor a system{f', but {near} is' if near else ''}; systems are "
            f"{', '.join(systems)}, and `models list` shows all files."
        )
    return chosen


def _nearest(name: str, systems: Iterable[str]) -> str:
    """The name of a file or system that is meant by one like it, or by a file's own name, "" where there is none."""
    meant = {system: system for system in systems}
    for model in MODEL_FILES:
        meant |= dict.fromkeys((model.name, _plain(PurePosixPath(model.file).stem)), model.name)
    (found,) = get_close_matches(_plain(PurePosixPath(name[:100]).stem), meant, 1) or ("",)
    return meant.get(found, "")


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")


def find(model: ModelFile, folders: Folders = default_folders) -> Path | None:
    """Where the file lies, or None."""
    try:
        return next((path for path in _places(model, folders) if is_file(path)), None)
    except NoModelFolderError:  # what can be done without the file is
        return None


def check(
    folders: Folders = default_folders, models: Iterable[ModelFile] = MODEL_FILES, *, checksums: bool = True
) -> list[FileStatus]:
    """What is here and whether it is whole; with `checksums` every file with a known SHA-256 is read in full."""
    rows = []
    for model in models:
        path = find(model, folders)
        if path is None:
            path, state = _places(model, folders)[0], "missing"
        else:
            state = _state(model, path, checksums)
        rows.append(FileStatus(model, state, path))
    return rows


def _state(model: ModelFile, path: Path, checksums: bool) -> str:
    """`FileStatus.state` of a file that is here. Raises TalkingPortraitError where it can't be read."""
    try:
        expected = Expected(path.name, model.size, model.about, model.sha256)
        if expected.fault_of_size(path.stat().st_size):
            return "wrong size"
        if checksums and model.sha256 and file_sha256(path) != model.sha256:
            return "wrong checksum"
        # What users fetch by hand may have any form.
        return "wrong content" if model.source and expected.fault_of(path) else "ok"
    except OSError as error:
        raise TalkingPortraitError(f"{path} can't be read ({reason_of(error)}); check its permissions.") from None


def get(
    name: str,
    folders: Folders = default_folders,
    progress: Progress = no_progress,
    say: Callable[[str], None] = no_words,
) -> list[Path]:
    """Fetches a file, or all of a system's files, into the first folder of its category; returns where they lie.

    Files that are here and whole are left alone; `say` gets a line where another process is fetching the same one. One
    that does not come does not keep the others of its system from coming.
    Raises TalkingPortraitError for an unknown name, a file that must be fetched by hand, a folder that can't be written
    to, and failed downloads, once for all of a system's.
    """
    if not name:
        raise TalkingPortraitError("No model file was named; give a name or a system that `models list` shows.")
    models = list_files(name)
    if len(models) == 1:
        return [_get_one(models[0], folders, progress, say)]
    paths: list[Path] = []
    failed: dict[str, list[str]] = {}
    for model in models:
        if not model.source:
            continue
        try:
            paths.append(_get_one(model, folders, progress, say))
        except NotFetchedError as error:
            failed.setdefault(str(error).removesuffix("."), []).append(model.name)
    if failed:
        ways = {reason.partition("; ")[2] for reason in failed}
        way = f"; {ways.pop()}" if len(ways) == 1 else ""  # said once, and not of each host
        reasons = "; ".join(f"{', '.join(names)} ({reason.removesuffix(way)})" for reason, names in failed.items())
        rest = "; the others are here" if paths else ""
        raise TalkingPortraitError(f"Not all model files of {name} could be fetched: {reasons}{rest}{way}.")
    return paths


def _get_one(model: ModelFile, folders: Folders, progress: Progress, say: Callable[[str], None]) -> Path:
    if not model.source:
        raise TalkingPortraitError(
            f"{model.name} must be fetched by hand from {model.page} to {_places(model, folders)[0]} "
            f"({model.by_hand}; licence: {model.weight_licence})."
        )
    (status,) = check(folders, [model])
    if status.state == "ok":
        clear_lock(status.path)
        return status.path
    target = _places(model, folders)[0]
    url = _mirrored(model)
    return download(
        url,
        target,
        size=model.size,
        about=model.about,
        sha256=model.sha256,
        progress=progress,
        say=say,
        allow_http_on_loopback=_is_http(url),
    )


def _mirrored(model: ModelFile) -> str:
    """The file's address; HF_ENDPOINT names another host for files of Hugging Face."""
    endpoint = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/")
    if not endpoint or not model.on_hugging_face:
        return model.url
    try:
        check_address(endpoint, _is_http(endpoint))
    except TalkingPortraitError as error:
        raise TalkingPortraitError(
            f"HF_ENDPOINT is {without_secret(endpoint)}, but an address like {HUGGING_FACE} is expected (files are "
            "fetched over https only); correct that environment variable, or remove it."
        ) from error
    return endpoint + model.url.removeprefix(HUGGING_FACE)


def _is_http(url: str) -> bool:
    """True for a mirror that the user runs on this machine, which needs no certificate; the table has https only."""
    return url.lower().startswith("http://")


def _places(model: ModelFile, folders: Folders) -> list[Path]:
    parts = PurePosixPath(model.file).parts
    if not parts or ".." in parts or PurePosixPath(model.file).is_absolute() or "\\" in model.file or ":" in model.file:
        raise TalkingPortraitError(f'The file name "{model.file}" leads out of its folder and was refused.')
    return [Path(folder, *parts) for folder in searched_folders(model.folder, folders)]
