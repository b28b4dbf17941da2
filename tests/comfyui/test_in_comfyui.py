"""The pack inside a real ComfyUI: COMFYUI_DIR=<checkout> make comfyui.

COMFYUI_PYTHON names the interpreter of ComfyUI's own environment (default: its .venv or venv, else the one that runs
the tests). The server gets an empty base directory of its own, so nothing in the checkout is touched. Long, as starting
it takes longer than most tests, so that one serves all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import shutil
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

import aiohttp
import numpy as np
import pytest
import soundfile
from talking_portrait.models.gfpgan import GFPGANConfig
from talking_portrait.nodes.standalone import command as cli
from talking_portrait.pipelines.files.example import example_portrait, example_speech
from talking_portrait.pipelines.files.images import write_image
from talking_portrait.pipelines.files.sound import read_audio
from talking_portrait.pipelines.files.video import open_video
from talking_portrait.pipelines.workflow import server as comfy_client

from ..nodes.node_texts import without_curves
from ..tiny_weights import anitalker as tiny_anitalker
from ..tiny_weights import apasco as tiny_apasco
from ..tiny_weights import gfpgan as tiny_gfpgan
from ..tiny_weights.aniportrait import write_for_comfyui

pytestmark = pytest.mark.comfyui

ROOT = Path(__file__).parents[2]
PACK = "talking-portrait"
TASK = ROOT.parent / "shared" / "data" / "face_landmarker.task"
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


def test_object_info_of_comfyui_equals_ours(server):
    theirs = fetch(server, "/object_info")
    ours = {name: node.GET_NODE_INFO_V1() for name, node in cli.registry().items() if name.startswith("Talking")}
    for name, info in ours.items():
        # Where models lie, where the pack lies, and fields that came after the oldest ComfyUI.
        expected = {**info, "python_module": f"custom_nodes.{PACK}"}
        if "CurveEditor" not in theirs:
            expected = without_curves(json.loads(json.dumps(expected)))
        for field in theirs[name]:
            if field in expected and field != "search_aliases":
                assert theirs[name][field] == json.loads(json.dumps(expected[field])), (name, field)


def test_the_stand_ins_take_what_comfyuis_own_nodes_take(server):
    theirs = fetch(server, "/object_info")
    for name, node in cli.registry().items():
        if name.startswith("Talking") or (name == "CustomCombo" and name not in theirs):  # newer than the oldest host
            continue
        mine, real = node.GET_NODE_INFO_V1(), theirs[name]
        assert mine["output"][: len(real["output"])] == real["output"], name  # newer hosts may give more
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
    assert fetch(server, "/i18n")["zh"]["nodeCategories"]["input"] == "输入"
    for page, title in (("", "Instant Driver"), ("/zh", "Instant 驱动")):
        text = fetch(server, f"/extensions/{PACK}/docs/TalkingPortraitInstantDriver{page}.md")
        assert text.decode().startswith(f"# {title}\n")


def test_the_example_runs_and_comes_back(server, tmp_path, capsys):
    assert run(server, INSTANT, "--set", "2.fps=1", "--out", str(tmp_path)) == 0
    (path,) = map(Path, capsys.readouterr().out.split())
    frames = list(open_video(path).frames())
    assert len(frames) == 17
    assert frames[0].shape == (512, 512, 3)


def test_a_run_can_be_cancelled_midway(server, base):
    encoded = set(base.glob("temp/*"))
    prompt = json.loads((INSTANT.parent / "api" / INSTANT.name).read_text())
    prompt["2"]["inputs"]["seed"] = 77
    reports = []

    def cancel(title: str, done: int, total: int) -> None:
        reports.append((title, done, total))
        if title == "Instant Render" and 0 < done < total and ("cancelled", 0, 0) not in reports:
            reports.append(("cancelled", 0, 0))
            urllib.request.urlopen(urllib.request.Request(f"{server}/interrupt", data=b"{}", method="POST"))

    with pytest.raises(comfy_client.ServerInterruptedError, match="interrupted at Instant Render"):
        comfy_client.run_on_server(server, prompt, fetch(server, "/object_info"), out=Path("out"), report=cancel)
    after = reports[reports.index(("cancelled", 0, 0)) :]
    assert len([step for step in after if step[0] == "Instant Render"]) <= 2
    for _ in range(50):  # the queue is tidied up just after the message
        if not any(fetch(server, "/queue").values()):
            break
        time.sleep(0.1)
    assert fetch(server, "/queue") == {"queue_running": [], "queue_pending": []}
    assert set(base.glob("temp/*")) == encoded, "nothing is left of the video that was being encoded"


def test_bad_input_is_reported_in_a_sentence(server, models, capsys):
    assert run(server, INSTANT, "--set", "2.fps=1000") == 2
    assert "Instant Driver (node 2): Value 1000.0 bigger than max of 240.0: fps" in capsys.readouterr().err
    detect = ROOT / "example_workflows" / "crop_and_paste.json"
    assert run(server, detect, "--set", "2.engine=mediapipe") == 3
    stderr = capsys.readouterr().err
    assert "error: Detect Landmarks: The model file " in stderr
    assert "face_landmarker.task is missing; " in stderr
    command = shlex.split(stderr.strip().rpartition("or run: ")[2])
    assert command[2:5] == ["models", "get", "face_landmarker"]
    checked = subprocess.run([*command[:3], "check", *command[4:]], capture_output=True, text=True, check=True)
    assert checked.stdout.startswith("missing ")
    assert f"{models}" in checked.stdout
    vocals = ROOT / "example_workflows" / "vocals.json"
    assert run(server, vocals) == 2
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


@pytest.fixture(scope="module")
def aniportrait(models) -> None:
    write_for_comfyui(models)


def small_aniportrait(name: str, folder: Path, **changes: Any) -> Path:
    """An example with small frames, one step and ComfyUI's own loaders on random weights."""
    prompt = json.loads((ROOT / "example_workflows" / "api" / f"{name}.json").read_text())
    small = {"width": 64, "height": 64, "steps": 1, "vae_name": "random.pt", "clip_name": "random.pt", **changes}
    for entry in prompt.values():
        entry["inputs"] |= {key: value for key, value in small.items() if key in entry["inputs"]}
        if entry["class_type"] == "TalkingPortraitInstantDriver":
            entry["inputs"]["fps"] = 1
    path = folder / f"{name}.json"
    path.write_text(json.dumps(prompt))
    return path


