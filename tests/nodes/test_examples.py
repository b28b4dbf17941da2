"""The example workflows on disk: complete, in both formats, with nothing that a user lacks. See also tests/browser."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path

import pytest
from talking_portrait.nodes.standalone.command import registry
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.model_files.store import list_files
from talking_portrait.pipelines.workflow.check import GraphRefusedError, check_graph, describe
from talking_portrait.pipelines.workflow.formats import class_names, to_prompt
from talking_portrait.pipelines.workflow.widgets import widget_values

from ..core_nodes import core_nodes, for_newest, for_stand_ins
from .workflow_layout import (
    NOTE_WIDTH,
    box_of,
    graphs,
    minimum_height,
    minimum_width,
    note_height,
    once_it_runs,
    overlap,
    passes,
    wires,
    with_border,
)

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "example_workflows").glob("*.json"))
BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))
MODELS = {"TalkingPortraitSeparateVocals": "kim_vocal_2"}
OF_NEWER_HOSTS = {"FrameInterpolationModelLoader"}
"""Nodes of newer ComfyUIs that the command line has no stand-in for."""
FILM = {
    "name": "film_net_fp16.safetensors",
    "url": "https://huggingface.co/Comfy-Org/frame_interpolation/resolve/main/frame_interpolation/film_net_fp16.safetensors",
    "directory": "frame_interpolation",
}
"""What ComfyUI's own loader of interpolation networks is given, which is no file of this pack's."""
TRAINED = {
    Path("talking_portrait", "apasco/net.safetensors"),
    Path("talking_portrait", "person.safetensors"),
    Path("talking_portrait", "driver.safetensors"),
}
"""Files that examples take and nobody publishes."""
RESULTS = {
    *("a_your_picture_and_voice", "audiodvp", "audiodvp_saved_model", "crop_and_paste", "instant", "preview_motion"),
    *(
        "dub_video",
        "evaluate",
        "own_way_of_speaking",
        "own_way_of_speaking_saved",
        "reenact",
        "syncanimation",
        "syncanimation_saved_model",
    ),
    "vocals",
}
"""Examples whose weights ship with the pack or were at hand, so that their pictures are results."""


IN_BLUEPRINTS = {
    "Talking Portrait (Instant)": {
        "TalkingPortraitDetectLandmarks",
        "TalkingPortraitInstantDriver",
        "TalkingPortraitInstantRender",
    },
    "Talking Portrait (AniPortrait)": {
        *("VAELoader", "CLIPVisionLoader", "TalkingPortraitDetectLandmarks", "TalkingPortraitLoadAniPortrait"),
        *("TalkingPortraitAniPortraitAudioMotion", "TalkingPortraitAniPortraitSampler"),
    },
    "Talking Portrait (AniTalker)": {
        *("TalkingPortraitDetectLandmarks", "TalkingPortraitCropPortrait", "TalkingPortraitLoadSpeechEncoder"),
        *("TalkingPortraitEncodeSpeech", "TalkingPortraitLoadAniTalker", "TalkingPortraitAniTalkerMotion"),
        "TalkingPortraitAniTalkerRender",
    },
    "Talking Portrait (APasco)": {
        *("VAELoader", "TalkingPortraitDetectLandmarks", "TalkingPortraitLoadSpeechEncoder"),
        *("TalkingPortraitEncodeSpeech", "TalkingPortraitLoadAPasco", "TalkingPortraitFaceEmbedding"),
        *("TalkingPortraitRegionMasks", "TalkingPortraitAPascoSampler"),
    },
    "Dub a video": {"TalkingPortraitDubVideo"},
    "Train a person (AudioDVP)": {"TalkingPortraitPreparePerson", "TalkingPortraitTrainAudioDVP"},
    "Train a person (SyncAnimation)": {"TalkingPortraitPreparePerson", "TalkingPortraitTrainSyncAnimation"},
    "Drive a person (AudioDVP)": {"TalkingPortraitLoadAudioDVP", "TalkingPortraitAudioDVPDrive"},
    "Drive a person (SyncAnimation)": {"TalkingPortraitLoadSyncAnimation", "TalkingPortraitSyncAnimationDrive"},
}
OF_A_TRAINING = {
    "Train a person (AudioDVP)": ["TALKING_PORTRAIT_AUDIODVP", "TALKING_PORTRAIT_PERSON", "STRING"],
    "Train a person (SyncAnimation)": ["TALKING_PORTRAIT_SYNCANIMATION", "TALKING_PORTRAIT_PERSON", "STRING"],
}
"""Outputs of blueprints that make no video."""


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_there_are_examples_for_each_way():
    assert {path.stem for path in EXAMPLES} >= {"instant", "reenact", "preview_motion", "vocals"}
    assert {path.stem for path in BLUEPRINTS} == IN_BLUEPRINTS.keys()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_has_its_picture_and_its_twin(path):
    thumbnail = path.with_suffix(".jpg").read_bytes()
    assert thumbnail[:3] == b"\xff\xd8\xff"
    assert len(thumbnail) < 200_000
    workflow = read(path)
    info = describe(registry(), class_names(workflow) - OF_NEWER_HOSTS)
    info |= {name: core_nodes()[name] for name in class_names(workflow) & OF_NEWER_HOSTS}
    twin = read(path.parent / "api" / path.name)
    assert to_prompt(workflow, info) == for_stand_ins(twin, info)
    assert for_newest(to_prompt(workflow, {**info, **core_nodes()})) == for_newest(twin)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_fit_to_run(path, monkeypatch, tmp_path):
    from talking_portrait.nodes.standalone import core_nodes as core_stand_ins

    monkeypatch.setattr(core_stand_ins, "input_file", lambda name: name)
    monkeypatch.setenv("TALKING_PORTRAIT_MODELS", str(tmp_path))
    prompt = read(path.parent / "api" / path.name)
    if any(entry["class_type"] in OF_NEWER_HOSTS for entry in prompt.values()):
        with pytest.raises(TalkingPortraitError, match="FrameInterpolationModelLoader"):
            check_graph(prompt, registry())
        return
    files = lacking(path)
    if files:
        with pytest.raises(GraphRefusedError) as refused:
            check_graph(prompt, registry())
        assert {file for file in files if file.name not in str(refused.value)} == set(), "all are named before it runs"
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert set(check_graph(prompt, registry())) == set(prompt), "every node is needed by an output"


def lacking(path: Path) -> set[Path]:
    """The model files of an example, below the folder of models."""
    files = {Path(model.folder, model.file) for model in list_files()} | TRAINED
    nodes = read(path)["nodes"]
    values = {value for node in nodes for value in node.get("widgets_values") or [] if isinstance(value, str)}
    return {file for file in files if file.relative_to(file.parts[0]).as_posix() in values}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_has_a_note_and_names_its_models(path):
    nodes = read(path)["nodes"]
    assert any(node["type"] == "MarkdownNote" for node in nodes)
    files = {model.file: model for model in list_files()}
    for node in nodes:
        chosen = [files[value] for value in node.get("widgets_values") or [] if value in files]
        models = list_files(MODELS[node["type"]]) if node["type"] in MODELS else chosen
        entries = [{"name": model.file, "url": model.url, "directory": model.folder} for model in models]
        entries += [FILM] if node["type"] in OF_NEWER_HOSTS else []
        assert node["properties"].get("models", []) == entries
        for value in node.get("widgets_values") or []:
            assert value not in ("randomize", "increment", "decrement"), "an example repeats itself"


def test_only_the_example_with_own_picture_and_voice_needs_files():
    for path in EXAMPLES:
        kinds = class_names(read(path))
        asks = bool(kinds & {"LoadImage", "LoadAudio", "LoadVideo"})
        assert asks == (path.stem == "a_your_picture_and_voice"), f"{path.stem} is to run at one click"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_note_names_downloads_their_folders_and_the_time(path):
    workflow = read(path)
    (note,) = [node["widgets_values"][0] for node in workflow["nodes"] if node["type"] == "MarkdownNote"]
    assert "### How long it takes" in note
    folders = {model["directory"] for node in workflow["nodes"] for model in node["properties"].get("models", [])}
    for folder in folders:
        assert f"models/{folder}" in note
    assert ("models get" in note) == (bool(folders) or "driven" in note or "face_landmarker" in note)
    assert ("is a diagram and not a result" in note) == (path.stem not in RESULTS)
    if path.stem in ("reenact", "anitalker_video", "aniportrait_video"):
        assert "*Load Video* and *Get Video Components*" in note


@pytest.mark.parametrize("path", [*EXAMPLES, *BLUEPRINTS], ids=lambda path: path.stem)
def test_no_node_lies_on_another_or_on_a_wire(path):
    for graph in graphs(read(path)):
        boxes = {node["id"]: once_it_runs(node) for node in graph["nodes"]}
        for first, second in combinations(boxes, 2):
            assert not overlap(with_border(boxes[first]), boxes[second]), f"nodes {first} and {second} overlap"
        for source, target, points in wires(graph):
            for node, box in boxes.items():
                near = node not in (source, target) and passes(points, with_border(box))
                assert not near, f"{source} to {target} runs under {node}"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_nothing_is_below_a_saved_video(path):
    """The node grows downwards by the video that it shows after the run."""
    nodes = read(path)["nodes"]
    for save in (box_of(node) for node in nodes if node["type"] == "SaveVideo"):
        for box in map(box_of, nodes):
            assert not overlap((save[0], save[3], save[2], save[3] + 1000), box)


@pytest.mark.parametrize("path", [*EXAMPLES, *BLUEPRINTS], ids=lambda path: path.stem)
def test_a_node_has_room_for_its_sockets_widgets_and_file_names(path):
    workflow = read(path)
    info = describe(registry(), class_names(workflow) - OF_NEWER_HOSTS) | core_nodes()
    for node in [node for graph in graphs(workflow) for node in graph["nodes"] if node["type"] in info]:
        described = {"name": node["type"], **info[node["type"]]}
        height = minimum_height(described, show_advanced=node.get("showAdvanced", False))
        assert node["size"][1] >= height, f"{node['type']} has a height of {node['size'][1]} and needs {height}"
        assert node["size"][0] >= minimum_width(node), f"{node['type']} cuts its file names"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_note_is_as_large_as_its_text(path):
    (note,) = [node for node in read(path)["nodes"] if node["type"] == "MarkdownNote"]
    width, height = note["size"]
    (text,) = note["widgets_values"]
    assert width == NOTE_WIDTH
    assert 0 <= height - note_height(text) < 40
    assert text == note["widgets_values_named"]["text"]
    assert "`" not in text.replace("```", ""), "commands are blocks, which can be read in every rendering"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_advanced_input_that_an_example_sets_is_shown(path):
    """The newer rendering hides advanced inputs, unless the node says otherwise."""
    for node in read(path)["nodes"]:
        if node["type"].startswith("TalkingPortrait"):
            info = describe(registry(), {node["type"]})[node["type"]]
            values = widget_values(node, info)
            specs = {
                name: spec for part in ("required", "optional") for name, spec in info["input"].get(part, {}).items()
            }
            advanced = {
                name: spec[1]["default"] for name, spec in specs.items() if len(spec) > 1 and spec[1].get("advanced")
            }
            changed = [name for name, default in advanced.items() if values.get(name, default) != default]
            assert node.get("showAdvanced", False) == bool(changed), f"{node['type']}: {changed}"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_note_speaks_of_what_is_there(path):
    workflow = read(path)
    (text,) = [node["widgets_values"][0] for node in workflow["nodes"] if node["type"] == "MarkdownNote"]
    info = describe(registry(), class_names(workflow) - OF_NEWER_HOSTS) | core_nodes()
    titles = [node.get("title") or info[node["type"]]["display_name"] for node in workflow["nodes"]]
    phrases = re.findall(r"connect its ([^.]*)\.", text) + re.findall(r"replace ((?:\*[A-Z][^*]*\*(?: and )?)+)", text)
    for name in [name for phrase in phrases for name in re.findall(r"\*([A-Z][^*]+)\*", phrase)]:
        assert titles.count(name) == 1, f"{name} is to be one node"
    assert not [title for title in titles if "DEPRECATED" in title], "a title says what the node is for"
    models = {model["name"]: model for node in workflow["nodes"] for model in node["properties"].get("models", [])}
    without_button = re.findall(r"no \*Download\* button for ([^;]*);", text)
    for name, model in models.items():
        assert has_button(model) != any(f"*{name.rpartition('/')[2]}*" in phrase for phrase in without_button)
    pages = re.findall(r"https://huggingface.co/\S+", text)
    assert all(any(model["url"].startswith(page) for model in models.values()) for page in pages)


def has_button(model: dict) -> bool:
    """Whether ComfyUI's list of missing models offers to download a file."""
    suffixes = (".safetensors", ".sft", ".ckpt", ".pth", ".pt")
    return model["name"].endswith(suffixes) and model["url"].startswith(
        ("https://huggingface.co/", "https://civitai.com/")
    )


