"""How the newest ComfyUI describes its own nodes, as tests/browser/record_core_nodes.py recorded it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "data" / "core_nodes.json"


def core_nodes() -> dict[str, Any]:
    """/object_info of the core nodes that this pack's workflows use."""
    return json.loads(RECORDED.read_text(encoding="utf-8"))["nodes"]


def for_newest(prompt: dict[str, Any]) -> dict[str, Any]:
    """What of a prompt counts in the newest host: core nodes without titles and without inputs at their defaults.

    Hosts differ in both, and add inputs that a workflow saved in an older one does not have.
    """
    core = core_nodes()
    return {
        node: {"class_type": entry["class_type"], "inputs": _chosen(entry["inputs"], core[entry["class_type"]])}
        if entry["class_type"] in core
        else entry
        for node, entry in prompt.items()
    }


def for_stand_ins(prompt: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    """A prompt with only those inputs that `info` has; others belong to an older or newer host."""
    return {
        node: {**entry, "inputs": {name: value for name, value in entry["inputs"].items() if name in known}}
        for node, entry in prompt.items()
        for known in [{name for part in info[entry["class_type"]]["input"].values() for name in part}]
    }


def _chosen(inputs: dict[str, Any], described: dict[str, Any]) -> dict[str, Any]:
    defaults = dict(_defaults(described["input"]))
    return {name: value for name, value in inputs.items() if value != defaults.get(name)}


def _defaults(sections: dict[str, Any], prefix: str = "") -> Any:
    for section in ("required", "optional"):
        for name, spec in sections.get(section, {}).items():
            options = spec[1] if len(spec) > 1 else {}
            choices = options.get("options") or []
            first = choices[0] if choices else None
            yield prefix + name, options.get("default", first.get("key") if isinstance(first, dict) else first)
            if isinstance(first, dict):
                yield from _defaults(first.get("inputs", {}), f"{prefix}{name}.")
