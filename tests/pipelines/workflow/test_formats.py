"""Both workflow formats: conversion of the editor's format into the API format.

`workflows/wiring.json` was built in ComfyUI's front end with everything that makes the two differ (nested subgraphs
with promoted widgets, a reroute, a primitive, muted and bypassed nodes, notes, seeds with their control);
`wiring.api.json` is what that front end exports for it. tests/browser checks that it still does.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from talking_portrait.nodes.standalone.command import registry
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.workflow.check import describe
from talking_portrait.pipelines.workflow.formats import class_names, load_workflow, to_prompt
from talking_portrait.pipelines.workflow.widgets import widget_values

from ...core_nodes import core_nodes, for_newest, for_stand_ins

WORKFLOWS = Path(__file__).parent / "workflows"


@pytest.fixture(scope="module")
def wiring():
    return load_workflow(WORKFLOWS / "wiring.json")


@pytest.fixture(scope="module")
def info(wiring):
    return describe(registry(), class_names(wiring))


def test_the_editors_format_becomes_what_the_editor_sends(wiring, info):
    sent = json.loads((WORKFLOWS / "wiring.api.json").read_text())
    assert to_prompt(wiring, info) == for_stand_ins(sent, info)
    assert for_newest(to_prompt(wiring, {**info, **core_nodes()})) == for_newest(sent)


def test_a_choice_brings_widgets_of_its_own():
    values = ["name", "mp4", "h264", "re-encode", 18.0, "auto", "yuv420p"]
    found = widget_values({"widgets_values": values}, core_nodes()["SaveVideo"])
    names = ["filename_prefix", "format", "format.codec", "format.codec.encoding", "format.codec.encoding.crf"]
    assert [found[name] for name in names] == values[:5]
    named = {"filename_prefix": "a", "format": "auto", "format.codec": "auto", "unknown": "auto"}
    found = widget_values({"widgets_values": named}, core_nodes()["SaveVideo"])
    assert found == {"filename_prefix": "a", "format": "auto", "format.codec": "auto"}


def test_a_widget_of_a_type_that_only_its_host_has_keeps_its_place():
    curve = {"input": {"required": {"curve": ["CURVE", {"default": [[0, 0], [1, 1]]}], "b": ["INT", {"default": 1}]}}}
    assert widget_values({"widgets_values": [[[0, 1]], 4]}, curve) == {"curve": [[0, 1]], "b": 4}


def test_api_format_stays_as_it_is_and_is_not_shared(info):
    prompt = load_workflow(WORKFLOWS / "wiring.api.json")
    copied = to_prompt(prompt, info)
    assert copied == prompt
    copied["7"]["inputs"]["filename_prefix"] = "changed"
    assert prompt["7"]["inputs"]["filename_prefix"] == "video/wiring"


def test_all_classes_are_named_with_those_inside_subgraphs(wiring):
    names = class_names(wiring)
    assert {"TalkingPortraitEditMotion", "CreateVideo", "LoadImage", "MarkdownNote"} <= names
    assert not [name for name in names if "-" in name]


def test_an_unknown_node_is_named(wiring, info):
    without = {name: entry for name, entry in info.items() if name != "CreateVideo"}
    with pytest.raises(TalkingPortraitError, match="uses the node CreateVideo, which is not known here"):
        to_prompt(wiring, without)
    del without["SaveVideo"]
    words = (
        "nodes CreateVideo and SaveVideo, which the ComfyUI at http://a:1 does not have; install the pack that has them"
    )
    with pytest.raises(TalkingPortraitError, match=words):
        to_prompt(wiring, without, server="http://a:1")


def test_a_link_that_leads_nowhere_is_reported(wiring, info):
    broken = copy.deepcopy(wiring)
    broken["links"] = broken["links"][1:]
    with pytest.raises(TalkingPortraitError, match="a link .* that leads nowhere"):
        to_prompt(broken, info)


def test_damaged_json_is_reported(wiring, info):
    broken = copy.deepcopy(wiring)
    del broken["nodes"][0]["type"]
    with pytest.raises(TalkingPortraitError, match="JSON is damaged"):
        to_prompt(broken, info)


def test_a_subgraph_inside_itself_is_refused(wiring, info):
    looped = copy.deepcopy(wiring)
    first = looped["definitions"]["subgraphs"][0]
    first["nodes"].append({"id": 999, "type": first["id"], "inputs": [], "outputs": []})
    with pytest.raises(TalkingPortraitError, match="contain themselves"):
        to_prompt(looped, info)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is no JSON"),
        ("[1, 2]", "is JSON but no workflow"),
        ('{"a": 1}', "is JSON but no workflow"),
        ('{"1": {"inputs": {}}}', "is JSON but no workflow"),
    ],
)
def test_a_file_that_is_no_workflow_is_reported(tmp_path, content, words):
    file = tmp_path / "flow.json"
    file.write_text(content)
    with pytest.raises(TalkingPortraitError, match=words):
        load_workflow(file)
    with pytest.raises(TalkingPortraitError, match="can't be read"):
        load_workflow(tmp_path / "none.json")


def test_a_saved_request_holds_its_prompt(tmp_path):
    file = tmp_path / "request.json"
    file.write_text(json.dumps({"client_id": "x", "prompt": {"1": {"class_type": "Note", "inputs": {}}}}))
    assert load_workflow(file) == {"1": {"class_type": "Note", "inputs": {}}}


def test_widget_values_by_position_skip_what_the_editor_adds(toy_info):
    node = {"widgets_values": [4, 5, "randomize", "fancy", True]}
    expected = {"value": 4, "seed": 5, "kind": "fancy", "negative": True}
    assert widget_values(node, toy_info["Number"]) == expected
    assert widget_values({"widgets_values": expected}, toy_info["Number"]) == expected
    assert widget_values({"widgets_values": [4]}, toy_info["Number"]) == {"value": 4}
    assert widget_values({"widgets_values": [8]}, toy_info["Add"]) == {"b": 8}
    combo = {"input": {"required": {"choice": ["COMBO", {"options": []}]}}}
    shown = {"choice": "b", "index": 1, "option1": "a", "option2": "b"}
    stored = {"widgets_values": list(shown.values()), "widgets_values_named": shown}
    assert widget_values(stored, combo) == shown, "Custom Combo's, of which the server describes one"
    stored = {"widgets_values": ["a.png", "image"], "widgets_values_named": {"image": "a.png", "upload": "image"}}
    assert widget_values(stored, {"input": {"required": {"image": ["COMBO", {}]}}}) == {"image": "a.png"}


# --- nodes that only the editor has ---


def graph(nodes: list[dict], links: list[list], subgraphs: list[dict] | None = None) -> dict:
    """A workflow in the editor's format; links are [id, from, output, to, input]."""
    for node in nodes:
        for link, _, _, target, place in (entry[:5] for entry in links):
            if target == node["id"]:
                sockets = node.setdefault("inputs", [])
                sockets += [{"name": "a", "type": "INT", "link": None} for _ in range(place + 1 - len(sockets))]
                sockets[place]["link"] = link
    return {"nodes": nodes, "links": [[*link, "INT"] for link in links], "definitions": {"subgraphs": subgraphs or []}}