def test_a_node_on_a_wire_or_on_another_is_noticed():
    node = {"size": [100, 50], "inputs": [{"name": "in"}], "outputs": [{"name": "out"}]}
    left, middle, right = ({**node, "id": n, "pos": [200 * n, 0]} for n in range(3))
    ((_, _, points),) = wires({"nodes": [left, middle, right], "links": [[1, 0, 0, 2, 0, "IMAGE"]]})
    assert passes(points, box_of(middle))
    assert not passes(points, box_of({**middle, "pos": [200, 100]}))
    assert overlap(box_of(left), box_of({**middle, "pos": [90, 60]}))
    assert not overlap(box_of(left), box_of(middle))
    assert overlap(with_border(box_of(left)), box_of({**middle, "pos": [0, 80]})), "no room for the bar of an error"


def test_every_variant_of_anitalker_is_shown():
    variants = {file.file for file in list_files("anitalker") if "stage2" in file.file}
    used = {value for path in EXAMPLES for node in read(path)["nodes"] for value in node.get("widgets_values") or []}
    assert len(variants) == 5
    assert variants <= used


def test_apasco_fills_its_last_clip_as_published():
    for path in EXAMPLES:
        if path.stem.startswith("apasco"):
            entries = read(path.parent / "api" / path.name).values()
            (frames,) = [e["inputs"]["frame_multiple"] for e in entries if "frame_multiple" in e["inputs"]]
            clips = {e["inputs"]["clip_length"] for e in entries if "clip_length" in e["inputs"]}
            assert clips == {frames}


