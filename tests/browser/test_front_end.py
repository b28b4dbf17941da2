"""Every example workflow in ComfyUI's real front end, against a stub server with our nodes: `make browser`.

What is needed and not here is installed into build/browser on first use (PyPI's front-end package, npm's
playwright-core); Chromium is the system's, or the one that CHROMIUM names.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from talking_portrait.nodes.standalone.command import registry
from talking_portrait.pipelines.workflow.formats import to_prompt

from ..core_nodes import core_nodes, for_newest
from .stub_server import PACK, StubServer

pytestmark = pytest.mark.browser

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "browser"
FRONT_END = "comfyui-frontend-package==1.58.1"
PLAYWRIGHT = "playwright-core@1.56.1"
EXAMPLES = sorted((ROOT / "example_workflows").glob("*.json"))
WIRING = ROOT / "tests" / "pipelines" / "workflow" / "workflows" / "wiring.json"
BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))
INPUT_FILES = {"LoadImage": ("image", "example.png"), "LoadVideo": ("file", "driving.mp4")}
"""What the workflows find in ComfyUI's input folder."""


@pytest.fixture(scope="session")
def chromium() -> str:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not found or not shutil.which("npm"):
        pytest.skip("needs Chromium, node and npm")
    return found


@pytest.fixture(scope="session")
def static(chromium: str) -> Path:
    """The front end's files; installs what is missing."""
    BUILD.mkdir(parents=True, exist_ok=True)
    stamp = BUILD / "installed.txt"
    if not stamp.is_file() or stamp.read_text() != f"{FRONT_END} {PLAYWRIGHT}":
        pip = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--upgrade",
            "--no-deps",
            "--target",
            str(BUILD / "site"),
        ]
        subprocess.run([*pip, FRONT_END], check=True)
        subprocess.run(["npm", "install", "--silent", "--prefix", str(BUILD), PLAYWRIGHT], check=True)
        stamp.write_text(f"{FRONT_END} {PLAYWRIGHT}")
    return BUILD / "site" / "comfyui_frontend_package" / "static"


@pytest.fixture(scope="session")
def info() -> dict[str, Any]:
    ours = {name: node.GET_NODE_INFO_V1() for name, node in registry().items() if name.startswith("TalkingPortrait")}
    described = {**ours, **core_nodes()}
    for name, (entry, file) in INPUT_FILES.items():
        spec = described[name]["input"]["required"][entry]
        if isinstance(spec[0], list):
            spec[0] = [file]
        else:
            spec[1]["options"] = [file]
    for path in (*EXAMPLES, *BLUEPRINTS):
        workflow = json.loads(path.read_text(encoding="utf-8"))
        for graph in (workflow, *workflow.get("definitions", {}).get("subgraphs", [])):
            for node in graph["nodes"]:
                add_models(described, node)
    for name, entry in described.items():
        entry["python_module"] = f"custom_nodes.{PACK}" if name.startswith("TalkingPortrait") else "nodes"
    return described


def add_models(described: dict[str, Any], node: dict[str, Any]) -> None:
    """Adds the models of an example to the lists of files, as for a user who has downloaded them."""
    files = {model["name"] for model in node["properties"].get("models", [])}
    named = node.get("widgets_values_named") or {}
    for entries in described.get(node["type"], {}).get("input", {}).values():
        for name, spec in entries.items():
            if named.get(name) not in files:
                continue
            if isinstance(spec[0], list):
                spec[0] = sorted({*spec[0], named[name]})
            else:
                spec[1]["options"] = sorted({*spec[1].get("options", []), named[name]})


def twin_of(path: Path) -> dict[str, Any]:
    """An example in API format, as the newest host's front end converts it."""
    return for_newest(json.loads((path.parent / "api" / path.name).read_text(encoding="utf-8")))


def visit(static: Path, chromium: str, info: dict, workflows: list[dict], settings: dict | None = None) -> dict:
    """The opener's report, with the prompts that arrived as `posted`."""
    with StubServer(static, ROOT, info, settings or {}) as server:
        job = {"address": server.address, "chromium": chromium, "modules": str(BUILD), "workflows": workflows}
        command = ["node", str(HERE / "open_workflow.mjs")]
        result = subprocess.run(
            command, input=json.dumps(job), capture_output=True, text=True, timeout=600, check=False
        )
        assert result.returncode == 0, result.stderr
        return {**json.loads(result.stdout), "posted": [prompt["prompt"] for prompt in server.prompts]}


@pytest.fixture(scope="session")
def opened(static: Path, chromium: str, info: dict) -> dict[str, Any]:
    pictures = BUILD / "screenshots"
    pictures.mkdir(exist_ok=True)
    workflows = [
        {
            "name": path.name,
            "text": path.read_text(encoding="utf-8"),
            "run": path in EXAMPLES,
            "screenshot": str(pictures / f"{path.stem}.png"),
        }
        for path in (*EXAMPLES, WIRING, *BLUEPRINTS)
    ]
    report = visit(static, chromium, info, workflows)
    report["workflows"] = {entry["name"]: entry for entry in report["workflows"]}
    return report


