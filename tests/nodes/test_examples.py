"""The example workflows on disk: complete, in both formats, with nothing that a user lacks. See also tests/browser."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from talking_portrait.nodes.standalone.command import registry
from talking_portrait.pipelines.model_files.store import list_files
from talking_portrait.pipelines.workflow.check import check_graph, describe
from talking_portrait.pipelines.workflow.formats import class_names, to_prompt

from ..core_nodes import core_nodes, for_newest, for_stand_ins

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "example_workflows").glob("*.json"))
BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))
MODELS = {"TalkingPortraitSeparateVocals": "kim_vocal_2"}
WITHOUT_USE_YET = {"TalkingPortraitSpeechMFCC", "TalkingPortraitFrameInterpolation"}
"""The first is for systems not here yet, or that work better with HuBERT; the other needs a newer ComfyUI's node."""


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_there_are_examples_for_each_way():
    assert {path.stem for path in EXAMPLES} >= {"instant", "reenact", "preview_motion", "vocals"}
    assert BLUEPRINTS


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_has_its_picture_and_its_twin(path):
    thumbnail = path.with_suffix(".jpg").read_bytes()
    assert thumbnail[:3] == b"\xff\xd8\xff"
    assert len(thumbnail) < 200_000
    workflow = read(path)
    info = describe(registry(), class_names(workflow))
    twin = read(path.parent / "api" / path.name)
    assert to_prompt(workflow, info) == for_stand_ins(twin, info)
    assert for_newest(to_prompt(workflow, {**info, **core_nodes()})) == for_newest(twin)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_fit_to_run(path, monkeypatch):
    from talking_portrait.nodes.standalone import core_nodes as core_stand_ins

    monkeypatch.setattr(core_stand_ins, "_file_is_there", lambda name: True)
    prompt = read(path.parent / "api" / path.name)
    assert set(check_graph(prompt, registry())) == set(prompt), "every node is needed by an output"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_has_a_note_and_names_its_models(path):
    nodes = read(path)["nodes"]
    assert any(node["type"] == "MarkdownNote" for node in nodes)
    files = {model.file: model for model in list_files()}
    for node in nodes:
        chosen = [files[value] for value in node.get("widgets_values") or [] if value in files]
        models = list_files(MODELS[node["type"]]) if node["type"] in MODELS else chosen
        entries = [{"name": model.file, "url": model.url, "directory": model.folder} for model in models]
        assert node["properties"].get("models", []) == entries
        for value in node.get("widgets_values") or []:
            assert value not in ("randomize", "increment", "decrement"), "an example repeats itself"


def test_only_examples_driven_by_a_video_need_a_file():
    for path in EXAMPLES:
        kinds = class_names(read(path))
        assert bool(kinds & {"LoadImage", "LoadAudio", "LoadVideo"}) == (
            path.stem in {"a_your_picture_and_voice", "reenact", "anitalker_video", "aniportrait_video"}
        )


def test_the_first_example_in_the_list_takes_the_users_own_picture_and_voice():
    first = read(EXAMPLES[0])
    assert {"LoadImage", "LoadAudio"} <= class_names(first)
    assert not any(node["properties"].get("models") for node in first["nodes"]), "nothing is to be downloaded"


def test_every_node_is_shown_in_an_example():
    shown = set().union(*(class_names(read(path)) for path in (*EXAMPLES, *BLUEPRINTS)))
    ours = {name for name in registry() if name.startswith("TalkingPortrait")}
    assert ours - shown == WITHOUT_USE_YET


@pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)
def test_a_blueprint_is_one_node_around_known_ones(path):
    blueprint = read(path)
    (node,) = blueprint["nodes"]
    (subgraph,) = blueprint["definitions"]["subgraphs"]
    assert node["type"] == subgraph["id"]
    assert subgraph["name"] == path.stem
    assert subgraph["category"] == "Talking Portrait"
    assert subgraph["description"] == blueprint["extra"]["BlueprintDescription"]
    assert blueprint["extra"]["BlueprintSearchAliases"]
    prompt = to_prompt(blueprint, describe(registry(), class_names(blueprint)))
    assert {entry["class_type"] for entry in prompt.values()} >= {"TalkingPortraitInstantRender", "CreateVideo"}
    assert [output["type"] for output in subgraph["outputs"]] == ["VIDEO"]