def test_the_first_example_in_the_list_takes_the_users_own_picture_and_voice():
    first = read(EXAMPLES[0])
    assert {"LoadImage", "LoadAudio"} <= class_names(first)
    assert not any(node["properties"].get("models") for node in first["nodes"]), "nothing is to be downloaded"


def test_every_node_is_shown_in_an_example():
    shown = set().union(*(class_names(read(path)) for path in EXAMPLES))
    ours = {name for name in registry() if name.startswith("TalkingPortrait")}
    assert ours <= shown


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
    # The renderer streams its video; no node holds all frames.
    assert {entry["class_type"] for entry in prompt.values()} == IN_BLUEPRINTS[path.stem]
    assert [output["type"] for output in subgraph["outputs"]] == OF_A_TRAINING.get(path.stem, ["VIDEO"])
    sound = [entry["type"] for entry in subgraph["inputs"] if entry["type"] == "AUDIO"]
    assert len(sound) == (path.stem not in OF_A_TRAINING)


@pytest.mark.parametrize("name", ["a_your_picture_and_voice", "instant"])
def test_one_click_examples_name_their_inputs_and_result_for_the_app_view(name):
    workflow = read(EXAMPLES[0].with_name(f"{name}.json"))
    nodes = {str(node["id"]): node for node in workflow["nodes"]}
    app = workflow["extra"]["linearData"]
    assert app["inputs"]
    for node, widget in app["inputs"]:
        assert widget in [entry["name"] for entry in nodes[node]["inputs"] if "widget" in entry]
    assert [nodes[node]["type"] for node in app["outputs"]] == ["SaveVideo"]