def test_aniportrait_runs_on_comfyuis_own_vae_and_clip(server, aniportrait, tmp_path, capsys):
    assert run(server, small_aniportrait("aniportrait_instant", tmp_path), "--out", str(tmp_path)) == 0
    (path,) = map(Path, capsys.readouterr().out.split())
    frames = list(open_video(path).frames())
    assert len(frames) == 17
    assert frames[0].shape == (64, 64, 3)


@pytest.fixture(scope="module")
def landmarker(models) -> None:
    if not TASK.is_file():
        pytest.skip("no face landmark model beside the repository")
    (models / "detection").mkdir(exist_ok=True)
    shutil.copy(TASK, models / "detection")


@pytest.fixture(scope="module")
def clips(base) -> None:
    """short.wav, 0.2 s of the sample's speech."""
    audio = example_speech()
    soundfile.write(base / "input" / "short.wav", audio.waveform[0, : audio.sample_rate // 5], audio.sample_rate)


def shortened(workflow: Path) -> Path:
    """The graph with short.wav as its only speech."""
    graph = json.loads(workflow.read_text())
    graph["short"] = {"class_type": "LoadAudio", "inputs": {"audio": "short.wav"}}
    for entry in graph.values():
        if "audio" in entry["inputs"] and entry["class_type"].startswith("Talking"):
            entry["inputs"]["audio"] = ["short", 0]
    workflow.write_text(json.dumps(graph))
    return workflow


def test_aniportrait_is_driven_by_speech_and_by_a_video_in_comfyui(
    server, landmarker, clips, aniportrait, tmp_path, capsys
):
    for workflow, frames in (
        (shortened(small_aniportrait("aniportrait_audio", tmp_path)), 6),
        (small_aniportrait("aniportrait_video", tmp_path), 17),
    ):
        assert run(server, workflow, "--out", str(tmp_path)) == 0
        (path,) = map(Path, capsys.readouterr().out.split())
        assert len(list(open_video(path).frames())) == frames


def test_aniportrait_shows_pictures_and_stops_within_a_step(server, aniportrait, tmp_path):
    prompt = json.loads(small_aniportrait("aniportrait_instant", tmp_path, steps=20, seed=9).read_text())
    previews, steps = asyncio.run(interrupted_at(server, prompt, "TalkingPortraitAniPortraitSampler", 3))
    assert previews, "pictures arrive while it samples"
    assert steps < 7, "work went on after the interrupt"


async def interrupted_at(server: str, prompt: dict, kind: str, step: int) -> tuple[list[bytes], int]:
    """Queues a prompt, interrupts it at a step of a node; the pictures that came, and the last step reported."""
    previews: list[bytes] = []
    reached = 0
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{server}/ws?clientId=previews") as socket_:
        await session.post(f"{server}/prompt", json={"prompt": prompt, "client_id": "previews"})
        async for message in socket_:
            if message.type == aiohttp.WSMsgType.BINARY:
                previews += [message.data] if message.data[:4] == (1).to_bytes(4, "big") else []
                continue
            event = json.loads(message.data)
            assert event["type"] not in ("execution_error", "execution_success"), event
            if event["type"] == "execution_interrupted":
                return previews, reached
            node = event.get("data", {}).get("node")
            if event["type"] == "progress" and prompt[node]["class_type"] == kind:
                if reached < step <= event["data"]["value"]:
                    await session.post(f"{server}/interrupt", json={})
                reached = event["data"]["value"]
    raise AssertionError("the server hung up")


def test_aniportrait_goes_on_from_a_state(server, aniportrait, tmp_path, capsys):
    prompt = json.loads(small_aniportrait("aniportrait_instant", tmp_path).read_text())
    (sampler,) = [node for node, entry in prompt.items() if entry["class_type"] == "TalkingPortraitAniPortraitSampler"]
    (save,) = [node for node, entry in prompt.items() if entry["class_type"] == "SaveVideo"]
    prompt["90"] = {**prompt[sampler], "inputs": {**prompt[sampler]["inputs"], "previous": [sampler, 2]}}
    prompt[save]["inputs"]["video"] = ["90", 3]
    workflow = tmp_path / "continued.json"
    workflow.write_text(json.dumps(prompt))
    assert run(server, workflow, "--out", str(tmp_path)) == 0
    (path,) = map(Path, capsys.readouterr().out.split())
    assert len(list(open_video(path).frames())) == 17


def test_aniportrait_reports_errors_in_a_sentence(server, aniportrait, tmp_path, capsys):
    other = {"pose_guider": "aniportrait/audio2pose.pt"}
    for status, changes, words in (
        (3, {"window": 4, "overlap": 4}, "AniPortrait Sampler: "),
        (3, other, "is AniPortrait's audio2pose, but AniPortrait's pose_guider is"),
        (2, {"motion_module": "aniportrait/gone.pth"}, "models get aniportrait_motion_module"),
        (3, {"dtype": "float16"}, "float16, which a CPU cannot compute well"),
    ):
        assert run(server, small_aniportrait("aniportrait_instant", tmp_path, **changes)) == status
        assert words in capsys.readouterr().err


def small_apasco(name: str, folder: Path, **changes: Any) -> Path:
    """As `small_aniportrait`, with the sample's own landmarks, as the landmark model is no random one."""
    prompt = json.loads((ROOT / "example_workflows" / "api" / f"{name}.json").read_text())
    small = {"width": 64, "height": 72, "steps": 1, "frames": 6, "clip_length": 4, "vae_name": "random.pt", **changes}
    (sample,) = [node for node, entry in prompt.items() if entry["class_type"] == "TalkingPortraitSample"]
    (find,) = [node for node, entry in prompt.items() if entry["class_type"] == "TalkingPortraitDetectLandmarks"]
    del prompt[find]
    for entry in prompt.values():
        inputs = entry["inputs"]
        inputs |= {key: value for key, value in small.items() if key in inputs}
        inputs |= {key: [sample, 2] for key, value in inputs.items() if value == [find, 0]}
    path = folder / f"{name}.json"
    path.write_text(json.dumps(prompt))
    return path


@pytest.fixture(scope="module")
def apasco(models, aniportrait) -> None:
    trained = tiny_apasco.write_net(models, tiny_apasco.CONFIG.with_geometry(4))
    trained.rename(models / "talking_portrait" / "geometry.pth")
    tiny_apasco.write_net(models)
    tiny_apasco.write_speech_encoder(models)
    tiny_apasco.write_insightface(models)


@pytest.mark.parametrize(
    ("name", "frames"), [("apasco", 6), ("apasco_lips", 6), ("apasco_geometry", 6), ("apasco_long", 18)]
)
def test_apasco_runs_on_comfyuis_own_vae(server, apasco, tmp_path, capsys, name, frames):
    changes = {"net": "geometry.pth"} if name == "apasco_geometry" else {}
    assert run(server, small_apasco(name, tmp_path, **changes), "--out", str(tmp_path)) == 0
    (path,) = map(Path, capsys.readouterr().out.split())
    video = open_video(path)
    assert video.size == (72, 64)
    assert len(list(video.frames())) == frames


def test_apasco_shows_pictures_and_stops_within_a_step(server, apasco, tmp_path):
    prompt = json.loads(small_apasco("apasco", tmp_path, steps=20, seed=9).read_text())
    previews, steps = asyncio.run(interrupted_at(server, prompt, "TalkingPortraitAPascoSampler", 3))
    assert previews, "pictures arrive while it samples"
    assert steps < 7, "work went on after the interrupt"


def test_apasco_reports_errors_in_a_sentence(server, apasco, tmp_path, capsys):
    for name, changes, words in (
        ("apasco_geometry", {"net": "hallo/net.pth"}, "APasco Sampler: This checkpoint has no mesh encoder"),
        ("apasco", {"net": "aniportrait/denoising_unet.pth"}, "but net.pth of Hallo or APasco is expected"),
    ):
        assert run(server, small_apasco(name, tmp_path, **changes)) == 3
        assert words in capsys.readouterr().err


@pytest.fixture(scope="module")
def anitalker(models) -> None:
    tiny_anitalker.write_models(models)
    tiny_gfpgan.write_models(models)


def small_anitalker(name: str, folder: Path) -> Path:
    prompt = json.loads((ROOT / "example_workflows" / "api" / f"{name}.json").read_text())
    for entry in prompt.values():
        entry["inputs"] |= {"steps": 3} if "steps" in entry["inputs"] else {}
        if entry["class_type"] == "TalkingPortraitRestoreFaces":  # what random weights draw has no face to find
            entry["inputs"]["landmarks"] = ["1", 2]
    path = folder / f"{name}.json"
    path.write_text(json.dumps(prompt))
    return shortened(path)


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        *[("anitalker", 5), ("anitalker_pose", 5), ("anitalker_video", 5), ("anitalker_restored", 5)],
        *[("anitalker_full_control", 5), ("anitalker_mfcc", 4), ("anitalker_mfcc_full_control", 4)],
    ],
)
def test_anitalker_runs_in_comfyui(server, landmarker, clips, anitalker, tmp_path, capsys, name, frames):
    assert run(server, small_anitalker(name, tmp_path), "--out", str(tmp_path)) == 0
    (path,) = map(Path, capsys.readouterr().out.split())
    assert len(list(open_video(path).frames())) == frames


