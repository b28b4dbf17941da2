"""Is a graph fit to run? The checks that ComfyUI makes before it queues a prompt, in its words and error types."""

from __future__ import annotations

import graphlib
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import TalkingPortraitError, one_line, quoted
from .formats import NodeInfo, Prompt
from .widgets import WIDGET_TYPES, types_meet

MAX_ERROR = 3000
"""Length at which an error's text is cut: the way to model files that are missing follows upon all of their paths."""


@dataclass(frozen=True)
class InputError:
    """One thing wrong with one input; `type` is ComfyUI's name for the kind of error."""

    type: str
    message: str
    details: str

    def __str__(self) -> str:
        return f"{self.message}: {self.details}" if self.details else self.message


class GraphRefusedError(TalkingPortraitError):
    """A graph that must not run. `errors` lists what is wrong with each node; the message lists it all in lines."""

    def __init__(self, summary: str, errors: Mapping[str, list[InputError]], titles: Mapping[str, str]) -> None:
        self.errors = dict(errors)
        found = [(node, error) for node in errors for error in errors[node]]
        lines = [
            f"  {one_line(titles.get(node, node))} (node {one_line(node)}): {one_line(error, MAX_ERROR)}"
            for node, error in found
        ]
        super().__init__("\n".join([summary, *lines]))


Registry = Mapping[str, Any]
"""Node classes by id, with the class methods of ComfyUI's V3 API: GET_NODE_INFO_V1, execute and so on."""


@dataclass
class _Check:
    prompt: Prompt
    nodes: Registry
    info: NodeInfo
    errors: dict[str, list[InputError]] = field(default_factory=dict)

    def add(self, node: str, kind: str, message: str, details: str) -> None:
        self.errors.setdefault(node, []).append(InputError(kind, message, details))


