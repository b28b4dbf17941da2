"""Rules for every node, and for the texts about them: input table, locales, help pages."""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from talking_portrait.nodes.checked_node import OWN_VALUES
from talking_portrait.nodes.extension import NODES
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.model_files.table import MODEL_FILES

sys.path.insert(0, str(Path(__file__).parent))
import node_texts

ROOT = node_texts.ROOT
DOCS = ROOT / "web" / "docs"
INFOS = node_texts.infos()
IDS = list(INFOS)
CHINESE = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
MODEL_NAMES = {model.file for model in MODEL_FILES}
STAGES = {"input", "speech", "face", "motion", "render", "person", "output"}
STAGE_NODES = {
    "SeparateVocals", "LoadSpeechEncoder", "EncodeSpeech", "SpeechMFCC", "DetectLandmarks", "CropPortrait", "PasteBack",
    "Sample", "InstantDriver", "ReenactMotion", "EditMotion", "PreviewMotion", "InstantRender",
    "LoadAniPortrait", "AniPortraitAudioMotion", "DrawPose", "AniPortraitSampler", "FrameInterpolation",
    "LoadFaceRestorer", "RestoreFaces",
    "FaceEmbedding", "RegionMasks", "LoadAPasco", "APascoSampler",
    "LoadAniTalker", "AniTalkerMotion", "AniTalkerMotionFromVideo", "AniTalkerRender",
    "PreparePerson", "TrainAudioDVP", "LoadAudioDVP", "AudioDVPDrive", "TrainInstantDriver", "LoadInstantDriver",
    "DubVideo", "EvaluateVideo", "DetectMark",
    "TrainSyncAnimation", "LoadSyncAnimation", "SyncAnimationDrive",
}  # fmt: skip


def test_every_stage_has_its_node():
    assert set(IDS) == {f"TalkingPortrait{name}" for name in STAGE_NODES}
    assert len({info["display_name"] for info in INFOS.values()}) == len(INFOS)


@pytest.mark.parametrize("node", NODES, ids=IDS)
def test_execute_takes_exactly_the_inputs(node):
    info = INFOS[node.GET_SCHEMA().node_id]
    parameters = inspect.signature(node.execute).parameters
    assert set(parameters) == set(node_texts.all_inputs(info))
    for name in info["input"]["required"]:
        assert parameters[name].default is inspect.Parameter.empty, f"{name} is required"
    for name, spec in info["input"].get("optional", {}).items():
        default = parameters[name].default
        assert default == spec[1].get("default"), f"{name} has another default in execute than in the schema"


def test_every_socket_of_our_own_is_checked():
    """Else a constant where a link belongs is an AttributeError."""
    kinds = {spec[0] for info in INFOS.values() for spec in node_texts.all_inputs(info).values()}
    assert {kind for kind in kinds if str(kind).startswith("TALKING_PORTRAIT")} == set(OWN_VALUES)


@pytest.mark.parametrize(
    ("name", "changed", "words"),
    [("CropPortrait", {"size": "abc"}, '"size" is .abc. .str., but a whole number'),
     ("CropPortrait", {"size": 1.5}, "but a whole number"),
     ("CropPortrait", {"scale": None}, '"scale" is nothing, but a number'),
     ("CropPortrait", {"upright": [1]}, "but true or false"),
     ("CropPortrait", {"border": "abc"}, "\"border\" is 'abc' .str., but edge or black"),
     ("CropPortrait", {"framing": [1]}, '"framing" is .1. .list., but one of its choices'),
     ("CropPortrait", {"framing": np.zeros(2)}, "but one of its choices"),
     ("CropPortrait", {"framing": "two\nlines"}, r"is 'two\\nlines' .str., but face, head"),
     ("CropPortrait", {"scale": 10**400}, '"scale" is 1000.* but whole numbers to'),
     ("DrawPose", {"width": 1.5}, "but a whole number"),
     ("TrainInstantDriver", {"name": 5}, "but a text")],
)  # fmt: skip
def test_a_link_that_brings_something_else_to_a_widget_is_named(name, changed, words):
    nodes = {node.__name__: node for node in NODES}
    image, audio, landmarks = nodes["Example"].execute().args
    inputs = {
        "CropPortrait": {"images": image, "landmarks": landmarks, "size": 64, "framing": "head", "scale": 1.0,
                         "upright": False, "follow": False},
        "DrawPose": {"motion": None, "width": 64, "height": 64},
        "TrainInstantDriver": {"name": "ann"},
    }  # fmt: skip
    if name == "DrawPose":
        motion = nodes["InstantDriver"].execute(audio, 1.0, 0, 1.0, 1.0, 1.0, 1.0, 1.0).args[0]
        inputs[name] = {**inputs[name], "motion": motion}
    with pytest.raises(TalkingPortraitError, match=words):
        nodes[name].execute(**{**inputs[name], **changed})


