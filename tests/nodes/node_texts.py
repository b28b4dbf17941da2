"""Texts about the nodes outside their code, derived from the code: the English locale and the table of inputs.

`python tests/nodes/node_texts.py` writes both files; the tests compare them. Old workflows store widget values by
position, so in schema.json nothing may ever move: new inputs are optional and come last.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from talking_portrait.nodes.extension import NODES

ROOT = Path(__file__).parents[2]
ENGLISH = ROOT / "locales" / "en" / "nodeDefs.json"
SCHEMA = Path(__file__).with_name("schema.json")


def infos() -> dict[str, dict[str, Any]]:
    """`/object_info` of our nodes, as JSON would carry it."""
    return json.loads(json.dumps({node.GET_SCHEMA().node_id: node.GET_NODE_INFO_V1() for node in NODES}))


def all_inputs(info: dict[str, Any]) -> dict[str, list[Any]]:
    """Inputs in the order of the editor: required ones, then optional ones."""
    return {**info["input"]["required"], **info["input"].get("optional", {})}


def without_curves(info: dict[str, Any]) -> dict[str, Any]:
    """A node as ComfyUI's versions without a Curve Editor describe it."""
    kept = {
        section: {name: spec for name, spec in entries.items() if spec[0] != "CURVE"}
        for section, entries in info["input"].items()
    }
    order = {
        section: [name for name in names if name in kept[section]] for section, names in info["input_order"].items()
    }
    return {**info, "input": kept, "input_order": order}


def english() -> dict[str, Any]:
    """locales/en/nodeDefs.json."""
    return {
        name: {
            "display_name": info["display_name"],
            "description": info["description"],
            "inputs": {
                key: {"name": key.replace("_", " "), "tooltip": spec[1]["tooltip"]}
                for key, spec in all_inputs(info).items()
            },
            "outputs": {
                str(index): {"name": info["output_name"][index], "tooltip": info["output_tooltips"][index]}
                for index in range(len(info["output"]))
            },
        }
        for name, info in infos().items()
    }


def schema() -> dict[str, Any]:
    """Every input and output with its type, in order."""
    return {
        name: {
            "inputs": [f"{key}: {spec[0]}" for key, spec in all_inputs(info).items()],
            "required": list(info["input"]["required"]),
            "outputs": [f"{key}: {kind}" for key, kind in zip(info["output_name"], info["output"], strict=True)],
        }
        for name, info in infos().items()
    }


def as_text(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for path, content in ((ENGLISH, english()), (SCHEMA, schema())):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(as_text(content), encoding="utf-8")
