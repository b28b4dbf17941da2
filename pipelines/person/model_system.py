"""Which system the file of one person's model belongs to."""

from __future__ import annotations

from pathlib import Path

_BEGIN = "talking_portrait."


def system_of(path: str | Path) -> str:
    """The name of the system, such as "audiodvp", that a file's metadata has an entry of; "" where there is none.

    What else is wrong with a file its system's own reader says.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            names = list(file.metadata() or {})
    except (OSError, SafetensorError, RecursionError):
        return ""
    return next((name.removeprefix(_BEGIN) for name in names if name.startswith(_BEGIN)), "")
