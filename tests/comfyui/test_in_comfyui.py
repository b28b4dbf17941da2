"""The pack inside a real ComfyUI: COMFYUI_DIR=<checkout> make comfyui.

COMFYUI_PYTHON names the interpreter of ComfyUI's own environment (default: its .venv or venv, else the one that runs
the tests). The server gets an empty base directory of its own, so nothing in the checkout is touched.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from talking_portrait.nodes import cli
from talking_portrait.pipelines import comfy_client
from talking_portrait.pipelines.media import open_video

pytestmark = pytest.mark.comfyui

ROOT = Path(__file__).parents[2]
PACK = "talking-portrait"
INSTANT = ROOT / "example_workflows" / "instant.json"


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("comfyui")
    for name in ("custom_nodes", "input", "models"):
        (folder / name).mkdir()
    (folder / "custom_nodes" / PACK).symlink_to(ROOT)
    return folder


@pytest.fixture(scope="session")
def models(base: Path) -> Path:
    return base / "models"


@pytest.fixture(scope="session")
def server(base: Path) -> Iterator[str]:
    checkout = Path(os.environ.get("COMFYUI_DIR", "/nonexistent"))
    if not (checkout / "main.py").is_file():
        pytest.skip("COMFYUI_DIR names no ComfyUI checkout")
    own = [checkout / name / "bin" / "python" for name in (".venv", "venv")]
    python = os.environ.get("COMFYUI_PYTHON") or next((str(path) for path in own if path.is_file()), sys.executable)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = base / "log.txt"
    command = [python, "main.py", "--cpu", "--port", str(port), "--base-directory", str(base), "--disable-api-nodes"]
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=checkout, stdout=output, stderr=output)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            assert process.poll() is None, log.read_text()[-3000:]
            try:
                urllib.request.urlopen(f"{address}/queue", timeout=5)
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.5)
        else:
            pytest.fail(f"ComfyUI did not start: {log.read_text()[-3000:]}")
        yield address
    finally:
        process.terminate()
        process.wait(30)
    assert "IMPORT FAILED" not in log.read_text()


def fetch(server: str, path: str) -> Any:
    with urllib.request.urlopen(server + urllib.parse.quote(path), timeout=30) as answer:
        body = answer.read()
        return json.loads(body) if answer.headers.get_content_type() == "application/json" else body


def run(server: str, workflow: Path, *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    cli.add_commands(parser.add_subparsers())
    options = parser.parse_args(["run", str(workflow), "--server", server, *arguments])
    return options.run(options)


def test_comfyui_describes_our_nodes_as_we_do(server):
    theirs = fetch(server, "/object_info")
    ours = {name: node.GET_NODE_INFO_V1() for name, node in cli.registry().items() if name.startswith("Talking")}
    for name, info in ours.items():
        # Where models lie, where the pack lies, and fields that came after the oldest ComfyUI.
        expected = {**info, "python_module": f"custom_nodes.{PACK}"}
        for field in theirs[name]:
            if field in expected and field != "search_aliases":
                assert theirs[name][field] == json.loads(json.dumps(expected[field])), (name, field)


def test_the_stand_ins_take_what_comfyuis_own_nodes_take(server):
    theirs = fetch(server, "/object_info")
    for name, node in cli.registry().items():
        if name.startswith("Talking"):
            continue
        mine, real = node.GET_NODE_INFO_V1(), theirs[name]
        assert mine["output"] == real["output"], name
        assert mine["output_node"] == real["output_node"], name
        assert set(mine["input"]["required"]) <= {*real["input"]["required"], *real["input"].get("optional", {})}, name
        assert set(real["input"]["required"]) <= {*mine["input"]["required"], *mine["input"].get("optional", {})}, name


def test_templates_texts_and_help_are_served(server):
    names = fetch(server, "/workflow_templates")[PACK]
    assert set(names) == {path.stem for path in (ROOT / "example_workflows").glob("*.json")}
    for name in names:
        assert fetch(server, f"/api/workflow_templates/{PACK}/{name}.jpg")[:2] == b"\xff\xd8"
        assert fetch(server, f"/api/workflow_templates/{PACK}/{name}.json")
    assert fetch(server, "/i18n")["zh"]["nodeDefs"]["TalkingPortraitInstantDriver"]["display_name"] == "Instant 驱动"
    page = fetch(server, f"/extensions/{PACK}/docs/TalkingPortraitInstantDriver/en.md")
    assert page.decode().startswith("# Instant Driver")


def test_the_example_runs_and_comes_back(server, tmp_path, capsys):
    assert run(server, INSTANT, "--set", "2.fps=1", "--out", str(tmp_path)) == 0
    (path,) = map(Path, capsys.readouterr().out.split())
    frames = list(open_video(path).frames())
    assert len(frames) == 17
    assert frames[0].shape == (512, 512, 3)


def test_a_run_can_be_cancelled_midway(server):
    prompt = json.loads((INSTANT.parent / "api" / INSTANT.name).read_text())
    prompt["2"]["inputs"]["seed"] = 77
    seen = []

    def cancel(title: str, done: int, total: int) -> None:
        seen.append((title, done, total))
        if title == "Instant Render" and 0 < done < total and ("cancelled", 0, 0) not in seen:
            seen.append(("cancelled", 0, 0))
            urllib.request.urlopen(urllib.request.Request(f"{server}/interrupt", data=b"{}", method="POST"))

    with pytest.raises(comfy_client.ServerInterruptedError, match="interrupted at Instant Render"):
        comfy_client.run_on_server(server, prompt, fetch(server, "/object_info"), out=Path("out"), report=cancel)
    after = seen[seen.index(("cancelled", 0, 0)) :]
    assert len([step for step in after if step[0] == "Instant Render"]) <= 2
    for _ in range(50):  # the queue is tidied up just after the message
        if not any(fetch(server, "/queue").values()):
            break
        time.sleep(0.1)
    assert fetch(server, "/queue") == {"queue_running": [], "queue_pending": []}


def test_bad_input_is_told_in_a_sentence(server, models, capsys):
    assert run(server, INSTANT, "--set", "2.fps=1000") == 2
    assert "Instant Driver (node 2): Value 1000.0 bigger than max of 120.0: fps" in capsys.readouterr().err
    detect = ROOT / "example_workflows" / "crop_and_paste.json"
    assert run(server, detect) == 3
    told = capsys.readouterr().err
    assert "error: Detect Landmarks: The model file face_landmarker.task is not in " in told
    command = shlex.split(told.strip().rpartition("or run: ")[2])
    assert command[2:5] == ["models", "get", "face_landmarker"]
    checked = subprocess.run([*command[:3], "check", *command[4:]], capture_output=True, text=True, check=True)
    assert checked.stdout.startswith("missing ")
    assert f"{models}" in checked.stdout
    vocals = ROOT / "example_workflows" / "vocals.json"
    assert run(server, vocals) == 3
    assert " models get kim_vocal_2 " in capsys.readouterr().err


def test_a_speech_encoder_is_loaded_through_comfyuis_memory_management(server, models, tmp_path):
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    config = Wav2Vec2Config(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=1, intermediate_size=64, conv_dim=[16] * 7
    )
    Wav2Vec2Model(config).save_pretrained(models / "audio_encoders" / "tiny")
    node = fetch(server, "/object_info/TalkingPortraitLoadSpeechEncoder")["TalkingPortraitLoadSpeechEncoder"]
    assert node["input"]["required"]["file"][1]["options"] == ["tiny"]
    encode = {"audio": ["1", 1], "encoder": ["2", 0], "fps": 25, "timing": "resampled"}
    graph = {
        "1": {"class_type": "TalkingPortraitSample", "inputs": {}},
        "2": {"class_type": "TalkingPortraitLoadSpeechEncoder", "inputs": {"file": "tiny"}},
        "3": {"class_type": "TalkingPortraitEncodeSpeech", "inputs": encode},
        "4": {"class_type": "PreviewAny", "inputs": {"source": ["3", 0]}},
    }
    workflow = tmp_path / "encode.json"
    workflow.write_text(json.dumps(graph))
    assert run(server, workflow) == cli.NO_OUTPUTS
    (shown,) = next(reversed(fetch(server, "/history").values()))["outputs"]["4"]["text"]
    assert shown.startswith("SpeechFeatures(states=tensor(")


def test_our_model_folder_is_listed_by_comfyui(server):
    assert {"talking_portrait", "detection"} <= set(fetch(server, "/models"))
    assert fetch(server, "/models/talking_portrait") == []