def test_numbers_of_other_libraries_are_taken_and_those_that_are_none_named():
    nodes = {node.__name__: node for node in NODES}
    image, audio, landmarks = nodes["Example"].execute().args
    cut, *_ = nodes["CropPortrait"].execute(image, landmarks, np.int64(64), "head", Fraction(3, 2), False, False).args
    assert cut.shape == (1, 64, 64, 3)
    (motion,) = nodes["InstantDriver"].execute(audio, np.float32(1), np.uint8(0), 1, 1, 1, 1, 1).args
    (edited,) = nodes["EditMotion"].execute(motion, Fraction(1, 3), 1, 0, "keep", 0, 0, 0, False, 0).args
    assert edited.frames == motion.frames
    wrong = [("fps", Fraction(0), "frame rate is 0"), ("rotation", motion.rotation * np.nan, "rotation holds values")]
    for name, value, words in wrong:
        with pytest.raises(TalkingPortraitError, match=words):
            nodes["PreviewMotion"].execute(replace(motion, **{name: value}), 64)


@pytest.mark.parametrize("node", NODES, ids=IDS)
def test_own_checks_name_inputs_that_exist(node):
    validate = getattr(node, "validate_inputs", None)
    if validate is not None:
        assert set(inspect.signature(validate).parameters) <= set(
            node_texts.all_inputs(INFOS[node.GET_SCHEMA().node_id])
        )


@pytest.mark.parametrize("name", IDS)
def test_everything_is_explained(name):
    info = INFOS[name]
    assert info["description"]
    assert info["search_aliases"]
    assert info["category"].partition("/")[::2] in {("Talking Portrait", stage) for stage in STAGES}
    for key, (_, options) in node_texts.all_inputs(info).items():
        assert options.get("tooltip", "").endswith("."), f"{key} lacks a tooltip that is a sentence"
    assert all(info["output_tooltips"])
    assert all(label == label.lower() and " " not in label for label in info["output_name"])


@pytest.mark.parametrize("name", IDS)
def test_widgets_have_defaults_within_their_limits(name):
    for key, (kind, options) in node_texts.all_inputs(INFOS[name]).items():
        if kind in ("INT", "FLOAT"):
            assert options["min"] <= options["default"] <= options["max"], key
        if kind == "COMBO" and "default" in options:
            # A model's file is chosen before it is there: ComfyUI offers to download what a list lacks.
            assert options["default"] in options["options"] or options["default"] in MODEL_NAMES, key
        if key == "seed":
            assert options["control_after_generate"] is True
        if options.get("advanced"):
            assert key in INFOS[name]["input"]["optional"], f"{key} is rare, so clients may leave it out"


def test_no_input_ever_moves():
    golden = json.loads(node_texts.SCHEMA.read_text(encoding="utf-8"))
    now = node_texts.schema()
    for name, table in golden.items():
        assert name in now, f"{name} was published and must stay"
        for part in ("inputs", "outputs"):
            assert now[name][part][: len(table[part])] == table[part], f"{name}: {part} may only be appended"
        assert set(now[name]["required"]) == set(table["required"]), f"{name}: new inputs are optional"
    assert now == golden, "new inputs or nodes: python tests/nodes/node_texts.py"


def test_english_locale_equals_the_texts_in_the_code():
    text = node_texts.ENGLISH.read_text(encoding="utf-8")
    assert text == node_texts.as_text(node_texts.english()), "python tests/nodes/node_texts.py"


def leaves(tree: object, path: str = "") -> dict[str, str]:
    if isinstance(tree, dict):
        return {key: text for name, child in tree.items() for key, text in leaves(child, f"{path}/{name}").items()}
    return {path: str(tree)}


@pytest.mark.parametrize("file", ["nodeDefs.json", "main.json"])
def test_chinese_is_complete(file):
    english, chinese = (
        leaves(json.loads((ROOT / "locales" / language / file).read_text(encoding="utf-8")))
        for language in ("en", "zh")
    )
    assert set(chinese) == set(english)
    same_in_both = {path for path in english if chinese[path] == english[path]}
    assert not same_in_both, "not translated"
    assert not [path for path, text in chinese.items() if not re.search("[\u4e00-\u9fff]", text)]