def node(number: int, kind: str, *values: object, **more: object) -> dict:
    return {"id": number, "type": kind, "widgets_values": list(values), "outputs": [{"type": "*"}], **more}


def given_to(workflow: dict, info: dict, name: str = "9") -> object:
    """What the node Add of that id gets for its input "a"."""
    return to_prompt(workflow, info)[name]["inputs"].get("a")


NUMBER = node(1, "Number", 3)


def through(*between: dict, links: list[list]) -> dict:
    """A Number, node 1, and Add, node 9, with other nodes beside them."""
    return graph(copy.deepcopy([NUMBER, *between, node(9, "Add")]), links)


@pytest.mark.parametrize(
    "workflow",
    [
        through(node(2, "SetNode", "x"), node(3, "GetNode", "x"), links=[[1, 1, 0, 2, 0], [2, 3, 0, 9, 0]]),
        through(node(2, "easy setNode", "x"), node(3, "easy getNode", "x"), links=[[1, 1, 0, 2, 0], [2, 3, 0, 9, 0]]),
        through(node(2, "SetNode", "x"), links=[[1, 1, 0, 2, 0], [2, 2, 0, 9, 0]]),
        through(node(2, "SetNode", "x", mode=4), links=[[1, 1, 0, 2, 0], [2, 2, 0, 9, 0]]),
        through(node(2, "SetNode", "x", mode=2), node(3, "GetNode", "x"), links=[[1, 1, 0, 2, 0], [2, 3, 0, 9, 0]]),
        through(node(2, "SetNode", "x", mode=4), node(3, "GetNode", "x"), links=[[1, 1, 0, 2, 0], [2, 3, 0, 9, 0]]),
        through(node(2, "Reroute (rgthree)"), links=[[1, 1, 0, 2, 0], [2, 2, 0, 9, 0]]),
        through(
            node(2, "SetNode", "x"),
            node(3, "GetNode", "x"),
            node(4, "SetNode", "y"),
            node(5, "GetNode", "y"),
            node(6, "Reroute"),
            links=[[1, 1, 0, 2, 0], [2, 3, 0, 4, 0], [3, 5, 0, 6, 0], [4, 6, 0, 9, 0]],
        ),
        through(
            node(2, "SetNode", "x"),
            node(3, "GetNode", "x"),
            node(4, "GetNode", "x"),
            node(5, "Add"),
            node(6, "GetNode", "nobody asks for it"),
            links=[[1, 1, 0, 2, 0], [2, 3, 0, 9, 0], [3, 4, 0, 5, 0]],
        ),
        through(
            node(2, "Fast Muter (rgthree)"),
            node(3, "Mute / Bypass Repeater (rgthree)"),
            links=[[1, 1, 0, 9, 0], [2, 1, 0, 2, 0], [3, 2, 0, 3, 0]],
        ),
    ],
)
def test_nodes_that_only_pass_on_are_dissolved(toy_info, workflow):
    assert given_to(workflow, toy_info) == ["1", 0]
    assert {entry["class_type"] for entry in to_prompt(workflow, toy_info).values()} == {"Number", "Add"}


