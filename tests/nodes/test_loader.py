"""The pack as loaded by ComfyUI's loader, and the host file against small fakes of ComfyUI's modules."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from talking_portrait.nodes import host
from talking_portrait.nodes.checked_node import checked_node
from talking_portrait.pipelines import packages
from talking_portrait.pipelines.errors import TalkingPortraitError

from .node_texts import all_inputs, without_curves

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
HEAVY = {"scipy", "transformers", "diffusers", "mediapipe", "insightface", "audio_separator", "imageio_ffmpeg", "cv2"}
HEAVY |= {"onnxruntime", "aiohttp", "PIL", "matplotlib", "einops", "safetensors"}


def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HERE / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


@pytest.fixture(scope="module")
def outside() -> dict:
    result = run("load_as_comfyui_does.py", str(ROOT))
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def inside() -> dict:
    result = run("load_as_comfyui_does.py", str(ROOT), str(HERE / "fake_comfy"))
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def probed(tmp_path_factory) -> dict:
    models = tmp_path_factory.mktemp("host") / "models"
    for name in ("one.safetensors", "note.txt", "folder/config.json", "folder/model.safetensors"):
        file = models / "audio_encoders" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    result = run("probe_host.py", str(HERE / "fake_comfy"), FAKE_MODELS=str(models))
    assert result.returncode == 0, result.stderr
    return {**json.loads(result.stdout), "models": models}


def test_the_loader_takes_the_pack_under_any_name(outside):
    assert outside["kind"] == "list"
    assert not outside["old entry"], "NODE_CLASS_MAPPINGS would hide the V3 entry"
    assert outside["web"]
    assert "TalkingPortraitInstantRender" in outside["nodes"]
    assert not outside["in comfyui"]


def test_loading_imports_nothing_heavy(outside, inside):
    assert not set(outside["modules"]) & HEAVY
    assert not set(inside["modules"]) & HEAVY


def test_the_nodes_are_the_same_in_comfyui(outside, inside):
    assert inside["in comfyui"]

    def plain(nodes: dict) -> dict:
        return {name: {**info, "search_aliases": None} for name, info in nodes.items()}

    curves = {key for info in outside["nodes"].values() for key, spec in all_inputs(info).items() if spec[0] == "CURVE"}
    assert curves == {"yaw_curve", "pitch_curve", "roll_curve", "location_curve", "scale_curve"}
    assert plain(inside["nodes"]) == plain({name: without_curves(info) for name, info in outside["nodes"].items()})
    assert all(info["search_aliases"] for info in outside["nodes"].values())


def test_our_model_folders_are_registered_and_not_made(inside):
    paths, endings = inside["folders"]["talking_portrait"]
    assert paths == ["/nowhere/models/talking_portrait"]
    assert ".safetensors" in endings
    assert ".part" not in endings
    assert inside["folders"]["detection"][0] == ["/nowhere/models/detection"]
    assert inside["folders"]["audio_encoders"] == [["/nowhere/models/audio_encoders"], [".safetensors"]]


def test_an_error_in_the_entry_point_shows_its_traceback():
    result = run("load_as_comfyui_does.py", str(ROOT), BREAK_THE_PACK="1")
    assert result.returncode != 0
    logged = result.stderr.partition("Talking Portrait could not be loaded")[2]
    assert "Traceback (most recent call last)" in logged.split("Error")[0]


def test_an_old_comfyui_is_named(tmp_path):
    (tmp_path / "folder_paths.py").write_text("")
    result = run("load_as_comfyui_does.py", str(ROOT), str(tmp_path))
    assert "Talking Portrait needs ComfyUI 0.3.64 or newer" in result.stderr


def test_progress_reaches_the_node_with_pictures_now_and_then(probed):
    picture = ["JPEG", [6, 4], 512]
    assert probed["shown"] == [[1, 3, picture], [2, 3, None], [3, 3, picture]]
    assert probed["not known"] == [0, 1, None], "a bar of 0 of 0 shows NaN"


def test_a_picture_that_vanishes_at_the_size_of_a_preview_is_not_sent(probed):
    """ComfyUI's server ends at a JPEG without height."""
    assert probed["thin"] == [3, 3, None]