@pytest.mark.parametrize("name", ["anitalker_full_control", "anitalker_mfcc_full_control"])
def test_the_head_follows_a_curve_of_comfyuis_editor(server, landmarker, clips, anitalker, tmp_path, capsys, name):
    """Where this ComfyUI has that node; in others the node is as it was before."""
    theirs = fetch(server, "/object_info")
    sockets = {
        key: spec
        for key, spec in theirs["TalkingPortraitAniTalkerMotion"]["input"]["optional"].items()
        if spec[0] == "CURVE"
    }
    if "CurveEditor" not in theirs:
        assert not sockets
        return
    assert all(spec[1]["forceInput"] for spec in sockets.values()), "else they would be widgets, which are always given"
    workflow = small_anitalker(name, tmp_path)
    prompt = json.loads(workflow.read_text())
    drawn = {"points": [[0, 0.5], [0.5, 0.8], [1, 0.5]], "interpolation": "monotone_cubic"}
    prompt["curve"] = {"class_type": "CurveEditor", "inputs": {"curve": drawn}}
    motion = next(entry for entry in prompt.values() if entry["class_type"] == "TalkingPortraitAniTalkerMotion")
    motion["inputs"] |= {"control": "numbers", "curves": "yaw 0:9"}
    videos = []
    for curves in ({}, {key: ["curve", 0] for key in sockets}):
        motion["inputs"] |= curves
        workflow.write_text(json.dumps(prompt))
        assert run(server, workflow, "--out", str(tmp_path)) == 0
        (path,) = map(Path, capsys.readouterr().out.split())
        videos.append(np.stack(list(open_video(path).frames())).astype(float))
    assert np.abs(videos[0] - videos[1]).max() > 1, "the curve moves the head otherwise than the text"
    motion["inputs"]["yaw_curve"] = "up"
    workflow.write_text(json.dumps(prompt))
    assert run(server, workflow) == 3
    assert "The input \"yaw_curve\" is 'up' (str), but a curve is expected" in capsys.readouterr().err