@pytest.mark.parametrize(
    ("wanted", "slot", "passed"),
    [("IMAGE", 0, "picture"), ("MASK", 1, "mask"), ("AUDIO", 1, None), ("*", 1, "mask")],
)
def test_a_bypassed_node_passes_on_what_fits_as_the_editor_has_it(toy_info, wanted, slot, passed):
    """As front end 1.49 converts it: several types in one socket, and for one that takes all the same position."""
    sockets = [("a", "IMAGE,MASK", 1), ("b", "MASK", 2)]
    inputs = [{"name": name, "type": kind, "link": link} for name, kind, link in sockets]
    between = {**node(3, "Scale", mode=4, inputs=inputs), "outputs": [{"type": "IMAGE"}, {"type": "MASK,AUDIO"}]}
    target = node(9, "Add", inputs=[{"name": "a", "type": wanted, "link": 3}])
    links = [[1, 1, 0, 3, 0, "*"], [2, 2, 0, 3, 1, "*"], [3, 3, slot, 9, 0, "*"]]
    workflow = {"nodes": [node(1, "Number", 3), node(2, "Number", 4), between, target], "links": links}
    expected = {"picture": ["1", 0], "mask": ["2", 0], None: None}[passed]
    assert given_to(workflow, toy_info) == expected


def test_a_set_node_passes_on_a_primitive_and_nothing_from_a_muted_node(toy_info):
    links = [[1, 1, 0, 2, 0], [2, 3, 0, 9, 0]]
    pair = [node(2, "SetNode", "x"), node(3, "GetNode", "x")]
    primitive = through(*pair, links=links)
    primitive["nodes"][0]["type"] = "PrimitiveNode"
    assert given_to(primitive, toy_info) == 3
    muted = through(*pair, links=links)
    muted["nodes"][0]["mode"] = 2
    assert given_to(muted, toy_info) is None
    silent = through(pair[0], {**pair[1], "mode": 2}, links=links)
    assert given_to(silent, toy_info) is None


def in_subgraph(outside: list[dict], links: list[list], inside: list[dict], inner_links: list[list]) -> dict:
    """A subgraph as node 7 with one input and one output."""
    inner = graph(copy.deepcopy(inside), inner_links)
    definition = {
        "id": "sub",
        "inputs": [{"name": "in"}],
        "outputs": [{"name": "out"}],
        "nodes": inner["nodes"],
        "links": [
            {"id": key, "origin_id": a, "origin_slot": b, "target_id": c, "target_slot": d}
            for key, a, b, c, d in (link[:5] for link in inner["links"])
        ],
    }
    return graph(copy.deepcopy([*outside, node(7, "sub")]), links, [definition])


