"""Workflow JSON: reads both of ComfyUI's formats and turns the editor's into the one that runs.

API format: `{"3": {"class_type": ..., "inputs": {name: value or ["node id", output index]}}}`.
UI format: what the editor saves: `nodes` with positions and positional widget values, `links`, and subgraphs under
`definitions`. Converting needs each class's inputs as `/object_info` gives them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import TalkingPortraitError, one_line, quoted, reason_of
from ..files.output_paths import shortened
from .name_patterns import NAMED_BY_PATTERN, filled_by_editor
from .widgets import add_usual_values, types_meet, widget_values

Prompt = dict[str, dict[str, Any]]
"""A graph in API format."""
NodeInfo = Mapping[str, Mapping[str, Any]]
"""`/object_info`: class name to its description."""

MAX_BYTES = 20_000_000
MAX_PARTS, MAX_DEPTH = 20_000, 32
"""Nodes and links of a workflow once its subgraphs are unfolded, and subgraphs within each other."""
_MUTED, _BYPASSED = 2, 4
_REROUTES = ("Reroute", "Reroute (rgthree)")
_SETTER_OF = {"GetNode": "SetNode", "easy getNode": "easy setNode"}
"""The editor-only pairs of KJNodes and Easy-Use: a Get node stands for what the Set node of its name is fed."""
_PASS_ON = (*_REROUTES, *_SETTER_OF.values())
"""Editor-only nodes whose output is their one input."""
_MODE_SWITCHES = (
    "Fast Actions Button (rgthree)",
    "Fast Bypasser (rgthree)",
    "Fast Muter (rgthree)",
    "Mute / Bypass Relay (rgthree)",
    "Mute / Bypass Repeater (rgthree)",
    "Node Collector (rgthree)",
    "Random Unmuter (rgthree)",
)
"""They mute or bypass the nodes that they are linked to in the editor; the saved workflow has the outcome as `mode`."""
_EDITOR_ONLY = ("Note", "MarkdownNote", "PrimitiveNode", *_PASS_ON, *_SETTER_OF, *_MODE_SWITCHES)
"""Nodes that no server has and that are not part of what is sent to one."""
_SUBGRAPH_INPUT, _SUBGRAPH_OUTPUT = -10, -20
_OWN_INPUT = "-1"
"""In the list of widgets that a use of a subgraph shows, what stands for the use itself in the place of a node."""
_SEARCH_NAME = "Node name for S&R"
"""The property by which patterns in the names of results mean a node."""


def load_workflow(path: str | Path) -> dict[str, Any]:
    """A workflow file of either format. Raises TalkingPortraitError when it is none."""
    path = Path(path)
    try:
        if path.is_fifo() and os.path.exists(os.path.realpath(path)):  # unlike a shell's own, which are nowhere
            raise OSError("it is a pipe")
        with path.open("rb") as file:
            stored = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # the second: a name that no file can have
        raise TalkingPortraitError(
            f"The workflow {shortened(path)} can't be read ({reason_of(error)}); check its name and folder."
        ) from None
    if len(stored) > MAX_BYTES:
        raise TalkingPortraitError(
            f"{shortened(path)} has more than {MAX_BYTES // 10**6} MB, which no workflow has; give a workflow's JSON."
        )
    try:
        content = json.loads(stored.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise TalkingPortraitError(
            f"{shortened(path)} is no JSON ({one_line(error, 160)}); save the workflow again with ComfyUI's Save or "
            "Export (API)."
        ) from None
    if isinstance(content, dict) and isinstance(content.get("prompt"), dict):
        content = content["prompt"]
    if is_ui_format(content) or _is_api_format(content):
        return content
    raise TalkingPortraitError(
        f"{path.name} is JSON but no workflow: it has neither the nodes that ComfyUI's Save writes nor the class_type "
        "entries of its Export (API)."
    )


def is_ui_format(content: Any) -> bool:
    """True for what the editor saves."""
    return isinstance(content, dict) and isinstance(content.get("nodes"), list)


def _is_api_format(content: Any) -> bool:
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(node, dict) and isinstance(node.get("inputs", {}), dict) for node in content.values())
        and all(isinstance(node.get("class_type"), str) for node in content.values())
        and all(isinstance(node.get("_meta", {}), dict) for node in content.values())
    )


def class_names(workflow: Mapping[str, Any]) -> set[str]:
    """All node classes that a workflow of either format names, those inside subgraphs included."""
    if not is_ui_format(workflow):
        return {str(node.get("class_type")) for node in workflow.values()}
    try:
        subgraphs = workflow.get("definitions", {}).get("subgraphs", [])
        nodes = [node for graph in (workflow, *subgraphs) for node in graph.get("nodes", [])]
        return {str(node.get("type")) for node in nodes} - {subgraph["id"] for subgraph in subgraphs}
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(error) from None


def file_reference(name: str) -> tuple[str, PurePosixPath]:
    """What a loader's file name stands for: ComfyUI's folder ("input", "output" or "temp") and the path inside it.

    "face.png" lies in the input folder, "video/talk_00001_.mp4 [output]" among the results. Raises
    TalkingPortraitError for a name that leads out of the folder.
    """
    annotated = re.fullmatch(r"(.*) \[(input|output|temp)\]", name, re.DOTALL)
    plain, folder = (annotated[1], annotated[2]) if annotated else (name, "input")
    path = PurePosixPath(plain.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", plain):
        raise TalkingPortraitError(
            f"The workflow's file name {quoted(name)} leads out of the {folder} folder; name the file itself with "
            "--set."
        )
    return folder, path


def to_prompt(
    workflow: Mapping[str, Any],
    node_info: NodeInfo,
    say: Callable[[str], None] = lambda line: None,
    *,
    server: str | None = None,
) -> Prompt:
    """API format of a workflow in either format, as ComfyUI's editor would send it.

    Muted nodes are left out with their links, bypassed ones are wired through, reroutes, primitives and Set and Get
    nodes dissolved, subgraphs unfolded (their nodes get ids like "7:2"). A node that is not in `node_info` is taken
    for one that only the editor shows when nothing is connected to it: it is left out, and `say` gets a line that names
    it. Raises TalkingPortraitError for broken links, for Get nodes without their Set node, and for connected nodes that
    `node_info`, which is of the ComfyUI at `server` or of here, does not hold.
    """
    if not is_ui_format(workflow):
        return {str(key): {**node, "inputs": dict(node.get("inputs", {}))} for key, node in workflow.items()}
    try:
        converter = _Converter(workflow, node_info)
        prompt = converter.prompt()
    except (KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(error) from None
    check_known(converter.unknown, server)
    if converter.left_out:
        say(
            "Left out, as nothing is connected to them and they are not known here: " + ", ".join(converter.left_out)
            if len(converter.left_out) > 1
            else f"Left out, as nothing is connected to it and it is not known here: {converter.left_out[0]}"
        )
    return prompt


def check_known(unknown: Collection[str], server: str | None) -> None:
    """Raises TalkingPortraitError where there are classes of nodes that a ComfyUI, or this place, does not have."""
    if unknown:
        *others, last = (one_line(kind) for kind in dict.fromkeys(unknown))
        names = f"the nodes {', '.join(others)} and {last}" if others else f"the node {last}"
        them = "them" if others else "it"
        raise TalkingPortraitError(
            f"The workflow uses {names}, which "
            + (
                f"the ComfyUI at {server} does not have; install the pack that has {them} there, or update it, and "
                "restart that ComfyUI."
                if server
                else f"{'are' if others else 'is'} not known here; run the workflow on a ComfyUI that has {them}, with "
                "--server."
            )
        )


def _damaged(error: Exception) -> TalkingPortraitError:
    return TalkingPortraitError(
        f"The workflow's JSON is damaged ({type(error).__name__}: {one_line(error)}); save it again in ComfyUI."
    )


@dataclass
class _Graph:
    """One level of a UI workflow: the whole, or one use of a subgraph; `prefix` is its path of ids."""

    prefix: str
    nodes: dict[int, Mapping[str, Any]]
    links: dict[int, tuple[int, int, int, int]]
    outer: _Graph | None = None
    instance: Mapping[str, Any] = field(default_factory=dict)
    definition: Mapping[str, Any] = field(default_factory=dict)

    def name(self, node: Mapping[str, Any]) -> str:
        return f"{self.prefix}{node['id']}"

    def is_connected(self, node: Mapping[str, Any]) -> bool:
        """Whether any node but a mode switch is at the other end of a link."""
        ends = [{origin, target} for origin, _, target, _ in self.links.values() if node["id"] in (origin, target)]
        others = [self.nodes.get(end, {}).get("type") for pair in ends for end in pair - {node["id"]}]
        return any(kind not in _MODE_SWITCHES for kind in others)


@dataclass(frozen=True)
class _Constant:
    """A widget value that stands in the place of a link."""

    value: Any


class _Converter:
    def __init__(self, workflow: Mapping[str, Any], node_info: NodeInfo) -> None:
        self.node_info = node_info
        self.subgraphs = {graph["id"]: graph for graph in workflow.get("definitions", {}).get("subgraphs", [])}
        self.parts = 0
        self.top = self._counted(_level("", workflow))
        self.inner: dict[str, _Graph] = {}
        self.left_out: list[str] = []
        self.unknown: list[str] = []
        self.now = datetime.now()

    def prompt(self) -> Prompt:
        result: Prompt = {}
        self._add(self.top, result)
        return result

    def _add(self, graph: _Graph, result: Prompt) -> None:
        for node in graph.nodes.values():
            kind = node["type"]
            if node.get("mode", 0) in (_MUTED, _BYPASSED) or kind in _EDITOR_ONLY:
                continue
            if kind in self.subgraphs:
                self._add(self._unfold(graph, node), result)
            elif kind not in self.node_info and not graph.is_connected(node):
                self.left_out.append(f"{one_line(kind)} (node {graph.name(node)})")
            elif kind not in self.node_info:
                if str(kind).startswith(("workflow>", "workflow/")):
                    raise TalkingPortraitError(
                        f"The workflow uses the group node {one_line(str(kind)[9:])}, a kind that is not taken; "
                        "convert it to a subgraph in ComfyUI and save the workflow again."
                    )
                self.unknown.append(kind)
            else:
                meta = {"title": node.get("title") or self.node_info[kind].get("display_name") or kind}
                if pack := node.get("properties", {}).get("cnr_id"):
                    meta["cnr_id"] = pack
                inputs = self._inputs(graph, node)
                result[graph.name(node)] = {"inputs": inputs, "class_type": kind, "_meta": meta}

    def _unfold(self, graph: _Graph, node: Mapping[str, Any]) -> _Graph:
        prefix = f"{graph.name(node)}:"
        if prefix not in self.inner:
            definition = self.subgraphs[node["type"]]
            outer: _Graph | None = graph
            if prefix.count(":") > MAX_DEPTH:
                raise TalkingPortraitError(
                    f"The workflow's subgraphs lie more than {MAX_DEPTH} deep in each other, more than are taken; "
                    "unpack some of them in ComfyUI."
                )
            while outer is not None:
                if outer.definition.get("id") == definition["id"]:
                    raise TalkingPortraitError("The workflow's subgraphs contain themselves; take one of them out.")
                outer = outer.outer
            self.inner[prefix] = self._counted(_level(prefix, definition, graph, node))
        return self.inner[prefix]

    def _counted(self, graph: _Graph) -> _Graph:
        """`graph`, while all that are unfolded together are not too many."""
        self.parts += len(graph.nodes) + len(graph.links)
        if self.parts > MAX_PARTS:
            raise TalkingPortraitError(
                f"The workflow has more than {MAX_PARTS} nodes and links with its subgraphs unfolded, more than are "
                "taken; run it in parts."
            )
        return graph

    def _inputs(self, graph: _Graph, node: Mapping[str, Any]) -> dict[str, Any]:
        info = self.node_info[node["type"]]
        values = widget_values(node, info)
        add_usual_values(info, values)
        prefix = values.get("filename_prefix")
        if node["type"] in NAMED_BY_PATTERN and isinstance(prefix, str):
            values["filename_prefix"] = filled_by_editor(prefix, self._widget, self.now)
        inputs = {name: {"__value__": value} if isinstance(value, list) else value for name, value in values.items()}
        for socket in node.get("inputs", []):
            if socket.get("link") is None:
                continue
            source = self._source(graph, socket)
            if isinstance(source, _Constant):
                inputs[socket["name"]] = source.value
            elif source is not None:
                inputs[socket["name"]] = list(source)
            elif "widget" not in socket:
                inputs.pop(socket["name"], None)
        return inputs

    def _widget(self, name: str, widget: str) -> Any:
        """A widget's value of the first node that has this name for searches, or else as its title."""
        graphs = (self.top.definition, *self.subgraphs.values())
        nodes = [node for graph in graphs for node in graph.get("nodes", [])]
        found = [node for node in nodes if (node.get("properties") or {}).get(_SEARCH_NAME) == name]
        node = (found or [node for node in nodes if node.get("title") == name])[0]
        if node["type"] == "PrimitiveNode":
            return {"value": (node.get("widgets_values") or [None])[0]}[widget]
        return widget_values(node, self.node_info.get(node["type"], {}))[widget]

    def _source(self, graph: _Graph, socket: Mapping[str, Any]) -> tuple[str, int] | _Constant | None:
        """What an input's link really brings: (node id, output), a constant, or None when that end is muted."""
        link, wanted = socket["link"], socket.get("type", "*")
        for _ in range(1000):
            if link not in graph.links:
                raise TalkingPortraitError(
                    f"The workflow has a link {one_line(link)} that leads nowhere; save it again in ComfyUI."
                )
            origin, slot, target, target_slot = graph.links[link]
            if origin == _SUBGRAPH_INPUT and graph.outer is not None:
                name = graph.definition["inputs"][slot]["name"]
                sockets = [entry for entry in graph.instance.get("inputs", []) if entry["name"] == name]
                if not sockets or sockets[0].get("link") is None:
                    return self._instance_widget(graph, name)
                link, wanted, graph = sockets[0]["link"], sockets[0].get("type", "*"), graph.outer
                continue
            node = graph.nodes[origin]
            mode = node.get("mode", 0)
            if mode == _MUTED:
                return None
            if mode == _BYPASSED or node["type"] in _PASS_ON:
                passed = _passed_through(node, slot, wanted)
                if passed is None or passed.get("link") is None:
                    return None
                link = passed["link"]
                if node["type"] not in _PASS_ON:
                    wanted = passed.get("type", "*")
                continue
            if node["type"] in _SETTER_OF:
                graph, link = self._set_link(graph, node)
                continue
            if node["type"] == "PrimitiveNode":
                return _Constant((node.get("widgets_values") or [None])[0])
            if node["type"] in self.subgraphs:
                graph = self._unfold(graph, node)
                output = graph.definition["outputs"][slot]
                inward = [key for key, ends in graph.links.items() if ends[2:] == (_SUBGRAPH_OUTPUT, slot)]
                if not inward:
                    raise TalkingPortraitError(
                        f"The subgraph output {one_line(output['name'])} is connected to nothing inside."
                    )
                link = inward[0]
                continue
            return graph.name(node), slot
        raise TalkingPortraitError(
            "The workflow's reroutes, Set and Get nodes or bypassed nodes form a circle; take one link out."
        )

    def _instance_widget(self, graph: _Graph, name: str) -> _Constant | None:
        """The value of an input of a subgraph which is a widget inside: of this use of it, or else of that widget.

        Which inputs are widgets, the definition says: the instance lists only those with links in newer front ends.
        Some older ones list values together with those of widgets that are shown and no inputs, which are null here.
        """
        values = graph.instance.get("widgets_values") or []
        shown = (graph.instance.get("properties") or {}).get("proxyWidgets") or []
        inside = {entry["name"]: _widgets_inside(graph, slot) for slot, entry in enumerate(graph.definition["inputs"])}
        names = [widget for node, widget in shown] if any(node == _OWN_INPUT for node, _ in shown) else []
        names = names or [name for name, sockets in inside.items() if sockets]
        at = names.index(name) if name in names else len(values)
        if at < len(values) and values[at] is not None:
            return _Constant(values[at])
        for node, widget in inside.get(name, []):
            if node["type"] in self.subgraphs:
                return self._instance_widget(self._unfold(graph, node), widget)
            stored = widget_values(node, self.node_info.get(node["type"], {}))
            return _Constant(stored[widget]) if widget in stored else None
        return None

    def _set_link(self, graph: _Graph, getter: Mapping[str, Any]) -> tuple[_Graph, int]:
        """The link into the Set node that a Get node stands for, and the graph that it is in.

        As in KJNodes, one beside the Get node comes first, then those in the graphs around it; whether the Set node is
        muted or bypassed makes no difference.
        """
        kind, name = _SETTER_OF[getter["type"]], _set_name(getter)
        found: list[tuple[_Graph, Mapping[str, Any]]] = []
        place: _Graph | None = graph
        while place is not None:
            found += [
                (place, node) for node in place.nodes.values() if node["type"] == kind and _set_name(node) == name
            ]
            place = None if found and place is graph else place.outer
        where = f"The workflow's Get node {graph.name(getter)} stands for {quoted(name)}"
        if name is None or not found:
            raise TalkingPortraitError(f"{where}, but no Set node has that name; choose another name in it.")
        if len(found) > 1:
            ids = " and ".join(level.name(node) for level, node in found)
            raise TalkingPortraitError(f"{where}, but the Set nodes {ids} have that name; rename all but one.")
        ((level, setter),) = found
        link = (setter.get("inputs") or [{}])[0].get("link")
        if link is None:
            raise TalkingPortraitError(
                f"{where}, but nothing is connected to the Set node {level.name(setter)}; connect something to it."
            )
        return level, link


