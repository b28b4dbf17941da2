"""What a run on a server has made: which files, and under which names they may lie here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .result_names import check_inside, plain_name
from .server_connection import ServerError, list_of, table_of, text_of

MAX_RESULTS = 20_000
"""Files of one run; a video may be saved as its frames."""
MAX_RESULT_BYTES = 20_000_000_000
"""Of all results of a run together."""
MAX_FOLDERS = 8


def files_of(outputs: Any) -> list[dict[str, str]]:
    """Files that a run saved, as its history lists them; previews only when it saved nothing."""
    entries = [
        {
            "filename": item["filename"],
            "subfolder": text_of(item.get("subfolder")),
            "type": text_of(item.get("type")) or "output",
        }
        for values in table_of(outputs).values()
        for items in table_of(values).values()
        for item in list_of(items)
        if text_of(table_of(item).get("filename"))
    ]
    found = [entry for entry in entries if entry["type"] == "output"] or entries
    if len(found) > MAX_RESULTS:
        raise ServerError(f"The run has {len(found)} results, but at most {MAX_RESULTS} are fetched; save fewer files.")
    return found


def too_much() -> ServerError:
    """The sentence on results that together have more than MAX_RESULT_BYTES."""
    return ServerError(
        f"The results have more than {MAX_RESULT_BYTES // 10**9} GB, which is not fetched; save fewer or smaller files."
    )


def place_of(entry: Mapping[str, str], out: Path) -> Path:
    """Where a result belongs: always inside `out`, under a name that a file can have in any system.

    Raises TalkingPortraitError where a link in `out` leads elsewhere.
    """
    *folders, name = [
        part
        for text in (entry["subfolder"], entry["filename"])
        for part in text.replace("\\", "/").split("/")
        if part and not re.fullmatch(r"[A-Za-z]:", part)  # a drive
    ] or [""]
    kept = [part for part in map(plain_name, folders) if part][:MAX_FOLDERS]
    place = out.joinpath(*kept, plain_name(name) or "result")
    check_inside(place.parent, out)
    return place
