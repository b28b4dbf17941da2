"""Where ComfyUI's front end draws the nodes and wires of a workflow, as far as one can tell from its file.

LiteGraph draws a node's title above its position, a row for each socket and widget below, and wires as cubic curves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

TITLE, ROW, WIDGET_ROW = 30, 20, 24
Node = dict[str, Any]
Box = tuple[float, float, float, float]


def box_of(node: Node) -> Box:
    """Left, top, right, bottom, title included."""
    (x, y), (width, height) = node["pos"][:2], node["size"][:2]
    return x, y - TITLE, x + width, y + height


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
