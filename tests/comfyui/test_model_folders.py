"""Model folders as commands find them against those of a real ComfyUI: COMFYUI_DIR=<checkout> make comfyui."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from talking_portrait.nodes import host
from talking_portrait.pipelines.model_files import store

pytestmark = pytest.mark.comfyui

ASK = """
import json, sys
import comfy.options
comfy.options.enable_args_parsing()
import folder_paths
from utils.extra_config import load_extra_path_config
load_extra_path_config(sys.argv[-1])
print(json.dumps({name: folders for name, (folders, _) in folder_paths.folder_names_and_paths.items()}))
"""
EXTRA = """
elsewhere:
    base_path: ~/$SOME/${OTHER}/x
    vae: |
        one/
        two/../three

        /absolute/four
    unet: |
        net
    clip: texts
    diffusion_models: newer
    talking_portrait: own
    detection: |
      models/detection
upfront:
    is_default: true
    base_path: relative
    vae: one
    audio_encoders: sound
    upscale_models: up
own:
    base_path: {base}
    is_default: 1
    vae: models/vae
    clip_vision: models/clip_vision/
none:
bare:
    vae: beside
    talking_portrait: >
        folded into
        one line
    upscale_models: /outside/upscale
"""


def test_commands_find_folders_as_comfyui_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = Path(os.environ.get("COMFYUI_DIR", "/nonexistent"))
    if not (checkout / "main.py").is_file():
        pytest.skip("COMFYUI_DIR names no ComfyUI checkout")
    base = tmp_path / "base"
    for name in ("models", "custom_nodes/pack"):
        (base / name).mkdir(parents=True)
    (base / "main.py").touch()
    extra = base / "extra_model_paths.yaml"
    extra.write_text(EXTRA.replace("{base}", str(base)), encoding="utf-8")
    for name, value in {"HOME": str(tmp_path / "home"), "SOME": "some", "PYTHONPATH": str(checkout)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("OTHER", raising=False)
    monkeypatch.delenv("TALKING_PORTRAIT_MODELS", raising=False)
    python = os.environ.get("COMFYUI_PYTHON", sys.executable)
    command = [python, "-c", ASK, "--base-directory", str(base), "--extra-model-paths-config", str(extra)]
    asked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    known = {name: (folders, set()) for name, folders in json.loads(asked.stdout.splitlines()[-1]).items()}
    namespace = SimpleNamespace(folder_names_and_paths=known, models_dir=str(base / "models"))
    monkeypatch.setattr(host, "folder_paths", namespace, raising=False)
    monkeypatch.setattr(host, "IN_COMFYUI", True)
    host.register_model_folders()
    monkeypatch.setattr(store, "PACK", base / "custom_nodes" / "pack")
    assert len(store.default_folders("vae")) == 6
    for category in sorted({model.folder for model in store.list_files()}):
        ours, theirs = store.default_folders(category), host.model_folders(category)
        if category == "diffusion_models":  # of which ComfyUI names the folder of the former name first
            ours, theirs = sorted(ours), sorted(theirs)
        assert ours == theirs, category
