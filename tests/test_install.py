"""Installation by users: `pip install -r requirements.txt` into ComfyUI's Python, on a machine that has no compiler."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch
from talking_portrait.pipelines.files.example import example_portrait
from talking_portrait.pipelines.files.images import write_image
from talking_portrait.pipelines.files.video import open_video

from .pipelines.vocals.test_separation import parameters, write_network

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="the commands below are written for a POSIX shell"),
]
ROOT = Path(__file__).resolve().parent.parent
HOSTS_OWN = {"torch": torch.__version__.partition("+")[0], "numpy": numpy.__version__}
UNUSED = r"audio-separator .* requires (diffq|onnx-weekly|onnx2torch-py313|samplerate), which is not installed\."
"""What audio-separator requires and nothing here calls."""


class Machine:
    """A virtual environment with ComfyUI's own torch and numpy, for programs that find no compiler."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        self.python = str(folder / "venv" / "bin" / "python")
        (folder / "talking_portrait").symlink_to(ROOT)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CONDA"))}
        nothing = {"CC": "/bin/false", "CXX": "/bin/false", "PATH": str(folder / "venv" / "bin")}
        models = {"TALKING_PORTRAIT_MODELS": str(folder / "models"), "PYTHONPATH": str(folder)}
        self.environment = kept | nothing | models
        self.pip("install", "--quiet", *(f"{name}=={version}" for name, version in HOSTS_OWN.items()))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.python, *arguments],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def pip(self, *arguments: str) -> str:
        done = self.run("-m", "pip", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def versions(self) -> dict[str, str]:
        return {entry["name"].lower(): entry["version"] for entry in json.loads(self.pip("list", "--format=json"))}


@pytest.fixture(scope="module")
def machine(tmp_path_factory) -> Machine:
    machine = Machine(tmp_path_factory.mktemp("machine"))
    before = machine.versions()
    report = machine.folder / "report.json"
    machine.pip("install", "--quiet", "--report", str(report), "-r", str(ROOT / "requirements.txt"))
    files = [entry["download_info"]["url"] for entry in json.loads(report.read_text())["install"]]
    assert files
    assert not [file for file in files if not file.endswith(".whl")], "only wheels need no compiler"
    assert machine.versions().items() >= before.items(), "what was there stays as it was"
    return machine


def test_the_installed_packages_fit_each_other(machine):
    machine.pip("check")
    assert not machine.versions().keys() & {"torchvision", "torchaudio"}


def test_an_own_picture_is_animated(machine):
    write_image(machine.folder / "own.png", example_portrait()[0])
    done = machine.run(str(ROOT), "animate", "--image", "own.png", "--size", "96", "--out", "x.mp4")
    assert done.returncode == 0, done.stderr
    assert open_video(machine.folder / "x.mp4").size == (96, 96)
    imported = machine.run("-c", "import cv2, mediapipe, insightface, diffusers, transformers, av")
    assert imported.returncode == 0, imported.stderr


def test_the_commands_that_separate_vocals_names_install_what_it_needs(machine):
    before = machine.versions()
    parameters(write_network(machine.folder / "half.onnx", 0.5))
    separate = (
        "import torch\n"
        "from talking_portrait.pipelines.types import Audio\n"
        "from talking_portrait.pipelines.vocals.separation import separate\n"
        "vocals, _ = separate(Audio(torch.sin(torch.arange(22050)[None] / 14) * 0.5, 44100), 'half.onnx')\n"
        "print('peak', float(vocals.waveform.abs().max()))"
    )
    refused = machine.run("-c", separate)
    commands = refused.stderr.strip().splitlines()[-1].partition("; run: ")[2].split(" && ")
    assert len(commands) == 2, refused.stderr
    for command in commands:
        python, *arguments = shlex.split(command)
        assert python == machine.python
        done = machine.run(*arguments)
        assert done.returncode == 0, done.stderr
    done = machine.run("-c", separate)
    assert done.returncode == 0, done.stderr
    assert 0.2 < float(done.stdout.split()[-1]) < 0.3
    assert machine.versions().items() >= before.items(), "what was there stays as it was"
    missing = machine.run("-m", "pip", "check").stdout.splitlines()
    assert all(re.fullmatch(UNUSED, line) for line in missing), missing