def test_nodes_show_their_pictures_and_keep_them(server, tmp_path):
    """Where this ComfyUI keeps them: a run in which the node need not run again has its picture too."""
    portrait, masks = ["1", 0], {"face_ratio": 1.2, "lip_ratio": 2.0}
    found = {"face": "largest", "index": 0, "missing": "hold", "engine": "opencv"}
    crop = {"size": 64, "framing": "head", "scale": 1.0, "upright": False, "follow": False}
    drive = {**dict.fromkeys(("mouth", "head", "brows", "blinks", "drift"), 1.0), "seed": 0, "fps": 1}
    nodes = {
        "DetectLandmarks": {"images": portrait, **found},
        "CropPortrait": {"images": portrait, "landmarks": ["1", 2], **crop},
        "RegionMasks": {"landmarks": ["1", 2], **masks},
        "PreviewMotion": {"motion": ["2", 0], "size": 64},
        "DrawPose": {"motion": ["2", 0], "landmarks": ["1", 2], "width": 64, "height": 64},
    }
    graph = {
        "1": {"class_type": "TalkingPortraitSample", "inputs": {}},
        "2": {"class_type": "TalkingPortraitInstantDriver", "inputs": {"audio": ["1", 1], **drive}},
    }
    for name, inputs in nodes.items():
        graph[name] = {"class_type": f"TalkingPortrait{name}", "inputs": inputs}
        graph[f"after {name}"] = {"class_type": "PreviewAny", "inputs": {"source": [name, 0]}}
    keeps = "has_intermediate_output" in fetch(server, "/object_info/ImageScale")["ImageScale"]
    workflow = tmp_path / "shown.json"
    for number in range(2):
        for name in nodes:
            graph[f"again {name} {number}"] = {"class_type": "PreviewAny", "inputs": {"source": [name, 0]}}
        workflow.write_text(json.dumps(graph))
        assert run(server, workflow, "--out", str(tmp_path)) == cli.NO_OUTPUTS, "what is shown on the way is no result"
        outputs = next(reversed(fetch(server, "/history").values()))["outputs"]
        for name in nodes:
            images = outputs.get(name, {}).get("images", [])
            assert len(images) == (1 if keeps else 0), name
            for image in images:
                assert image["type"] == "temp"
                query = urllib.parse.urlencode({key: image[key] for key in ("filename", "subfolder", "type")})
                with urllib.request.urlopen(f"{server}/view?{query}", timeout=30) as answer:
                    assert answer.read(4) == b"\x89PNG"