def test_videos_whose_temporary_files_were_deleted_are_made_again_or_named(probed):
    assert probed["of frames"] == ["video", "video"]
    assert probed["streamed"][0] == "video"
    assert probed["streamed"][1].startswith("The temporary video talking_portrait_00001_.mp4 has been deleted; empty")
    assert probed["duration"] == [5, probed["streamed"][1]]


def test_frames_of_create_video_are_taken_from_memory(probed):
    assert probed["frames of"] == [[1, 2, 3], None]


def test_a_cancelled_run_stops_at_the_next_step(probed):
    assert probed["cancelled"]


def test_memory_and_devices_are_the_hosts(probed):
    assert probed["socket"] == "torch.float16"
    assert probed["free"] == 4_000_000_000
    assert probed["loaded"] == [["ModelPatcher", 1000]] * 2
    assert probed["reads"] == [0, 1], "a network is read when it is first needed, and once"
    assert probed["device"] == "cpu"


def test_model_names_are_files_and_whole_folders(probed):
    assert probed["names"] == ["folder", "one.safetensors"]
    assert probed["unknown"] == []
    assert probed["found"] == str(probed["models"] / "audio_encoders" / "one.safetensors")


def test_the_command_for_models_names_all_that_it_needs(probed):
    python, pack, *rest = shlex.split(probed["command"])
    assert python == sys.executable
    assert Path(pack, "__main__.py").is_file()
    assert rest == ["models", "get", "one", "--models", str(probed["models"])]


def test_temporary_files_lie_in_the_hosts_folder(probed):
    assert probed["temporary"] == [str(probed["models"].parent / "temp"), True]


@pytest.mark.parametrize(
    ("copies", "words"), [(["custom_nodes/other"], "nodes of .* are taken, and those of .*other"), ([], "")]
)
def test_a_second_copy_of_the_pack_is_named(tmp_path, monkeypatch, caplog, copies, words):
    loaded = {}
    for copy in copies:
        module = ModuleType("another.nodes.input.example")
        module.__file__ = str(tmp_path / copy / "nodes" / "input" / "example.py")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        loaded["TalkingPortraitSample"] = type("Example", (), {"__module__": module.__name__})
    monkeypatch.setitem(sys.modules, "nodes", SimpleNamespace(NODE_CLASS_MAPPINGS=loaded))
    monkeypatch.setattr(host, "IN_COMFYUI", True)
    host.warn_of_another_copy("TalkingPortraitSample")
    assert bool(caplog.text) == bool(copies)
    assert re.search(words, caplog.text)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            r"refused to read or write \(No space left on device\); check",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "temp"),
            r"temp can't be used \(Permission denied\); check",
        ),
        (
            ModuleNotFoundError("No module named 'none'", name="none"),
            r"package none is not installed; run: .*-r \S*ts\.txt\"$",
        ),
    ],
)
def test_what_the_system_refuses_a_node_is_one_sentence(error, words):
    class Node:
        @classmethod
        def define_schema(cls):
            return SimpleNamespace(display_name="Some Node", inputs=[])

        @classmethod
        @checked_node
        def execute(cls):
            raise error

    with pytest.raises(TalkingPortraitError, match=words) as raised:
        Node.execute()
    assert str(raised.value).startswith("Some Node: ")


def test_the_list_that_holds_torch_is_for_what_comfyui_brings():
    lines = (packages.PACK / "requirements-standalone.txt").read_text().splitlines()
    names = {re.match(r"[\w-]+", line)[0] for line in lines if not line.startswith("#")}
    assert names == set(packages.STANDALONE)