def test_a_get_node_searches_its_own_graph_first_and_then_those_around_it(toy_info):
    get = [node(3, "GetNode", "x"), node(5, "Add")]
    fed = [[1, 3, 0, 5, 0]]
    outer = in_subgraph([NUMBER, node(2, "SetNode", "x")], [[1, 1, 0, 2, 0]], get, fed)
    assert given_to(outer, toy_info, "7:5") == ["1", 0]
    both = in_subgraph(
        [NUMBER, node(2, "SetNode", "x")],
        [[1, 1, 0, 2, 0]],
        [*get, node(6, "Number", 4), node(8, "SetNode", "x")],
        [*fed, [2, 6, 0, 8, 0]],
    )
    assert given_to(both, toy_info, "7:5") == ["7:6", 0]
    handed_out = in_subgraph(
        [NUMBER, node(2, "SetNode", "x"), node(9, "Add")],
        [[1, 1, 0, 2, 0], [2, 7, 0, 9, 0]],
        [node(3, "GetNode", "x")],
        [[1, 3, 0, -20, 0]],
    )
    assert given_to(handed_out, toy_info) == ["1", 0]
    within = in_subgraph([node(3, "GetNode", "x"), node(9, "Add")], [[1, 3, 0, 9, 0]], [node(2, "SetNode", "x")], [])
    with pytest.raises(TalkingPortraitError, match="no Set node has that name"):
        to_prompt(within, toy_info)


@pytest.mark.parametrize(
    ("workflow", "words"),
    [
        (
            through(node(2, "SetNode", "y"), node(3, "GetNode", "x"), links=[[1, 1, 0, 2, 0], [2, 3, 0, 9, 0]]),
            "Get node 3 stands for 'x', but no Set node has that name",
        ),
        (through(node(3, "GetNode", ""), node(2, "SetNode", ""), links=[[2, 3, 0, 9, 0]]), "no Set node has that name"),
        (through(node(3, "GetNode"), links=[[2, 3, 0, 9, 0]]), "stands for None, but no Set node has that name"),
        (
            through(node(2, "SetNode", "x"), node(3, "GetNode", "x"), links=[[2, 3, 0, 9, 0]]),
            "nothing is connected to the Set node 2",
        ),
        (
            through(
                node(2, "SetNode", "x"),
                node(4, "SetNode", "x"),
                node(3, "GetNode", "x"),
                links=[[1, 1, 0, 2, 0], [3, 1, 0, 4, 0], [2, 3, 0, 9, 0]],
            ),
            "the Set nodes 2 and 4 have that name; rename all but one",
        ),
        (
            through(
                node(2, "SetNode", "x"),
                node(3, "GetNode", "y"),
                node(4, "SetNode", "y"),
                node(5, "GetNode", "x"),
                links=[[1, 3, 0, 2, 0], [2, 5, 0, 4, 0], [3, 5, 0, 9, 0]],
            ),
            "form a circle",
        ),
    ],
)
def test_a_get_node_without_its_set_node_is_reported_in_a_sentence(toy_info, workflow, words):
    with pytest.raises(TalkingPortraitError) as refused:
        to_prompt(workflow, toy_info)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["Label (rgthree)", "Fast Groups Bypasser (rgthree)", "Note Plus (mtb)", "SaveVidoe"])
def test_an_unknown_node_that_nothing_is_connected_to_is_left_out_and_named(toy_info, kind):
    messages = []
    workflow = through(node(2, kind, "text"), node(3, "MarkdownNote", "text"), links=[[1, 1, 0, 9, 0]])
    assert list(to_prompt(workflow, toy_info, messages.append)) == ["1", "9"]
    assert messages == [f"Left out, as nothing is connected to it and it is not known here: {kind} (node 2)"]
    messages.clear()
    switched = through(
        node(2, kind), node(3, "Mute / Bypass Relay (rgthree)"), links=[[1, 1, 0, 9, 0], [2, 2, 0, 3, 0]]
    )
    assert list(to_prompt(switched, toy_info, messages.append)) == ["1", "9"]
    assert f"{kind} (node 2)" in messages[0]
    inside = in_subgraph([NUMBER], [], [node(4, kind), node(5, "Add")], [])
    messages.clear()
    assert list(to_prompt(inside, toy_info, messages.append)) == ["1", "7:5"]
    assert f"{kind} (node 7:4)" in messages[0]


