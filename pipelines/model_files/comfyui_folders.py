"""Where the ComfyUI around the pack finds model files: below its `models`, and as its extra_model_paths.yaml says.

The rules are those of ComfyUI 0.33 (utils/extra_config.py and folder_paths.py); its files are read, and none of its
modules is imported.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import TalkingPortraitError, quoted, reason_of

EXTRA_PATHS = "extra_model_paths.yaml"
"""What ComfyUI reads beside its main.py."""
FORMER_NAMES = {"unet": "diffusion_models", "clip": "text_encoders"}
"""Categories by names that they had before, which the file may still have, and whose folders are still searched."""

ExtraFolder = tuple[str, Path, bool]
"""Category, folder, and whether it comes before ComfyUI's own."""


def extra_model_paths(comfyui: Path) -> Path | None:
    """The extra_model_paths.yaml that ComfyUI reads at each start, if its folder has one."""
    file = comfyui / EXTRA_PATHS
    return file if (comfyui / "main.py").is_file() and file.is_file() else None


def category_folders(models: Path, category: str, extra: Path | None, *, of_comfyui: bool = True) -> list[Path]:
    """The folders of a category, most important first: those below `models`, and those that the file `extra` names.

    `of_comfyui` says that ComfyUI has the category by itself; else `models` comes first whatever the file says.
    Raises TalkingPortraitError for a file that can't be read or that ComfyUI does not take.
    """
    own = [models / category, *(models / former for former, name in FORMER_NAMES.items() if name == category)]
    folders = own if of_comfyui else []
    for name, folder, is_default in _extra_folders(extra) if extra is not None else ():
        if FORMER_NAMES.get(name, name) != category:
            continue
        if is_default and folder in folders:
            folders.remove(folder)
        if folder not in folders:
            folders.insert(0 if is_default else len(folders), folder)
    return folders if of_comfyui or own[0] in folders else [*own, *folders]


def _extra_folders(file: Path) -> tuple[ExtraFolder, ...]:
    """What the file says. Raises TalkingPortraitError."""
    try:
        return _parsed(file.read_text(encoding="utf-8"), str(file.absolute().parent))
    except (OSError, ValueError, TypeError) as error:
        raise TalkingPortraitError(
            f"ComfyUI's {file} can't be read ({reason_of(error)}); correct it as extra_model_paths.yaml.example beside "
            "it shows, or remove it."
        ) from None


@lru_cache(maxsize=8)
def _parsed(text: str, folder: str) -> tuple[ExtraFolder, ...]:
    """`text` of a file in `folder`. Raises ValueError where it is none that ComfyUI takes."""
    import yaml

    try:
        sections = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        raise ValueError(f"line {mark.line + 1} is no YAML" if mark else "it is no YAML") from None
    found: list[ExtraFolder] = []
    for name, section in _entries(sections, "it"):
        entries = dict(_entries(section, f"its part {quoted(name)}"))
        base, is_default = entries.pop("base_path", None), bool(entries.pop("is_default", False))
        for category, lines in (("base_path", base or ""), *entries.items()):
            if not isinstance(lines, str):
                raise ValueError(f"{quoted(category)} of its part {quoted(name)} is no text")
        # A folder itself is taken as it is written; below what `base_path` says, or beside the file.
        start = folder if base is None else os.path.join(folder, os.path.expandvars(os.path.expanduser(base)))
        found += (
            (category, Path(os.path.normpath(os.path.join(start, line))), is_default)
            for category, lines in entries.items()
            for line in lines.split("\n")
            if line
        )
    return tuple(found)


def _entries(value: Any, what: str) -> list[tuple[Any, Any]]:
    """The entries of a mapping, none of an empty one. Raises ValueError."""
    if value is None:
        return []
    if not isinstance(value, dict):
        raise ValueError(f"{what} is no list of names with values")
    return list(value.items())
