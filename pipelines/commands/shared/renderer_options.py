"""Options of the renderers that run on model files, for `animate`: their files and what each system can be set to."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import TalkingPortraitError
from ...files.input_paths import existing_folder
from ...renderers import INSTANT, RENDERERS, WITH_FILES, Renderer, renderer_module
from ..models import folders_of
from .driver_options import DRIVER_DEFAULTS

if TYPE_CHECKING:
    from ...model_files.store import Command


def add_renderer_options(command: argparse.ArgumentParser) -> None:
    """Adds them to a command; those that are not given stay None, and those it has already are left to it."""
    group = command.add_argument_group(
        "renderers", "instant needs nothing; the others run on model files, which `models get RENDERER` fetches"
    )
    group.add_argument("--renderer", choices=RENDERERS, default=INSTANT, help="what makes the frames (default instant)")
    group.add_argument("--models", type=Path, metavar="DIR", help="holds vae, audio_encoders, talking_portrait ...")
    have = {action.dest for action in command._actions}
    for name, (kind, text) in _settings().items():
        if name in have:
            continue
        if kind is bool:
            group.add_argument(_flag(name), action="store_true", default=None, help=text)
        else:
            group.add_argument(_flag(name), type=kind, metavar="X" if kind is str else "N", help=text)
    group = command.add_argument_group(
        "model files", "other files than the published ones: a path, or a name in the file's model folder"
    )
    for name, text in _files().items():
        group.add_argument(_flag(name), metavar="FILE", help=text)


def chosen_renderer(options: argparse.Namespace) -> Renderer | None:
    """The renderer with its files and options, or None for Instant.

    Raises TalkingPortraitError for missing files, for options that it does not take, and where Instant is given a
    models folder that is not there; the others' missing files say how to fetch them into a new one.
    """
    own = {*_settings(), *_files()}
    given = {
        name: value
        for name in sorted({*own, *DRIVER_DEFAULTS})
        if (value := getattr(options, name)) is not None and not (options.motion and name == "fps")
    }
    if options.renderer == INSTANT:
        surplus = sorted(set(given) - set(DRIVER_DEFAULTS) - {"size"})
        if surplus:
            raise TalkingPortraitError(
                f"{', '.join(map(_flag, surplus))} {'was' if len(surplus) == 1 else 'were'} given, which instant does "
                f"not take; name another renderer with --renderer: {', '.join(WITH_FILES)}."
            )
        if options.models is not None:
            existing_folder(options.models, "models")
        return None
    return Renderer(
        options.renderer,
        given,
        motion=options.motion is not None,
        folders=folders_of(options),
        command=_command(options),
    )


def _command(options: argparse.Namespace) -> Command:
    from ...model_files.store import models_command

    root: Path | None = options.models
    return models_command if root is None else lambda line: models_command(f'{line} --models "{root}"')


def _settings() -> dict[str, tuple[type, str]]:
    """Type and help of each option, by name; the help lists who takes it, with its default there."""
    kinds: dict[str, tuple[type, str]] = {}
    defaults: dict[str, list[str]] = {}
    for system in WITH_FILES:
        for entry in fields(renderer_module(system).Options):
            choices = entry.metadata["choices"]
            text = entry.metadata["help"] + (f": {', '.join(choices)}" if choices else "")
            kinds.setdefault(entry.name, (type(entry.default), text))
            default = "off" if entry.default is False else entry.default
            defaults.setdefault(entry.name, []).append(f"{system} {default}")
    return {name: (kind, f"{text} ({', '.join(defaults[name])})") for name, (kind, text) in kinds.items()}


def _files() -> dict[str, str]:
    """What each file is for, by option."""
    from ...model_files.store import list_files

    found: dict[str, dict[str, str]] = {}
    for system in WITH_FILES:
        for option, name in renderer_module(system).FILES.items():
            (model,) = list_files(name)
            found.setdefault(option, {}).setdefault(model.file, f"{model.purpose} ({model.folder}/{model.file})")
    return {option: "; ".join(texts.values()) for option, texts in found.items()}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def add_no_mark_option(command: argparse.ArgumentParser) -> None:
    """With which the invisible mark of a video is turned off."""
    command.add_argument(
        "--no-mark",
        dest="mark",
        action="store_false",
        help="leave out the invisible mark of AI-made videos; the file's metadata say that it was turned off",
    )