def test_faces_are_restored_by_comfyuis_own_loader(server, models, landmarker, tmp_path, capsys):
    """At the published size, the only one that ComfyUI's loader accepts."""
    graph: dict[str, Any] = {
        "1": {"class_type": "TalkingPortraitSample", "inputs": {}},
        "2": {"class_type": "UpscaleModelLoader", "inputs": {"model_name": "random.pth"}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "restored"}},
    }
    inputs = {"images": ["1", 0], "upscale_model": ["2", 0], "landmarks": ["1", 2]}
    defaults = {"strength": 0.8, "faces": "centre", "batch_size": 1}
    graph["3"] = {"class_type": "TalkingPortraitRestoreFaces", "inputs": {**inputs, **defaults}}
    tiny_gfpgan.write_file(models / "upscale_models" / "random.pth", GFPGANConfig())
    workflow = tmp_path / "restore.json"
    workflow.write_text(json.dumps(graph))
    assert run(server, workflow, "--out", str(tmp_path)) == 0
    (path,) = map(Path, capsys.readouterr().out.split())
    from PIL import Image

    assert Image.open(path).size == (512, 512)


def test_anitalker_reports_errors_in_a_sentence(server, anitalker, clips, tmp_path, capsys):
    workflow = small_anitalker("anitalker", tmp_path)
    for changes, words in (
        ({"stage1": "anitalker/stage2_pose_only_mfcc.ckpt"}, "Load AniTalker: "),
        ({"stage2": "anitalker/stage2_pose_only_mfcc.ckpt"}, "takes MFCC"),
    ):
        graph = json.loads(workflow.read_text())
        for entry in graph.values():
            entry["inputs"] |= {key: value for key, value in changes.items() if key in entry["inputs"]}
        changed = tmp_path / "changed.json"
        changed.write_text(json.dumps(graph))
        assert run(server, changed) == 3
        assert words in capsys.readouterr().err