@pytest.mark.parametrize("links", [[[1, 1, 0, 2, 0]], [[1, 2, 0, 9, 0]]])
def test_an_unknown_node_that_is_connected_is_refused(toy_info, links):
    with pytest.raises(TalkingPortraitError, match="uses the node Unknown, which is not known here; run the workflow"):
        to_prompt(through(node(2, "Unknown"), links=links), toy_info)
    inside = in_subgraph([NUMBER, node(9, "Add")], [[1, 7, 0, 9, 0]], [node(4, "Unknown")], [[1, 4, 0, -20, 0]])
    with pytest.raises(TalkingPortraitError, match="uses the node Unknown, which is not known here"):
        to_prompt(inside, toy_info)
    with pytest.raises(TalkingPortraitError, match="uses the group node mine, .* convert it to a subgraph"):
        to_prompt(through(node(2, "workflow>mine"), links=links), toy_info)


def test_a_node_that_the_host_has_is_not_left_out(toy_info):
    """A node that the host has stays in, connected or not, as the editor would send it."""
    workflow = through(node(2, "Add"), links=[[1, 1, 0, 9, 0]])
    assert list(to_prompt(workflow, toy_info)) == ["1", "2", "9"]


def used_subgraph(values: list, shown: list, targets: list[dict]) -> dict:
    """Node 7, a subgraph whose inputs b and a set widgets of the nodes `targets` inside, 3 and 4, and whose input c is
    a plain socket; only c is listed among the inputs of its use, as newer front ends do."""
    inner = [{"inputs": [{"name": "value", "widget": {}, "link": at}], **target} for at, target in enumerate(targets)]
    links = [{"id": at, "origin_id": -10, "target_slot": 0, **ends} for at, ends in enumerate(
        [{"origin_slot": 0, "target_id": 3}, {"origin_slot": 2, "target_id": 4}]
    )]  # fmt: skip
    links.append({"id": 9, "origin_id": -10, "origin_slot": 0, "target_id": 5, "target_slot": 0})
    plain = {**node(5, "Add"), "inputs": [{"name": "a", "type": "INT", "link": 9}]}
    names = [{"name": name} for name in "bca"]
    definition = {"id": "sub", "inputs": names, "outputs": [], "nodes": [*inner, plain], "links": links}
    use = node(7, "sub", *values, inputs=[{"name": "c", "link": None}], properties={"proxyWidgets": shown})
    return graph([use], [], [definition])


@pytest.mark.parametrize(
    ("values", "shown", "expected"),
    [
        ([5, 6], [], (5, 6, 5)),
        ([5], [], (5, 2, 5)),
        ([], [["3", "value"], ["4", "value"]], (1, 2, 1)),
        ([6, None, 5], [["-1", "a"], ["3", "seed"], ["-1", "b"]], (5, 6, 5)),
        ([6, None], [["-1", "a"], ["-1", "b"]], (1, 6, 1)),
    ],
)
def test_a_use_of_a_subgraph_sets_widgets_inside_as_front_ends_save_it(toy_info, values, shown, expected):
    prompt = to_prompt(used_subgraph(values, shown, [node(3, "Number", 1), node(4, "Number", 2)]), toy_info)
    assert (prompt["7:3"]["inputs"]["value"], prompt["7:4"]["inputs"]["value"]) == expected[:2]
    assert prompt["7:5"]["inputs"]["a"] == expected[2], "a plain socket takes the widget's value too"


def test_widgets_that_a_node_has_got_since_have_their_usual_values(toy_info):
    inputs = to_prompt(graph([node(3, "Number", 4)], []), toy_info)["3"]["inputs"]
    assert inputs == {"value": 4, "seed": 0, "kind": "plain", "negative": False}
    modes = [{"key": "on", "inputs": {"required": {"seed": ["INT", {}], "rate": ["FLOAT", {}]}}}, {"key": "off"}]
    required = {
        "mode": ["COMFY_DYNAMICCOMBO_V3", {"options": modes}],
        "view": ["IMAGECOMPARE", {"socketless": True}],
        "deep": ["BOOLEAN", {"default": True}],
    }
    info = {"New": {"input": {"required": required}}}
    inputs = to_prompt(graph([node(3, "New", "on", 7)], []), info)["3"]["inputs"]
    assert inputs == {"mode": "on", "mode.seed": 7, "mode.rate": 0.0, "view": "", "deep": True}
    # The editor adds its own value to a seed of the node, and not to one that a choice brings.
    inputs = to_prompt(graph([node(3, "New", "on", 7, 0.5, "x", False)], []), info)["3"]["inputs"]
    assert inputs == {"mode": "on", "mode.seed": 7, "mode.rate": 0.5, "view": "x", "deep": False}
    assert to_prompt(graph([node(3, "New")], []), info)["3"]["inputs"]["mode.seed"] == 0
