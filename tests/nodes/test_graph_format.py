"""Both workflow formats: what the editor saves becomes what it would send.

`workflows/wiring.json` was built in ComfyUI's front end with everything that makes the two differ (nested subgraphs
with promoted widgets, a reroute, a primitive, muted and bypassed nodes, notes, seeds with their control);
`wiring.api.json` is what that front end exports for it. tests/browser checks that it still does.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from talking_portrait.nodes.cli import registry
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.graph_check import describe
from talking_portrait.pipelines.graph_format import class_names, load_workflow, to_prompt, widget_values

WORKFLOWS = Path(__file__).parent / "workflows"


@pytest.fixture(scope="module")
def wiring():
    return load_workflow(WORKFLOWS / "wiring.json")


@pytest.fixture(scope="module")
def info(wiring):
    return describe(registry(), class_names(wiring))


def test_the_editors_format_becomes_what_the_editor_sends(wiring, info):
    assert to_prompt(wiring, info) == json.loads((WORKFLOWS / "wiring.api.json").read_text())


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


def test_a_link_that_leads_nowhere_is_told(wiring, info):
    broken = copy.deepcopy(wiring)
    broken["links"] = broken["links"][1:]
    with pytest.raises(TalkingPortraitError, match="a link .* that leads nowhere"):
        to_prompt(broken, info)


def test_damaged_json_is_told(wiring, info):
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
def test_a_file_that_is_no_workflow_is_told(tmp_path, content, words):
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