def test_every_own_socket_and_category_has_a_name():
    named = json.loads((ROOT / "locales" / "en" / "main.json").read_text(encoding="utf-8"))
    kinds = {spec[0] for info in INFOS.values() for spec in node_texts.all_inputs(info).values()}
    assert {kind for kind in kinds if kind.startswith("TALKING_PORTRAIT_")} <= set(named["dataTypes"])
    assert {part for info in INFOS.values() for part in info["category"].split("/")} == set(named["nodeCategories"])


def test_chinese_texts_name_nodes_as_the_menu_does():
    """Chinese quotation marks enclose the name of a node of ours or of ComfyUI, or a value of a widget."""
    of_comfyui = {
        "加载图像", "加载音频", "加载视频", "加载VAE", "加载CLIP视觉", "加载放大模型", "加载音频编码器",
        "加载帧插值模型", "获取视频元素", "创建视频", "保存视频", "预览图像",
    }  # fmt: skip
    labels = {text for path, text in leaves(CHINESE).items() if path.endswith("/name")}
    known = of_comfyui | {text["display_name"] for text in CHINESE.values()}
    for path, text in leaves(CHINESE).items():
        assert set(re.findall("“(.+?)”", text)) <= known | labels | {"pass through"}, path
    for name in IDS:
        assert set(re.findall("“(.+?)”", help_page(name, "zh"))) <= known, name


def help_file(name: str, language: str) -> Path:
    """The page that the front end shows: `docs/<node id>/<locale>.md` if it is there, else `docs/<node id>.md`."""
    own = DOCS / name / f"{language}.md"
    return own if own.is_file() else DOCS / f"{name}.md"


def help_page(name: str, language: str) -> str:
    return help_file(name, language).read_text(encoding="utf-8")


TIMINGS = {"resampled", "stock", "paired", "anitalker", "audiodvp"}


@pytest.mark.parametrize("name", IDS)
def test_every_node_has_a_help_page(name):
    text = help_page(name, "en")
    assert text.startswith(f"# {INFOS[name]['display_name']}\n")
    assert len(text.splitlines()) > 8
    known = {*node_texts.all_inputs(INFOS[name]), *INFOS[name]["output_name"]}
    named = set(re.findall(r"\*\*([a-z0-9_]+)\*\*", text))
    assert named - TIMINGS <= known, "the page names an input that does not exist"
    assert known <= named, "the page does not name these inputs and outputs"


@pytest.mark.parametrize("name", IDS)
def test_every_node_has_a_chinese_help_page(name):
    """It names inputs and outputs by the labels that the editor has in Chinese."""
    text, english, labels = help_page(name, "zh"), help_page(name, "en"), CHINESE[name]
    assert text.startswith(f"# {labels['display_name']}\n")
    inputs, outputs = ({part["name"] for part in labels[side].values()} for side in ("inputs", "outputs"))
    named = set(re.findall(r"\*\*(.+?)\*\*", text))
    assert named - TIMINGS <= inputs | outputs, "the page names an input that does not exist"
    assert inputs | outputs <= named, "the page does not name these inputs and outputs"
    for literal in (r"`[^`]+`", r"(?<!\*)\*[a-z_0-9 =]+\*(?!\*)", r"^    .+$", r"\]\([^)]+\)"):
        translated, expected = (set(re.findall(literal, page, re.MULTILINE)) for page in (text, english))
        assert translated == expected, "commands, files, values and links are the English page's"


@pytest.mark.parametrize("language", ["en", "zh-TW", "ja", "ko", "fr", "es", "ru", "ar", "tr", "pt-BR"])
def test_every_other_language_gets_the_english_page(language):
    """The front end never falls back to `docs/<node id>/en.md`."""
    for name in IDS:
        assert help_file(name, language) == DOCS / f"{name}.md"
        assert help_page(name, language).startswith(f"# {INFOS[name]['display_name']}\n")


def test_no_help_page_is_left_over():
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert pages == {page for name in IDS for page in (f"{name}.md", f"{name}/zh.md")}


def test_no_node_keeps_state_on_its_class():
    for node in NODES:
        tree = ast.parse(inspect.getsource(node))
        assigned = [inner for inner in ast.walk(tree) if isinstance(inner, ast.Attribute | ast.Global)]
        assert not [
            inner
            for inner in assigned
            if isinstance(inner, ast.Global) or (isinstance(inner.ctx, ast.Store) and inner.value.__class__ is ast.Name)
        ], node
