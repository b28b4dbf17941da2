"""Where ComfyUI's front end draws the nodes and wires of a workflow, as far as one can tell from its file.

LiteGraph draws a node's title above its position, a row for each socket and widget below, and wires as cubic curves.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from talking_portrait.pipelines.workflow.widgets import is_widget

TITLE, ROW, WIDGET_ROW, BORDER = 30, 20, 24, 14
TEXT = 54
"""A text field of several lines."""
SHOWN_MEDIA = {"LoadAudio": 78, "LoadImage": 248, "PreviewAudio": 62, "PreviewImage": 224}
"""Buttons to upload, players, and the picture that is shown, in Preview Image once it has run."""
PREVIEW = 220
PREVIEWED = {
    "TalkingPortraitAniPortraitSampler",
    "TalkingPortraitAniTalkerMotion",
    "TalkingPortraitAniTalkerRender",
    "TalkingPortraitAPascoSampler",
    "TalkingPortraitDetectLandmarks",
    "TalkingPortraitEvaluateVideo",
    "TalkingPortraitInstantRender",
    "TalkingPortraitPreviewMotion",
    "TalkingPortraitRestoreFaces",
}
"""Nodes that show a picture once they run, for which they grow downwards."""
NOTE_WIDTH = 560
"""Of 100 letters, and of the longest command in a note."""
LETTER = 6
"""Mean width of a letter of a widget's text."""
Node = dict[str, Any]
Box = tuple[float, float, float, float]


def box_of(node: Node) -> Box:
    """Left, top, right, bottom, title included."""
    (x, y), (width, height) = node["pos"][:2], node["size"][:2]
    return x, y - TITLE, x + width, y + height


def with_border(box: Box) -> Box:
    """A box and what the front end draws around it: the red border and the bar below a node with an error."""
    return box[0] - 12, box[1] - 12, box[2] + 12, box[3] + 36


def once_it_runs(node: Node) -> Box:
    """The box of a node with the picture that it shows once it runs."""
    left, top, right, bottom = box_of(node)
    return left, top, right, bottom + (PREVIEW if node["type"] in PREVIEWED else 0)


def minimum_height(described: dict[str, Any], *, show_advanced: bool = False) -> float:
    """What a node's sockets and widgets need in either rendering, from its description in /object_info.

    LiteGraph shows all widgets. The newer rendering has higher rows, texts above all, and hides advanced inputs unless
    `show_advanced`; it adds the name of the pack and a row to show those inputs.
    """
    entries = {
        name: spec for part in ("required", "optional") for name, spec in described["input"].get(part, {}).items()
    }
    options = {name: spec[1] if len(spec) > 1 else {} for name, spec in entries.items()}
    widgets = [name for name, spec in entries.items() if is_widget(spec[0], options[name])]
    sockets = max(len(entries) - len(widgets), len(described["output"])) * ROW
    heights = {name: TEXT if options[name].get("multiline") else WIDGET_ROW for name in widgets}
    classic = sum(heights.values()) + (BORDER if widgets else 6)
    classic += sum(WIDGET_ROW for name in widgets if options[name].get("control_after_generate"))
    shown = [name for name in widgets if show_advanced or not options[name].get("advanced")]
    newer = sum(heights[name] + (16 if entries[name][0] == "STRING" else 4) for name in shown) + BORDER
    newer += WIDGET_ROW + 4 if any(option.get("advanced") for option in options.values()) else 0
    newer += WIDGET_ROW if described["name"].startswith("TalkingPortrait") else 0
    return sockets + max(classic, newer) + SHOWN_MEDIA.get(described["name"], 0)


def minimum_width(node: Node) -> float:
    """What the longest of a node's file names and texts needs, beside its widget's name."""
    texts = [(name, str(value)) for name, value in (node.get("widgets_values_named") or {}).items()]
    one_line = [(name, value) for name, value in texts if "\n" not in value]
    beside = [LETTER * (len(name) + len(value)) + 80 for name, value in one_line]
    return max([200, *beside, *(LETTER * len(value) / 0.63 + 80 for _, value in one_line)])


def note_height(text: str) -> float:
    """Where a note's text ends in the newer rendering, which has the larger lines, when the note is NOTE_WIDTH wide."""
    height = 0.0
    for part in re.split(r"\n\n+", text):
        if part.startswith("#"):
            height += 71
        elif part.startswith("```"):
            height += 54 + 15.6 * (part.count("\n") - 1)
        else:
            plain = re.sub(r"[*`]", "", part).split("\n")
            height += sum(2 + 15.5 * math.ceil(len(line) / 100) for line in plain)
    return height


def overlap(first: Box, second: Box) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def input_place(node: Node, index: int) -> tuple[float, float]:
    """Where a wire ends: at a socket's row, or at the row of the widget that it feeds."""
    inputs = node["inputs"]
    sockets = [entry for entry in inputs if "widget" not in entry]
    (x, y), wanted = node["pos"][:2], inputs[index]
    if "widget" not in wanted:
        return x, y + (sockets.index(wanted) + 0.7) * ROW
    widgets = [entry for entry in inputs if "widget" in entry]
    rows = max(len(sockets), len(node.get("outputs") or []))
    return x, y + rows * ROW + 6 + (widgets.index(wanted) + 0.5) * WIDGET_ROW


def output_place(node: Node, index: int) -> tuple[float, float]:
    return node["pos"][0] + node["size"][0], node["pos"][1] + (index + 0.7) * ROW


def graphs(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    """The workflow, and each of its subgraphs in the same form, whose two ends are the nodes -10 and -20."""
    found = [workflow]
    for graph in workflow.get("definitions", {}).get("subgraphs", []):
        ends = []
        for end, left, right in ("inputNode", 0, 25), ("outputNode", 24, 0):
            x, y, width, height = graph[end]["bounding"]
            ends.append({"pos": [x + left, y + 10], "size": [width - left - right, height], "type": end})
        ends[0] |= {"id": -10, "inputs": [], "outputs": graph["inputs"]}
        ends[1] |= {"id": -20, "inputs": graph["outputs"], "outputs": []}
        columns = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
        links = [[link[column] for column in columns] for link in graph["links"]]
        found.append({"nodes": [*graph["nodes"], *ends], "links": links})
    return found


def curve(start: tuple[float, float], end: tuple[float, float], points: int = 33) -> np.ndarray:
    """(points, 2) along the wire."""
    a, d = np.array(start, float), np.array(end, float)
    reach = np.array([0.25 * float(np.linalg.norm(d - a)), 0.0])
    b, c, t = a + reach, d - reach, np.linspace(0, 1, points)[:, None]
    return (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d


def wires(workflow: dict[str, Any]) -> Iterator[tuple[int, int, np.ndarray]]:
    """From node, to node, and the curve of each wire."""
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for _, source, output, target, entry, _ in workflow["links"]:
        yield source, target, curve(output_place(nodes[source], output), input_place(nodes[target], entry))


def passes(points: np.ndarray, box: Box) -> bool:
    """Whether a curve runs through a box."""
    x, y = points[:, 0], points[:, 1]
    return bool(((x > box[0]) & (x < box[2]) & (y > box[1]) & (y < box[3])).any())
