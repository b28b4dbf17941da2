"""Patterns between percent signs in the names of results: the editor fills in some, the server others."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

NAMED_BY_PATTERN = (
    "CLIPSave",
    "LoraSave",
    "ModelSave",
    "Save3DAdvanced",
    "SaveAnimatedPNG",
    "SaveAnimatedWEBP",
    "SaveAudio",
    "SaveAudioAdvanced",
    "SaveAudioMP3",
    "SaveAudioOpus",
    "SaveGLB",
    "SaveGaussianSplat",
    "SaveImage",
    "SaveImageAdvanced",
    "SaveLatent",
    "SavePointCloud",
    "SaveSVGNode",
    "SaveVideo",
    "SaveWEBM",
    "VAESave",
)
"""The nodes whose filename_prefix the editor (version 1.58) fills in before it sends a workflow."""
_DATE_PARTS: Mapping[str, Callable[[datetime], int]] = {
    "d": lambda now: now.day,
    "M": lambda now: now.month,
    "h": lambda now: now.hour,
    "m": lambda now: now.minute,
    "s": lambda now: now.second,
}


def filled_by_editor(prefix: str, widget: Callable[[str, str], Any], now: datetime) -> str:
    """`prefix` with %date:yyyy-MM-dd% and %Node.widget% filled in, as the editor does it.

    `widget` gives the value of a node's widget by the node's name (its title, or the one for searches) and the
    widget's, or raises LookupError, upon which the pattern stays.
    """

    def fill(pattern: re.Match[str]) -> str:
        text = pattern[1]
        if text.count(".") != 1:
            return _date(text[5:].split(".")[0], now) if text.startswith("date:") else pattern[0]
        node, name = text.split(".")
        try:
            value = widget(node, name)
        except LookupError:
            return pattern[0]
        return re.sub(r'[/?<>\\:*|"\x00-\x1f\x7f]', "_", _as_text(value))

    return re.sub(r"%([^%]+)%", fill, prefix)


def filled_by_server(prefix: str, width: int, height: int, now: datetime) -> str:
    """`prefix` with %year%, %month%, %day%, %hour%, %minute%, %second%, %width% and %height% filled in, as ComfyUI's
    saving nodes do it; width and height of a sound are 0."""
    values = {
        "width": str(width),
        "height": str(height),
        "year": str(now.year),
        **{name: f"{getattr(now, name):02}" for name in ("month", "day", "hour", "minute", "second")},
    }
    for name, value in values.items():
        prefix = prefix.replace(f"%{name}%", value)
    return prefix


def _date(form: str, now: datetime) -> str:
    """A date in the editor's form, as in yyyy-MM-dd hh:mm:ss; other letters stay."""

    def part(found: re.Match[str]) -> str:
        letters = found[0]
        if letters[0] == "y":
            return {2: f"{now.year}"[2:], 4: f"{now.year}"}.get(len(letters), letters)
        return f"{_DATE_PARTS[letters[0]](now):0{len(letters)}}"

    return re.sub("dd?|MM?|hh?|mm?|ss?|yyy?y?", part, form)


def _as_text(value: Any) -> str:
    """A widget's value as the editor writes it into a text."""
    if value is None or isinstance(value, bool):
        return {None: "", True: "true", False: "false"}[value]
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