def streamed(folder: Path, *, seed: int, images: bool, video: bool = True, size: int = 96) -> Path:
    """Instant on a crop of the sample, its VIDEO and, with `images`, its IMAGE too saved as videos."""
    prompt = json.loads((INSTANT.parent / "api" / INSTANT.name).read_text())
    by_class = {entry["class_type"]: node for node, entry in prompt.items()}
    sample, driver, render, save = (
        by_class[name]
        for name in (
            "TalkingPortraitSample",
            "TalkingPortraitInstantDriver",
            "TalkingPortraitInstantRender",
            "SaveVideo",
        )
    )
    crop = {"images": [sample, 0], "landmarks": [sample, 2], "size": size, "framing": "head", "scale": 1}
    prompt["crop"] = {
        "class_type": "TalkingPortraitCropPortrait",
        "inputs": {**crop, "upright": False, "follow": False},
    }
    prompt[driver]["inputs"] |= {"seed": seed, "fps": 5}
    prompt[render]["inputs"] |= {"image": ["crop", 0], "landmarks": ["crop", 2], "audio": [sample, 1]}
    options = {**prompt[by_class["SaveVideo"]]["inputs"], "filename_prefix": f"streamed{seed}"}
    del prompt[by_class["SaveVideo"]]
    if video:
        prompt["video"] = {"class_type": "SaveVideo", "inputs": {**options, "video": [render, 3]}}
    if images:
        prompt["parts"] = {"class_type": "GetVideoComponents", "inputs": {"video": [render, 3]}}
        for name in ("parts", render):
            shown = {"images": [name, 0], "filename_prefix": f"of_{name}"}
            prompt[f"save {name}"] = {"class_type": "SaveImage", "inputs": shown}
    path = folder / "streamed.json"
    path.write_text(json.dumps(prompt))
    return path


