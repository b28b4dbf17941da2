"""Widgets of nodes as `/object_info` describes them, and their values as the editor saves them: by position or name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"
"""A choice that brings inputs of its own, named CHOICE.INPUT."""
WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", DYNAMIC_COMBO)
"""Types whose values the editor stores itself; all others come through links."""
_UPLOAD_BUTTON = "upload"


def widget_values(node: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, Any]:
    """Widget names and values of a UI node: by name where it stores a mapping, else by position."""
    stored = node.get("widgets_values")
    if isinstance(stored, dict):
        return {name: stored[name] for name in _all_widgets(info.get("input", {})) if name in stored}
    values = list(stored or [])
    result: dict[str, Any] = {}
    _take_values(info, values, "", result)
    # What is left is of widgets that only the page has, as Custom Combo's; newer front ends store the names too.
    named = list((node.get("widgets_values_named") or {}).items()) if values else []
    result |= {name: value for name, value in named[-len(values) :] if value is not None and name != _UPLOAD_BUTTON}
    return result


def _take_values(described: Mapping[str, Any], values: list[Any], prefix: str, result: dict[str, Any]) -> None:
    """Moves the first of `values` to `result`, one for each widget of `described` (a node or a choice of a combo)."""
    for name, kind, options in _widgets(described):
        if not values:
            return
        value = result[prefix + name] = values.pop(0)
        del values[: _values_of_the_editor(prefix + name, kind, options)]
        if kind == DYNAMIC_COMBO:
            _take_values(_chosen(options, value), values, f"{prefix}{name}.", result)


def _chosen(options: Mapping[str, Any], key: Any) -> Mapping[str, Any]:
    """What a choice of a dynamic combo brings."""
    chosen = [choice for choice in options.get("options", []) if choice.get("key") == key]
    return {"input": chosen[0].get("inputs", {}) if chosen else {}}


def add_usual_values(described: Mapping[str, Any], result: dict[str, Any], prefix: str = "") -> None:
    """Gives widgets that a node has got since the workflow was saved their usual values, as the editor does."""
    for name, kind, options in _widgets(described):
        key = prefix + name
        if key not in result and (usual := _usual_value(kind, options)) is not None:
            result[key] = usual
        if kind == DYNAMIC_COMBO:
            add_usual_values(_chosen(options, result.get(key)), result, f"{key}.")


def _usual_value(kind: Any, options: Mapping[str, Any]) -> Any:
    """What a widget holds in a new node, None where that is nothing."""
    if "default" in options:
        return options["default"]
    if kind == DYNAMIC_COMBO:
        return next((choice.get("key") for choice in options.get("options", [])), None)
    choices = kind if isinstance(kind, list) else options.get("options", [])
    if choices:
        return next(iter(choices))
    return {"INT": 0, "FLOAT": 0.0, "STRING": "", "BOOLEAN": False}.get(kind, "" if _is_shown_only(options) else None)


def _widgets(described: Mapping[str, Any]) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Inputs that are widgets, in order: name, type and options."""
    for section in ("required", "optional"):
        entries = described.get("input", {}).get(section, {})
        for name in described.get("input_order", {}).get(section, list(entries)):
            kind, options = entries[name][0], (entries[name][1] if len(entries[name]) > 1 else {}) or {}
            if is_widget(kind, options):
                yield name, kind, options


def _all_widgets(sections: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Names of all widgets that a node may have, whatever is chosen."""
    for name, kind, options in _widgets({"input": sections}):
        yield prefix + name
        if kind == DYNAMIC_COMBO:
            for choice in options.get("options", []):
                yield from _all_widgets(choice.get("inputs", {}), f"{prefix}{name}.")


def is_widget(kind: Any, options: Mapping[str, Any]) -> bool:
    """Whether an input of /object_info can be set in the editor; kinds that only a host has come with a default."""
    if options.get("forceInput"):
        return False
    return isinstance(kind, list) or kind in WIDGET_TYPES or "default" in options or _is_shown_only(options)


def _is_shown_only(options: Mapping[str, Any]) -> bool:
    """Whether an input is something that the page shows in the node, such as two pictures to compare."""
    return bool(options.get("socketless"))


def _values_of_the_editor(name: str, kind: Any, options: Mapping[str, Any]) -> int:
    """How many values of its own the editor stores after a widget's."""
    control = options.get("control_after_generate")
    if kind == "INT" and (control or (control is None and name in ("seed", "noise_seed"))):
        return 1
    return 2 if control and (isinstance(kind, list) or kind == "COMBO") else 0


def types_meet(given: Any, wanted: Any) -> bool:
    """Whether an output of the type `given` may be linked to an input of the type `wanted`; each may name several."""
    if given == wanted or "*" in (given, wanted):
        return True
    if not isinstance(given, str) or not isinstance(wanted, str):
        return False
    return bool({kind.strip() for kind in given.split(",")} & {kind.strip() for kind in wanted.split(",")})