def test_the_front_end_starts_with_our_nodes(opened):
    assert opened["version"] == FRONT_END.partition("==")[2]
    assert opened["startErrors"] == []


ASKED_FOR = {
    "a_your_picture_and_voice": "Load Audio is missing a required media file",
    # Nobody publishes these: a training here makes them.
    "apasco_geometry": "apasco/net.safetensors is missing",
    "own_way_of_speaking_saved": "driver.safetensors is missing",
    "audiodvp_saved_model": "person.safetensors is missing",
    "syncanimation_saved_model": "person.safetensors is missing",
    "Drive a person (AudioDVP)": "person.safetensors is missing",
    "Drive a person (SyncAnimation)": "person.safetensors is missing",
}
"""What only the user has, which the front end asks for when an example is opened."""


@pytest.mark.parametrize("path", [*EXAMPLES, WIRING, *BLUEPRINTS], ids=lambda path: path.stem)
def test_a_workflow_opens_whole(opened, path):
    result = opened["workflows"][path.name]
    assert result["errors"] == []
    wanted = ASKED_FOR.get(path.stem)
    assert bool(result["dialogs"]) == bool(wanted), result["dialogs"]
    assert all(wanted in text for text in result["dialogs"])
    assert [node["type"] for node in result["nodes"] if not node["known"]] == []
    for node in result["nodes"]:
        for widget in node["widgets"]:
            where = f"{node['type']} {widget['name']} = {widget['value']}"
            missing = bool(wanted) and str(widget["value"]) in wanted
            if widget["choices"] and widget["value"] is not None and not missing:
                assert widget["value"] in widget["choices"], where
            if widget["type"] == "number":
                assert widget["min"] <= widget["value"] <= widget["max"], where
    saved = json.loads(path.read_text(encoding="utf-8"))
    values = {node["id"]: node.get("widgets_values") for node in result["ui"]["nodes"]}
    for node in saved["nodes"]:
        kept = values.pop(node["id"])
        if node["type"] in core_nodes() and kept:
            kept = kept[: len(node["widgets_values"])]  # the host's own nodes have further widgets by now
        assert kept == node.get("widgets_values"), node["type"]
    assert not values
    if path in EXAMPLES:
        sizes = {node["id"]: node["size"] for node in result["ui"]["nodes"]}
        grown = [node["type"] for node in saved["nodes"] if sizes[node["id"]] != node["size"]]
        assert grown == [], "the front end needs more room for these nodes than the file has"
    assert len(result["ui"]["links"]) == len(saved["links"])


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_becomes_exactly_its_api_twin(opened, path):
    assert for_newest(opened["workflows"][path.name]["prompt"]) == twin_of(path)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_run_posts_it(opened, path):
    assert for_newest(opened["posted"][EXAMPLES.index(path)]) == twin_of(path)


@pytest.mark.parametrize("path", [*EXAMPLES, WIRING, *BLUEPRINTS], ids=lambda path: path.stem)
def test_our_own_conversion_agrees(opened, path, info):
    converted = to_prompt(json.loads(path.read_text(encoding="utf-8")), info)
    assert for_newest(converted) == for_newest(opened["workflows"][path.name]["prompt"])


def test_help_and_chinese_reach_the_user(static, chromium, info):
    path = ROOT / "example_workflows" / "instant.json"
    workflow = {"name": path.name, "text": path.read_text(encoding="utf-8"), "help": 2}
    english = visit(static, chromium, info, [workflow])["workflows"][0]
    assert english["help"].startswith("Instant Driver\n")
    assert "another seed" in english["help"]
    french = visit(static, chromium, info, [workflow], {"Comfy.Locale": "fr"})["workflows"][0]
    assert french["help"] == english["help"], "a language without pages of ours gets the English ones"
    chinese = visit(static, chromium, info, [{**workflow, "help": None}], {"Comfy.Locale": "zh"})["workflows"][0]
    driver = next(node for node in chinese["nodes"] if node["id"] == "2")
    texts = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
    assert driver["title"] == texts["TalkingPortraitInstantDriver"]["display_name"]
    assert texts["TalkingPortraitInstantDriver"]["outputs"]["0"]["name"] in driver["labels"]


def test_examples_open_in_the_new_node_rendering_too(static, chromium, info):
    path = ROOT / "example_workflows" / "instant.json"
    workflow = {"name": path.name, "text": path.read_text(encoding="utf-8")}
    workflow["screenshot"] = str(BUILD / "screenshots" / "instant-nodes-2.png")
    result = visit(static, chromium, info, [workflow], {"Comfy.VueNodes.Enabled": True})["workflows"][0]
    assert result["errors"] == []
    assert for_newest(result["prompt"]) == twin_of(path)
