"""Which system the file of one person's model belongs to."""

from __future__ import annotations

from pathlib import Path

from ...models.checkpoints import check_kind, read_checkpoint

_BEGIN = "talking_portrait."
_KINDS = {"audiodvp_person": "audiodvp", "syncanimation": "syncanimation"}
"""Kinds of checkpoints, and the systems that they belong to."""


def system_of(path: str | Path) -> str:
    """The name of the system, "audiodvp" or "syncanimation", that a file is a person's model of.

    By an entry of its metadata, else by its tensors. What else is wrong with the file its system's own reader says.
    Raises TalkingPortraitError for a file of neither.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            names = list(file.metadata() or {})
    except (OSError, SafetensorError, RecursionError):
        names = []
    named = [name.removeprefix(_BEGIN) for name in names if name.startswith(_BEGIN)]
    known = [name for name in named if name in _KINDS.values()]
    if known:
        return known[0]
    wanted = "a person's model (as train audiodvp or train syncanimation writes it)"
    return _KINDS[check_kind(read_checkpoint(path), _KINDS, wanted, path).name]
