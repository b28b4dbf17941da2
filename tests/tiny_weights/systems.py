"""Tiny weights of every system that runs on model files, in one models folder."""

from __future__ import annotations

from pathlib import Path

from . import aniportrait, anitalker, apasco


def write_systems(folder: Path) -> Path:
    """Writes them below `folder`, which is returned."""
    aniportrait.write_all(folder)
    anitalker.write_models(folder)
    apasco.write_all(folder)
    return folder
