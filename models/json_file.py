"""JSON that lies beside weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import TalkingPortraitError

LARGEST = 16 * 2**20
"""Bytes; the lists of parameters that ship with audio-separator have a quarter of a megabyte."""


def read_json(path: Path) -> dict[str, Any]:
    """A file's JSON object.

    Raises TalkingPortraitError for a file that can't be read, is no JSON object or is implausibly large.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise TalkingPortraitError(
                f"{path.name} has {path.stat().st_size / 2**20:.0f} MB, but a short JSON file is expected; download it "
                "again or remove it."
            )
        value = json.loads(path.read_text(encoding="utf-8"))
    except TalkingPortraitError:
        raise
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise TalkingPortraitError(f"{path.name} is no readable JSON; download it again or remove it.")
    return value
