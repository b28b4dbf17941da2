"""Model files: what there is, what is here, and fetching what is missing. Behind `talking_portrait models`.

Nodes never download; they name the command to run.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import TalkingPortraitError
from ..packages import PACK
from ..types import Progress, no_progress
from .download import UnreachableError, download, file_sha256
from .table import HUGGING_FACE, MODEL_FILES, ModelFile

Folders = Callable[[str], list[Path]]
"""From a model folder's category ("vae", "detection" ...) to its paths; the first one is written to."""

Command = Callable[[str], str]
"""From arguments ("get kim_vocal_2") to the command line of `models` that a user of this host can type."""


@dataclass(frozen=True)
class FileStatus:
    """`state`: "ok" (size and checksum agree as far as known), "missing", "wrong size" or "wrong checksum"."""

    model: ModelFile
    state: str
    path: Path


def default_model_root() -> Path:
    """Where model folders lie without ComfyUI: TALKING_PORTRAIT_MODELS, the `models` folder of the ComfyUI that this
    pack is installed in, or the user's cache folder."""
    chosen = os.environ.get("TALKING_PORTRAIT_MODELS")
    if chosen:
        return Path(chosen).expanduser()
    if PACK.parent.name == "custom_nodes" and (PACK.parents[2] / "models").is_dir():
        return PACK.parents[2] / "models"
    home = Path.home()
    if sys.platform == "win32":
        cache = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        cache = home / "Library" / "Caches"
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return cache / "talking_portrait" / "models"


def default_folders(category: str) -> list[Path]:
    """One folder a category below `default_model_root()`."""
    return [default_model_root() / category]


def models_command(arguments: str) -> str:
    """The command line of `models` without a host: of the installed package, or of the folder where it is not one."""
    if any(finder.find_spec("talking_portrait", None) for finder in sys.meta_path):
        return f"python -m talking_portrait models {arguments}"
    return f'"{sys.executable}" "{PACK}" models {arguments}'


def way_to_get(name: str, command: Command = models_command) -> str:
    """What to tell a user who lacks the file or system `name` of the table: its page and the command."""
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
        raise TalkingPortraitError(
            f'"{name}" is no model file, but one of these names or systems is expected: '
            f"{', '.join(model.name for model in MODEL_FILES)}; {', '.join(systems)}."
        )
    return chosen


def find(model: ModelFile, folders: Folders = default_folders) -> Path | None:
    """Where the file lies, or None."""
    return next((path for path in _places(model, folders) if path.is_file()), None)


def check(
    folders: Folders = default_folders, models: Iterable[ModelFile] = MODEL_FILES, *, checksums: bool = True
) -> list[FileStatus]:
    """What is here and whether it is whole; with `checksums` every file with a known SHA-256 is read in full."""
    rows = []
    for model in models:
        path = find(model, folders)
        state = "ok"
        if path is None:
            path, state = _places(model, folders)[0], "missing"
        elif model.size is not None and path.stat().st_size != model.size:
            state = "wrong size"
        elif checksums and model.sha256 and file_sha256(path) != model.sha256:
            state = "wrong checksum"
        rows.append(FileStatus(model, state, path))
    return rows


def get(name: str, folders: Folders = default_folders, progress: Progress = no_progress) -> list[Path]:
    """Fetches a file, or all of a system's files, into the first folder of its category; returns where they lie.

    Files that are here and whole are left alone. A host that can't be reached is told when the others' files are here.
    Raises TalkingPortraitError for an unknown name, a file that must be fetched by hand, and failed downloads.
    """
    if not name:
        raise TalkingPortraitError("No model file was named; give a name or a system that `models list` shows.")
    models = list_files(name)
    alone = len(models) == 1
    paths, unreachable = [], None
    for model in models:
        if not model.source:
            if alone:
                raise TalkingPortraitError(
                    f"{model.name} must be fetched by hand from {model.page} to {_places(model, folders)[0]} "
                    f"({model.by_hand}; licence: {model.weight_licence})."
                )
            continue
        (status,) = check(folders, [model])
        try:
            paths.append(status.path if status.state == "ok" else _get_one(model, folders, progress))
        except UnreachableError as error:
            unreachable = unreachable or error
    if unreachable:
        raise unreachable
    return paths