def is_link(value: Any) -> bool:
    """True for ["node id", output index]."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and type(value[1]) is int


def output_nodes(prompt: Prompt, info: NodeInfo) -> list[str]:
    """Ids of the nodes for whose sake a graph runs."""
    return [node for node, entry in prompt.items() if info[entry["class_type"]].get("output_node")]


def needed_nodes(prompt: Prompt, outputs: list[str]) -> list[str]:
    """Ids of all nodes that the given ones can draw on, themselves included."""
    seen: dict[str, None] = {}
    waiting = list(outputs)
    while waiting:
        node = waiting.pop()
        if node in seen or node not in prompt:
            continue
        seen[node] = None
        waiting += [value[0] for value in prompt[node]["inputs"].values() if is_link(value)]
    return list(seen)


def describe(nodes: Registry, names: set[str]) -> dict[str, Mapping[str, Any]]:
    """`/object_info` of those of the named classes that exist."""
    return {name: nodes[name].GET_NODE_INFO_V1() for name in names if name in nodes}


def check_graph(prompt: Prompt, nodes: Registry) -> Prompt:
    """The part of a prompt that its output nodes need, with widget values converted to their types.

    Raises GraphRefusedError with every error found: unknown class, no outputs, missing or mistyped inputs, values out
    of range or not in their list, a class's own validate_inputs, and links that form a circle. Unlike ComfyUI, which
    drops outputs that fail and runs the others, one error refuses the whole graph.
    """
    titles = {node: str(entry.get("_meta", {}).get("title", entry.get("class_type"))) for node, entry in prompt.items()}
    info = describe(nodes, {str(entry.get("class_type")) for entry in prompt.values()})
    for node, entry in prompt.items():
        kind = entry.get("class_type")
        if kind not in info:
            what = f"node {kind} does not exist" if kind else "a node is missing the class_type property"
            error = InputError("invalid_prompt", f"Cannot execute because {what}.", f"Node ID '#{node}'")
            raise GraphRefusedError("The workflow can't run:", {node: [error]}, titles)
    outputs = output_nodes(prompt, info)
    if not outputs:
        raise GraphRefusedError("The workflow has no outputs; add a node that saves or previews something.", {}, titles)
    check = _Check(prompt, nodes, info)
    checked = {node: _checked_node(check, node) for node in needed_nodes(prompt, outputs)}
    if not check.errors:
        _check_circles(check, list(checked))
    if check.errors:
        raise GraphRefusedError("The workflow was refused:", check.errors, titles)
    return checked


def _checked_node(check: _Check, node: str) -> dict[str, Any]:
    entry = check.prompt[node]
    node_class = check.nodes[entry["class_type"]]
    validate = getattr(node_class, "validate_inputs", None)
    own = set(inspect.signature(validate).parameters) if validate else set()
    description = check.info[entry["class_type"]]["input"]
    inputs: dict[str, Any] = {}  # what the class does not declare, such as the editor's player widgets, is left out
    for section in ("required", "optional"):
        for name, spec in description.get(section, {}).items():
            value = entry["inputs"].get(name)
            # null is how some clients say that nothing is connected
            if name in entry["inputs"] and not (value is None and _is_socket(spec[0])):
                inputs[name] = _checked_input(check, node, name, spec, value, name in own)
            elif section == "required":
                check.add(node, "required_input_missing", "Required input is missing", name)
    if validate is not None and node not in check.errors:
        known = {name: None if is_link(value) else value for name, value in inputs.items() if name in own}
        verdict = validate(**known)
        if verdict is not True:
            details = ", ".join(known) + ("" if verdict is False else f" - {verdict}")
            check.add(node, "custom_validation_failed", "Custom validation failed for node", details)
    return {**entry, "inputs": inputs}


def _checked_input(check: _Check, node: str, name: str, spec: Any, value: Any, own: bool) -> Any:
    """A converted value; `own` means that the class checks this input's range or list itself."""
    kind, options = spec[0], spec[1] if len(spec) > 1 else {}
    if isinstance(value, list):
        _check_link(check, node, name, kind, value)
        return value
    if isinstance(value, dict) and "__value__" in value:
        value = value["__value__"]
    if _is_socket(kind):
        message = f"A link to an output of {kind} is expected"
        check.add(node, "invalid_input_type", message, f"{name} is {quoted(value)}")
        return value
    try:
        value = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}.get(kind, lambda same: same)(value)
        if kind == "FLOAT" and not math.isfinite(value):
            raise ValueError("it is no finite number")
    except (TypeError, ValueError, OverflowError) as error:
        message = f"Failed to convert an input value to a {kind} value"
        check.add(node, "invalid_input_type", message, f"{name}, {quoted(value)}, {str(error)[:100]}")
        return value
    choices = kind if isinstance(kind, list) else options.get("options") if kind == "COMBO" else None
    if own and choices is not None and not isinstance(value, str):
        check.add(node, "value_not_in_list", "Value not in list", f"{name}: {quoted(value)} is no name")
    if own:
        return value
    if options.get("min") is not None and value < options["min"]:
        check.add(node, "value_smaller_than_min", f"Value {value} smaller than min of {options['min']}", name)
    elif options.get("max") is not None and value > options["max"]:
        check.add(node, "value_bigger_than_max", f"Value {value} bigger than max of {options['max']}", name)
    elif choices is not None and value not in choices:
        listed = str(choices) if len(choices) <= 20 else f"(list of length {len(choices)})"
        check.add(node, "value_not_in_list", "Value not in list", f"{name}: {quoted(value)} not in {listed}")
    return value


def _is_socket(kind: Any) -> bool:
    """True for types whose values no JSON can hold, so that only a link can bring them."""
    return isinstance(kind, str) and not {part.strip() for part in kind.split(",")} & {*WIDGET_TYPES, "*"}


def _check_link(check: _Check, node: str, name: str, kind: Any, link: list[Any]) -> None:
    if not is_link(link):
        message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
        check.add(node, "bad_linked_input", message, name)
        return
    origin = check.prompt.get(link[0])
    given = check.info[origin["class_type"]]["output"] if origin else []
    if not 0 <= link[1] < len(given):
        check.add(node, "bad_linked_input", "Linked output does not exist", f"{name}, {link[0]} output {link[1]}")
    elif not types_meet(given[link[1]], kind):
        details = f"{name}, received_type({given[link[1]]}) mismatch input_type({kind})"
        check.add(node, "return_type_mismatch", "Return type mismatch between linked nodes", details)


def _check_circles(check: _Check, nodes: list[str]) -> None:
    sources = {node: [value[0] for value in check.prompt[node]["inputs"].values() if is_link(value)] for node in nodes}
    try:
        graphlib.TopologicalSorter(sources).prepare()
    except graphlib.CycleError as error:
        circle = sorted(set(error.args[1]))
        for node in circle:
            check.add(node, "dependency_cycle", "Dependency cycle detected", f"nodes {', '.join(circle)}")
