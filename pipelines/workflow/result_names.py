"""Names that come from a server or a workflow, as names of files inside the folder for results."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from ..errors import TalkingPortraitError, quoted
from ..files.output_paths import MAX_NAME_BYTES, cut_to_bytes

MAX_ENDING_BYTES = 20
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])\s*(\.|$)", re.IGNORECASE)
"""Names that Windows keeps for devices, with any ending."""


def check_inside(folder: Path, root: Path) -> None:
    """Raises TalkingPortraitError where a link below `root` leads a folder out of it, as ComfyUI does."""
    try:
        inside = folder.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # links in a circle
        inside = False
    if not inside:
        raise TalkingPortraitError(
            f"The folder {quoted(str(folder), 160)} leads out of {quoted(str(root), 160)} by a link, where no results "
            "are put; remove the link, or name another folder with --out."
        )


def plain_name(text: str) -> str:
    """A name that a server gave as one of a file here, "" where nothing of it can stay.

    Without what leads elsewhere or hides the file, what terminals obey, and what Windows takes for something else.
    """
    letters = [
        "_" if letter in '<>:"/\\|?*' or unicodedata.category(letter)[0] == "C" or letter in "\u2028\u2029" else letter
        for letter in text
    ]
    name = "".join(letters).strip(" ").lstrip(".~- ").rstrip(". ")
    if _RESERVED.match(name):
        name = f"_{name}"
    stem, dot, ending = name.rpartition(".")
    if not stem or len(ending.encode()) > MAX_ENDING_BYTES:
        stem, dot, ending = name, "", ""
    stem = cut_to_bytes(stem, MAX_NAME_BYTES - len(f"{dot}{ending}".encode()))
    return f"{stem}{dot}{ending}"
