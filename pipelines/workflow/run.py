"""Runs a workflow without ComfyUI: each needed node once, in order of need, lazy inputs only when they are requested.

The node classes are an argument, as pipelines do not import nodes; they follow ComfyUI's V3 API.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from ..errors import TalkingPortraitError, one_line, quoted
from .check import Registry, check_graph, describe, is_link, output_nodes
from .formats import NodeInfo, Prompt, class_names


@dataclass(frozen=True)
class GraphResult:
    """What a run gave: `ui` by output node, as ComfyUI's history holds it; `executed` node ids in order."""

    ui: dict[str, dict[str, Any]] = field(default_factory=dict)
    executed: list[str] = field(default_factory=list)


class NodeFailedError(TalkingPortraitError):
    """A node stopped with an error; `node` is its id, the cause is chained."""

    def __init__(self, node: str, title: str, error: BaseException) -> None:
        self.node = node
        text = (
            str(error) if isinstance(error, TalkingPortraitError) else one_line(f"{type(error).__name__}: {error}", 500)
        )
        super().__init__(text if text.startswith(title) else f"{title}: {text}")


def run_graph(
    prompt: Prompt,
    nodes: Registry,
    *,
    around: Callable[[str, str], AbstractContextManager[Any]] = lambda node, title: nullcontext(),
) -> GraphResult:
    """Checks and runs a graph in API format.

    `nodes` maps class names to node classes; `around(node id, title)` is entered around each node's execution, which
    is where a caller hangs its progress display. Raises GraphRefusedError before anything runs when the graph is not
    fit to, NodeFailedError when a node raises an ordinary error; KeyboardInterrupt passes.
    """
    checked = check_graph(prompt, nodes)
    info = describe(nodes, class_names(checked))
    run = _Run(checked, nodes, info, around)
    for node in output_nodes(checked, info):
        run.evaluate(node)
    return run.result


class _Run:
    def __init__(
        self,
        prompt: Prompt,
        nodes: Registry,
        info: NodeInfo,
        around: Callable[[str, str], AbstractContextManager[Any]],
    ) -> None:
        self.prompt, self.nodes, self.info, self.around = prompt, nodes, info, around
        self.values: dict[str, tuple[Any, ...]] = {}
        self.result = GraphResult()

    def evaluate(self, target: str) -> None:
        """Runs what `target` needs and then `target`, each at most once; a stack of its own, not Python's."""
        stack = [target]
        while stack:
            node = stack[-1]
            if node in self.values:
                stack.pop()
                continue
            missing = self._missing(node)
            if missing:
                stack.extend(missing)
                continue
            self._execute(node)
            stack.pop()

    def _missing(self, node: str) -> list[str]:
        """Nodes that have to run before `node` can; a lazy input counts once the node's class requires it."""
        inputs = self.prompt[node]["inputs"]
        sections = self.info[self.prompt[node]["class_type"]]["input"]
        options = {name: spec[1] for entries in sections.values() for name, spec in entries.items() if len(spec) > 1}
        links = {name: value[0] for name, value in inputs.items() if is_link(value)}
        lazy = {name for name in links if options.get(name, {}).get("lazy")}
        missing = [source for name, source in links.items() if name not in lazy and source not in self.values]
        if missing or not lazy:
            return missing
        try:
            requested = self._class(node).check_lazy_status(**self._arguments(node))
        except Exception as error:
            raise NodeFailedError(node, self._title(node), error) from error
        return [links[name] for name in requested or () if name in links and links[name] not in self.values]

    def _arguments(self, node: str) -> dict[str, Any]:
        """Input values; a lazy one that was not requested is None."""
        values = {}
        for name, value in self.prompt[node]["inputs"].items():
            if is_link(value):
                source, slot = value
                values[name] = self.values[source][slot] if source in self.values else None
            else:
                values[name] = value
        return values

    def _execute(self, node: str) -> None:
        title = self._title(node)
        try:
            with self.around(node, title):
                output = self._with_hidden(node).execute(**self._arguments(node))
        except Exception as error:
            raise NodeFailedError(node, title, error) from error
        self.values[node] = tuple(output.args)
        self.result.executed.append(node)
        if output.ui:
            self.result.ui[node] = output.ui

    def _class(self, node: str) -> Any:
        return self.nodes[self.prompt[node]["class_type"]]

    def _with_hidden(self, node: str) -> Any:
        """The class, with what it asks for beside its inputs."""
        wanted = self.info[self.prompt[node]["class_type"]]["input"].get("hidden")
        return self._class(node).with_hidden(unique_id=node, prompt=self.prompt) if wanted else self._class(node)

    def _title(self, node: str) -> str:
        entry = self.prompt[node]
        named = entry.get("_meta", {}).get("title") or self.info[entry["class_type"]].get("display_name")
        return one_line(named or entry["class_type"])


def set_input(prompt: Prompt, assignment: str, info: NodeInfo) -> tuple[str, str]:
    """Carries out "NODE.INPUT=VALUE" on a prompt and returns (node id, input name).

    NODE is an id, or a title, display name or class name that only one node has. VALUE is read as JSON for numbers and
    switches, and as it stands for text and names. Raises TalkingPortraitError, naming what there is, when nothing fits.
    """
    target, equals, text = assignment.partition("=")
    wanted, dot, name = target.rpartition(".")
    if not equals or not dot:
        raise TalkingPortraitError(f"--set got {quoted(assignment)}, but NODE.INPUT=VALUE is expected, as in 3.seed=7.")
    node = _find_node(prompt, wanted, info)
    kind = prompt[node]["class_type"]
    sections = info.get(kind, {}).get("input", {})
    specs = {key: spec for section in ("required", "optional") for key, spec in sections.get(section, {}).items()}
    if kind in info and name not in specs:
        there = f"it has: {', '.join(specs)}" if specs else "it has none at all"
        raise TalkingPortraitError(f"Node {node} ({kind}) has no input {quoted(name)}; {there}.")
    socket = specs[name][0] if name in specs else None
    prompt[node]["inputs"][name] = text if socket in ("STRING", "COMBO") or isinstance(socket, list) else _parsed(text)
    return node, name


def _find_node(prompt: Prompt, wanted: str, info: NodeInfo) -> str:
    if wanted in prompt:
        return wanted

    def names(entry: dict[str, Any]) -> tuple[Any, ...]:
        kind = entry.get("class_type")
        return entry.get("_meta", {}).get("title"), kind, info.get(str(kind), {}).get("display_name")

    found = [node for node, entry in prompt.items() if wanted in names(entry)]
    if len(found) == 1:
        return found[0]
    listed = one_line(", ".join(f"{node} ({entry.get('class_type')})" for node, entry in prompt.items()), 1000)
    problem = f"{len(found)} nodes are called {quoted(wanted)}" if found else f"no node is called {quoted(wanted)}"
    raise TalkingPortraitError(f"--set: {problem}; name one of these by its id: {listed}.")


def _parsed(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (int, float, bool, str)) else text