def test_what_was_streamed_is_made_again_once_frames_are_needed(server, tmp_path, capsys):
    """ComfyUI keeps results of a node: those of a run without frames must not reach a node that takes frames."""
    videos = []
    for number, images in enumerate((False, True, False)):
        out = tmp_path / str(number)
        assert run(server, streamed(tmp_path, seed=5, images=images), "--out", str(out)) == 0
        paths = [Path(line) for line in capsys.readouterr().out.split()]
        videos += [path for path in paths if path.suffix == ".mp4"]
        assert len([path for path in paths if path.suffix == ".png"]) == (2 * 81 if images else 0)
    assert len(videos) >= 2, "what has not changed is not saved again"
    for path in videos:
        frames = np.stack(list(open_video(path).frames())).astype(float)
        assert frames.shape == (81, 96, 96, 3)
        assert np.abs(frames - np.stack(list(open_video(videos[0]).frames()))).mean() < 0.5
        assert abs(float(read_audio(path).seconds) - 16) < 0.3


def test_a_result_with_frames_serves_whoever_needs_the_video_later(server, tmp_path, capsys):
    assert run(server, streamed(tmp_path, seed=6, images=True, video=False), "--out", str(tmp_path)) == 0
    capsys.readouterr()
    assert run(server, streamed(tmp_path, seed=6, images=True), "--out", str(tmp_path)) == 0
    (path,) = [Path(line) for line in capsys.readouterr().out.split() if line.endswith(".mp4")]
    assert len(list(open_video(path).frames())) == 81


@pytest.mark.parametrize("images", [False, True])
def test_odd_sides_are_saved(server, tmp_path, capsys, images):
    assert run(server, streamed(tmp_path, seed=7, images=images, size=97), "--out", str(tmp_path)) == 0
    (path,) = [Path(line) for line in capsys.readouterr().out.split() if line.endswith(".mp4")]
    assert open_video(path).size == (98, 98)
    assert float(read_audio(path).seconds) > 15


def test_odd_pictures_frames_are_saved_by_comfyuis_own_encoder(server, tmp_path, capsys):
    prompt = json.loads(streamed(tmp_path, seed=8, images=False, size=97).read_text())
    render = next(node for node, entry in prompt.items() if entry["class_type"] == "TalkingPortraitInstantRender")
    joined = {"images": [render, 0], "fps": [render, 2]}
    prompt["joined"] = {"class_type": "CreateVideo", "inputs": joined}
    prompt["video"]["inputs"]["video"] = ["joined", 0]
    workflow = tmp_path / "joined.json"
    workflow.write_text(json.dumps(prompt))
    assert run(server, workflow, "--out", str(tmp_path)) == 0
    (path,) = [Path(line) for line in capsys.readouterr().out.split() if line.endswith(".mp4")]
    assert open_video(path).size == (98, 98)


def last_message(server: str, kind: str) -> dict[str, Any]:
    """What ComfyUI sent to the front end about the last run; the history has it soon after the run."""
    for _ in range(50):
        messages = next(reversed(fetch(server, "/history").values()))["status"]["messages"]
        found = [data for name, data in messages if name == kind]
        if found:
            return found[0]
        time.sleep(0.1)
    raise AssertionError(f"no {kind} in {messages}")


