"""Files that are read: whether they are there."""

from __future__ import annotations

from pathlib import Path

from ..errors import TalkingPortraitError
from .output_paths import shortened


def existing_file(path: str | Path, kind: str) -> Path:
    """The path of a file that is there; raises TalkingPortraitError, naming its `kind`, where it is not."""
    path = Path(path)
    if not is_file(path):
        raise TalkingPortraitError(f"The {kind} file {shortened(path)} does not exist; check its name and folder.")
    return path


def is_file(path: Path) -> bool:
    """Whether there is an ordinary file; False too for names that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