def _get_one(model: ModelFile, folders: Folders, progress: Progress) -> Path:
    target = _places(model, folders)[0]
    url = _mirrored(model)
    return download(
        url, target, size=model.size, sha256=model.sha256, progress=progress, allow_http_on_loopback=_is_http(url)
    )


def _mirrored(model: ModelFile) -> str:
    """The file's address; HF_ENDPOINT names another host for files of Hugging Face."""
    endpoint = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/")
    if endpoint and model.on_hugging_face:
        return endpoint + model.url.removeprefix(HUGGING_FACE)
    return model.url


def _is_http(url: str) -> bool:
    """True for a mirror that the user runs on this machine, which needs no certificate; the table has https only."""
    return url.lower().startswith("http://")


def _places(model: ModelFile, folders: Folders) -> list[Path]:
    parts = PurePosixPath(model.file).parts
    if not parts or ".." in parts or PurePosixPath(model.file).is_absolute() or "\\" in model.file or ":" in model.file:
        raise TalkingPortraitError(f'The file name "{model.file}" leads out of its folder and was refused.')
    return [Path(folder, *parts) for folder in folders(model.folder)]


# --- the command line: talking_portrait models list | check | get NAME ---


def add_commands(subparsers: Any) -> None:
    """Adds `models` and its three commands to a parser's commands; each sets `run`, which takes the options."""
    models = subparsers.add_parser("models", help="list, check or fetch model files")
    commands = models.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, run, about in (
        ("list", main_list, "every model file: where it comes from, its size, checksum and licences"),
        ("check", main_check, "which files are here and whole; exit status 1 if one is broken"),
        ("get", main_get, "fetch a file, or all files of a system; broken downloads go on where they stopped"),
    ):
        command = commands.add_parser(name, help=about, description=about)
        command.add_argument("name", nargs=None if name == "get" else "?", default="", help="a file's or system's name")
        command.add_argument("--models", type=Path, help="the folder that holds vae, detection, talking_portrait ...")
        command.set_defaults(run=run)


def main_list(options: argparse.Namespace) -> int:
    """Prints the table."""
    for model in list_files(options.name):
        _say(f"{model.name}  ({', '.join(model.systems)})")
        _say(f"    {model.purpose}")
        _say(f"    file     {model.folder}/{model.file}, {_size(model.size)}")
        _say(f"    sha256   {model.sha256 or 'unknown'}")
        _say(f"    page     {model.page}")
        _say(f"    from     {_origin(model)}")
        _say(f"    licence  code: {model.code_licence}; weights: {model.weight_licence}")
    return 0


def main_check(options: argparse.Namespace) -> int:
    """Prints what is here; 1 if a file is broken."""
    rows = check(_folders_of(options), list_files(options.name))
    for row in rows:
        note = "" if row.model.sha256 or row.state == "missing" else " (no published checksum to compare with)"
        _say(f"{row.state:<15} {row.model.name:<32} {row.path}{note}")
    return int(any(row.state.startswith("wrong") for row in rows))


def main_get(options: argparse.Namespace) -> int:
    """Fetches and says where the files are."""
    folders = _folders_of(options)
    for path in get(options.name, folders, _ByteBar()):
        _say(str(path))
    for model in list_files(options.name):
        if model.by_hand:
            _say(f"not fetched: {model.name}, from {model.page} ({model.by_hand})")
    return 0


def _folders_of(options: argparse.Namespace) -> Folders:
    root: Path | None = options.models
    return default_folders if root is None else lambda category: [root / category]


def _origin(model: ModelFile) -> str:
    return model.url or f"by hand: {model.by_hand}"


def _size(size: int | None) -> str:
    return "size unknown" if size is None else f"{size / 1e6:.1f} MB ({size} bytes)"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class _ByteBar:
    """Megabytes so far on the error stream, where somebody watches."""

    def __init__(self) -> None:
        self.shown = 0.0

    def __call__(self, done: int, total: int, preview: Any = None) -> None:
        now = time.monotonic()
        if not sys.stderr.isatty() or (now - self.shown < 0.2 and done != total):
            return
        self.shown = now
        share = f" of {total / 1e6:.1f} ({100 * done // total} %)" if total else ""
        sys.stderr.write(f"\r{done / 1e6:.1f}{share} MB " + ("\n" if done == total else ""))
        sys.stderr.flush()