def _level(
    prefix: str, source: Mapping[str, Any], outer: _Graph | None = None, instance: Mapping[str, Any] | None = None
) -> _Graph:
    links: dict[int, tuple[int, int, int, int]] = {}
    for link in source.get("links", []):
        if isinstance(link, dict):
            ends = (link["origin_id"], link["origin_slot"], link["target_id"], link["target_slot"])
            links[link["id"]] = ends
        elif link is not None:
            links[link[0]] = (link[1], link[2], link[3], link[4])
    ordered = sorted(source["nodes"], key=lambda node: node.get("order", 0))
    return _Graph(prefix, {node["id"]: node for node in ordered}, links, outer, instance or {}, source)


def _passed_through(node: Mapping[str, Any], slot: int, wanted: Any) -> Mapping[str, Any] | None:
    """The input whose value a node that is bypassed, or that only passes on, gives at an output.

    As in the editor, for an input of the type `wanted`: the one at the same position if it fits, or else the first that
    fits, those of just this type first.
    """
    inputs = node.get("inputs") or []
    if node["type"] in _PASS_ON:
        return next(iter(inputs), None)
    if wanted in ("*", ""):
        return next(iter([*inputs[slot : slot + 1], *inputs]), None)
    kind = node["outputs"][slot]["type"]
    fitting = [entry for entry in inputs if types_meet(entry.get("type"), kind) and types_meet(entry["type"], wanted)]
    if slot < len(inputs) and inputs[slot] in fitting:
        return inputs[slot]
    return next(iter([*(entry for entry in inputs if entry.get("type") == wanted), *fitting]), None)


def _set_name(node: Mapping[str, Any]) -> str | None:
    """The name that a Set or Get node carries in its one widget, None where it has none."""
    values = node.get("widgets_values") or [None]
    return (values.get("Constant") if isinstance(values, dict) else values[0]) or None


def _widgets_inside(graph: _Graph, slot: int) -> list[tuple[Mapping[str, Any], str]]:
    """The widgets that an input of a subgraph sets: nodes inside, or subgraphs in it that hand one out, and names."""
    ends = [ends[2:] for ends in graph.links.values() if ends[:2] == (_SUBGRAPH_INPUT, slot)]
    nodes = [(graph.nodes[target], place) for target, place in ends if target in graph.nodes]
    sockets = [(node, node.get("inputs", [])[place]) for node, place in nodes]
    return [(node, socket["name"]) for node, socket in sockets if "widget" in socket]