def test_missing_files_are_absent_from_lists_and_named_together(server, models, tmp_path, capsys):
    graph = {
        "1": {
            "class_type": "TalkingPortraitLoadAniTalker",
            "inputs": {"stage1": "anitalker/gone.ckpt", "stage2": "anitalker/stage2_pose_only_hubert.gone.ckpt"},
        },
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
        "3": {"class_type": "TalkingPortraitLoadSpeechEncoder", "inputs": {"file": "gone.safetensors"}},
        "4": {"class_type": "PreviewAny", "inputs": {"source": ["3", 0]}},
    }
    described = fetch(server, "/object_info/TalkingPortraitSeparateVocals")["TalkingPortraitSeparateVocals"]
    assert "Kim_Vocal_2.onnx" not in described["input"]["required"]["model"][1]["options"]
    workflow = tmp_path / "missing.json"
    workflow.write_text(json.dumps(graph))
    assert run(server, workflow) == 2
    lines = sorted(line.strip() for line in capsys.readouterr().err.splitlines() if "(node" in line)
    assert [line.partition(" (node")[0] for line in lines] == ["Load AniTalker", "Load Speech Encoder"], "one each"
    for name in ("anitalker/gone.ckpt", "anitalker/stage2_pose_only_hubert.gone.ckpt", "anitalker_ckpts", str(models)):
        assert name in lines[0]
    assert "stage1, stage2 - The model files " in lines[0]
    assert "gone.safetensors is missing; " in lines[1]


def test_faces_are_detected_anew_once_a_better_model_is_there(server, models, tmp_path, capsys):
    graph = {
        "1": {"class_type": "TalkingPortraitSample", "inputs": {}},
        "2": {
            "class_type": "TalkingPortraitDetectLandmarks",
            "inputs": {"images": ["1", 0], "face": "largest", "index": 0, "missing": "hold", "min_confidence": 0.45},
        },
        "3": {"class_type": "PreviewAny", "inputs": {"source": ["2", 1]}},
    }
    workflow = tmp_path / "detect.json"
    workflow.write_text(json.dumps(graph))
    model = models / "detection" / "face_landmarker.task"
    kept = model.rename(tmp_path / "kept.task") if model.is_file() else None
    try:
        assert run(server, workflow) == cli.NO_OUTPUTS
        assert run(server, workflow) == cli.NO_OUTPUTS
        assert "2" in last_message(server, "execution_cached")["nodes"]
        model.parent.mkdir(exist_ok=True)
        model.write_bytes(b"no model")
        assert run(server, workflow) == 3
        assert last_message(server, "execution_error")["node_id"] == "2", "it was run again, with the file that came"
    finally:
        model.unlink(missing_ok=True)
        if kept:
            kept.rename(model)


def test_the_api_client_uploads_queues_follows_and_downloads(server, tmp_path):
    image, voice = tmp_path / "own portrait.png", tmp_path / "own voice.wav"
    write_image(image, example_portrait()[0])
    audio = example_speech()
    soundfile.write(voice, audio.waveform[0, : 2 * audio.sample_rate], audio.sample_rate)
    client = [sys.executable, str(ROOT / "examples" / "api_client.py"), "--server", server, "--out", str(tmp_path)]
    files = ["--image", str(image), "--audio", str(voice)]
    done = subprocess.run([*client, *files, "--set", "4.fps=2"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = map(Path, done.stdout.splitlines())
    assert len(list(open_video(path).frames())) == 4
    refused = subprocess.run([*client, *files, "--set", "4.fps=1000"], capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "TalkingPortraitInstantDriver (node 4): Value 1000.0 bigger than max of 240.0: fps" in refused.stderr
    empty = tmp_path / "empty.wav"
    soundfile.write(empty, audio.waveform[0, :0], audio.sample_rate)
    failed = subprocess.run([*client, "--audio", str(empty)], capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("error: ")
