"""`python -m talking_portrait models list | check | get NAME`."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..files.input_paths import existing_folder
from ..model_files.model_file import ModelFile
from ..model_files.store import Folders, check, default_folders, get, list_files
from .shared.progress_bar import ProgressBar
from .shared.terminal import note, say, say_json


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
        if name != "get":
            command.add_argument("--json", action="store_true", help="print JSON")
        command.set_defaults(run=run)


def main_list(options: argparse.Namespace) -> int:
    """Prints the table."""
    if options.models is not None:
        note("--models has no effect on the list, which says what there is; models check says what is here.")
    if options.json:
        say_json([{**asdict(model), "url": model.url} for model in list_files(options.name)])
        return 0
    for model in list_files(options.name):
        say(f"{model.name}  ({', '.join(model.systems)})")
        say(f"    {model.purpose}")
        say(f"    file     {model.folder}/{model.file}, {_size(model)}")
        say(f"    sha256   {model.sha256 or 'unknown'}")
        say(f"    page     {model.page}")
        say(f"    from     {_origin(model)}")
        say(f"    licence  code: {model.code_licence}; weights: {model.weight_licence}")
    return 0


def main_check(options: argparse.Namespace) -> int:
    """Prints what is here; 1 if a file is broken."""
    if options.models is not None:
        existing_folder(options.models, "models")
    rows = check(folders_of(options), list_files(options.name))
    if options.json:
        say_json([{"name": row.model.name, "state": row.state, "path": str(row.path)} for row in rows])
    for row in () if options.json else rows:
        remark = "" if row.model.sha256 or row.state == "missing" else " (no published checksum to compare with)"
        say(f"{row.state:<15} {row.model.name:<32} {row.path}{remark}")
    return int(any(row.state.startswith("wrong") for row in rows))


def main_get(options: argparse.Namespace) -> int:
    """Fetches the files and prints where they are."""
    folders = folders_of(options)
    for path in get(options.name, folders, ProgressBar("fetching", "MB", per_unit=1_000_000), note):
        say(str(path))
    for model in list_files(options.name):
        if model.by_hand:
            say(f"not fetched: {model.name}, from {model.page} ({model.by_hand})")
    return 0


def folders_of(options: argparse.Namespace) -> Folders:
    """Where model files lie: below --models, or where they lie by default."""
    root: Path | None = options.models
    return default_folders if root is None else lambda category: [root / category]


def _origin(model: ModelFile) -> str:
    return model.url or f"by hand: {model.by_hand}"


def _size(model: ModelFile) -> str:
    if model.size is not None:
        return f"{model.size / 1e6:.1f} MB ({model.size} bytes)"
    return "size unknown" if model.about is None else f"about {model.about / 1e6:.0f} MB"
