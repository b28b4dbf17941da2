"""`doctor`: what it says where all is well, and one sentence for each thing that is not."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from talking_portrait.__main__ import main
from talking_portrait.pipelines import diagnosis
from talking_portrait.pipelines.diagnosis import MODULES, OLDEST, Finding
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.packages import PACK, VERSION

ROOT = Path(__file__).parents[2]


def problems() -> list[str]:
    return [finding.text for finding in diagnosis.diagnose() if finding.problem]


def test_nothing_is_wrong_where_the_tests_run(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.delenv("TALKING_PORTRAIT_MARK", raising=False)
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for part in (f"Talking Portrait {VERSION}", "Python 3.", "torch 2.", "device: ", "ffmpeg: ", "models of apasco: "):
        assert part in printed
    assert printed.endswith("Nothing is wrong.\n")


@pytest.mark.parametrize(("threads", "counted"), [(1, "1 thread;"), (2, "2 threads;")])
def test_threads_are_counted(monkeypatch: pytest.MonkeyPatch, threads: int, counted: str) -> None:
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    assert [finding.text for finding in diagnosis._device()][0].startswith(f"device: CPU, {counted}")


def test_every_required_package_is_looked_at_with_its_oldest_version() -> None:
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    required = dict(line.lower().split(">=") for line in lines if line)
    assert required.pop("opencv-contrib-python") == "4.8", "load_opencv says so"
    assert required == OLDEST
    assert required.keys() <= MODULES.keys()


def test_a_missing_and_an_old_package_are_problems(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "einops", None)
    monkeypatch.setattr(diagnosis, "version", lambda package: "0.9.1" if package == "av" else "99.0")
    monkeypatch.setenv("TALKING_PORTRAIT_MARK", "maybe")
    assert main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert "problem  einops can't be loaded (" in printed
    assert f'run: "{sys.executable}" -m pip install einops' in printed
    assert "problem  av is 0.9.1, but 14.2 or newer is needed; run: " in printed
    assert "problem  The environment variable TALKING_PORTRAIT_MARK is 'maybe'" in printed
    assert printed.endswith("3 problems found.\n")


@pytest.mark.parametrize(
    ("file", "text", "said", "problem"),
    [
        ("comfyui_version.py", '__version__ = "0.3.75"', "ComfyUI 0.3.75 in ", False),
        ("comfyui_version.py", '__version__ = "0.3.9"', "is too old; update it to 0.3.64 or newer.", True),
        ("pyproject.toml", '[project]\nversion = "1.2.0"', "ComfyUI 1.2.0 in ", False),
        ("comfyui_version.py", "nothing", "can't be read; update ComfyUI to 0.3.64 or newer.", True),
        ("main.py", "", "can't be read; update ComfyUI to 0.3.64 or newer.", True),
        ("other.txt", "", "is a base directory without its program", False),
    ],
)
def test_comfyui_around_the_pack(tmp_path: Path, file: str, text: str, said: str, problem: bool) -> None:
    (tmp_path / "custom_nodes" / "talking-portrait").mkdir(parents=True)
    (tmp_path / file).write_text(text)
    (finding,) = diagnosis._comfyui(tmp_path / "custom_nodes" / "talking-portrait")
    assert said in finding.text
    assert finding.problem == problem


def test_a_second_copy_beside_the_pack_is_a_problem(tmp_path: Path) -> None:
    folder = tmp_path / "custom_nodes"
    names = {"old.disabled": "talking-portrait", "talking-portrait-main": "talking-portrait", "theirs": "other"}
    for other, name in names.items():
        (folder / other).mkdir(parents=True)
        (folder / other / "pyproject.toml").write_text(f'[project]\nname = "{name}"\n')
    (folder / "own").mkdir()
    shutil.copy(PACK / "pyproject.toml", folder / "own")
    (finding, _) = diagnosis._comfyui(folder / "own")
    assert finding.problem
    assert f"in {folder / 'own'} and in {folder / 'talking-portrait-main'};" in finding.text


@pytest.mark.parametrize(
    ("name", "problem"), [("talking portrait", True), ("päck", True), ("Pack-main", False), ("tp(1).x", False)]
)
def test_a_folder_whose_templates_comfyui_does_not_serve_is_a_problem(tmp_path: Path, name: str, problem: bool) -> None:
    (tmp_path / "custom_nodes" / name).mkdir(parents=True)
    *found, _ = diagnosis._comfyui(tmp_path / "custom_nodes" / name)
    assert [finding.problem for finding in found] == [True] * problem
    assert all("rename it to talking-portrait" in finding.text for finding in found)


def test_the_folder_of_models_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor", "--models", str(tmp_path), "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["problems"] == sum(finding["problem"] for finding in report["findings"])
    assert code == (report["problems"] > 0)
    assert any(
        finding["text"].startswith(f"model files are looked for in {tmp_path}; ") for finding in report["findings"]
    )


def test_a_broken_model_file_is_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "detection").mkdir()
    (tmp_path / "detection" / "face_landmarker.task").write_bytes(b"cut short")
    assert main(["doctor", "--models", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "face_landmarker.task is broken (wrong" in printed
    assert "models get face_landmarker" in printed


@pytest.mark.skipif(os.name == "nt", reason="writes a shell script")
@pytest.mark.parametrize(
    ("script", "said"),
    [("exit 3", "does not run; run: "), ("echo ' V..... mpeg4'", "has no libx264, which videos need; unset")],
)
def test_an_ffmpeg_that_is_of_no_use_is_a_problem(tmp_path: Path, monkeypatch, script: str, said: str) -> None:
    tool = tmp_path / "ffmpeg"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setattr(diagnosis, "executable", lambda: str(tool))
    (finding,) = diagnosis._ffmpeg()
    assert finding.problem
    assert said in finding.text


@pytest.mark.parametrize("error", [TalkingPortraitError("It fails; mend it."), OSError("no"), RuntimeError("driver")])
def test_a_look_that_fails_is_itself_a_finding(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def failing() -> list[Finding]:
        raise error

    monkeypatch.setattr(diagnosis, "_device", failing)
    (problem,) = problems()
    assert problem == str(error) or problem.startswith("Something could not be looked at (")
