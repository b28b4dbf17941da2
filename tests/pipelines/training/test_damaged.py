"""Damaged training folders, and processes that are no group: one sentence each, and nothing is lost."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.training.core.processes import Processes

from .toy_trainer import Adder, run

NEWEST = "step-00000005.safetensors"
FIRST_MOMENT = "optimiser/loss/network.0.weight/exp_avg"
DEEP = "[" * 100_000


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A run of five steps, in half precision so that there is a state of the loss scaler, with an average."""
    run(tmp_path, 5, precision="fp16", average=0.5, picture_every=5)
    return tmp_path


def go_on(folder: Path) -> str:
    """Goes on with the run and returns the sentence in which that is refused; no file has changed."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(TalkingPortraitError) as caught:
        run(folder, 7, precision="fp16", average=0.5)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 500 + len(str(folder))
    return said


def rewrite(
    folder: Path,
    tensors: dict[str, torch.Tensor | None] | None = None,
    notes: Callable[[dict], Any] | str | None = None,
) -> None:
    """Writes the newest checkpoint again with other tensors, None for one less, and other notes."""
    path = folder / "checkpoints" / NEWEST
    with safe_open(path, framework="pt") as file:
        old, text = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()["notes"]  # noqa: SIM118
    new = {name: tensor for name, tensor in (old | (tensors or {})).items() if tensor is not None}
    if callable(notes):
        text = json.dumps(notes(json.loads(text)))
    elif notes is not None:
        text = notes
    save_file(new, path, {"notes": text})


def test_an_undamaged_run_goes_on(begun: Path) -> None:
    rewrite(begun)
    run(begun, 7, precision="fp16", average=0.5)


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: b"\0" * 100,
        lambda whole: whole[:5],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-1],
        lambda whole: whole + b"more",
        lambda whole: b"\xff" * 8 + whole[8:],
        lambda whole: b"somebody's text, and no checkpoint",
        lambda whole: whole[:8] + b"[" * (len(whole) - 8),
    ],
)
def test_a_file_that_is_cut_short_or_none_at_all(begun: Path, damage: Callable[[bytes], bytes]) -> None:
    path = begun / "checkpoints" / NEWEST
    path.write_bytes(damage(path.read_bytes()))
    said = go_on(begun)
    assert said.startswith(f"{path} is no checkpoint that training can continue from (")
    assert said.endswith("; remove it to use the one before.")


def test_what_is_no_file(begun: Path) -> None:
    path = begun / "checkpoints" / NEWEST
    path.unlink()
    path.mkdir()
    assert "it is no ordinary file" in go_on(begun)
    path.rmdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(path)  # whoever reads it waits for a writer
        assert "it is no ordinary file" in go_on(begun)


def test_a_checkpoint_of_somebody_else(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # permissions do not stop an administrator
    assert go_on(begun).endswith(f"{NEWEST} can't be read; check its permissions.")


@pytest.mark.parametrize(
    ("notes", "words"),
    [
        ("", "its notes are no JSON"),
        ("{", "its notes are no JSON"),
        ("null", "it has no notes by the training loop"),
        ("[1, 2]", "it has no notes by the training loop"),
        ('"adder"', "it has no notes by the training loop"),
        ("1e999", "it has no notes by the training loop"),
        (DEEP, "recursion"),
        ("9" * 5000, "is no checkpoint that training can continue from"),
        ("{}", "its notes name no trainer"),
        (lambda notes: notes | {"trainer": 5}, "its notes name no trainer"),
        (lambda notes: notes | {"trainer": ["adder"]}, "its notes name no trainer"),
        (lambda notes: notes | {"trainer": "a\nb" * 900}, "is a checkpoint of a ba b"),
        (lambda notes: {"trainer": "adder"}, "None is no count of samples"),
        (lambda notes: notes | {"position": "40"}, "'40' is no count of samples"),
        (lambda notes: notes | {"position": 40.0}, "40.0 is no count of samples"),
        (lambda notes: notes | {"position": True}, "True is no count of samples"),
        (lambda notes: notes | {"position": -1}, "-1 is no count of samples"),
        (lambda notes: notes | {"position": [0] * 900}, "... is no count of samples"),
        (lambda notes: notes | {"position": 10**400}, "... is no count of samples"),
        (lambda notes: notes | {"position": float("nan")}, "nan is no count of samples"),
        (lambda notes: notes | {"scaler": [1]}, "[1] is no state of a loss scaler"),
        (lambda notes: notes | {"scaler": {"scale": 1.0}}, "is no state of a loss scaler"),
        (lambda notes: notes | {"scaler": notes["scaler"] | {"scale": "1"}}, "is no state of a loss scaler"),
        (lambda notes: notes | {"scaler": notes["scaler"] | {"scale": float("nan")}}, "is no state of a loss scaler"),
        (lambda notes: notes | {"scaler": notes["scaler"] | {"scale": 1e300}}, "is no state of a loss scaler"),
        (lambda notes: notes | {"scaler": notes["scaler"] | {"scale": 0.0}}, "is no state of a loss scaler"),
        (lambda notes: notes | {"scaler": notes["scaler"] | {"growth_interval": 1e9}}, "is no state of a loss scaler"),
        (lambda notes: notes | {"scaler": notes["scaler"] | {"_growth_tracker": 2**40}}, "is no state of a loss"),
        (lambda notes: notes | {"scaler": notes["scaler"] | {"backoff_factor": None}}, "is no state of a loss scaler"),
    ],
)
def test_notes_that_no_run_wrote(begun: Path, notes: Any, words: str) -> None:
    rewrite(begun, notes=notes)
    assert words in go_on(begun)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weights/network.0.weight", torch.nan),
        ("weights/network.1.running_var", torch.inf),
        ("average/network.0.weight", torch.nan),
        (FIRST_MOMENT, -torch.inf),
        ("optimiser/loss/network.0.weight/exp_avg_sq", -1.0),
        ("optimiser/loss/network.0.weight/step", torch.nan),
        ("optimiser/loss/network.0.weight/step", -5.0),
    ],
)
def test_values_that_no_run_wrote(begun: Path, name: str, value: float) -> None:
    shape = () if name.endswith("step") else (16,) if "running" in name else (16, 4)
    rewrite(begun, {name: torch.full(shape, value)})
    said = go_on(begun)
    assert "some of its values are no numbers" in said or "has values below 0 where none can be" in said


@pytest.mark.parametrize(
    "tensors",
    [
        {"weights/network.0.weight": None},
        {"weights/network.1.running_mean": None},
        {"weights/network.0.weight": torch.zeros(16, 5)},
        {"weights/network.0.weight": torch.zeros(16, 4, dtype=torch.int64)},
        {"weights/network.0.weight": torch.zeros(16, 4).half()},
        {"weights/somebody's": torch.zeros(1)},
        {"average/network.0.weight": None},
        {"average/network.0.weight": torch.zeros(4, 16)},
        {FIRST_MOMENT: None},
        {FIRST_MOMENT: torch.zeros(())},
        {"optimiser/loss/network.0.weight/step": None},
        {"optimiser/loss/network.0.weight/step": torch.zeros(3)},
        {"optimiser/loss/network.0.weight/momentum_buffer": torch.zeros(16, 4)},
        {"somebody's": torch.zeros(1)},
    ],
)
def test_tensors_of_another_run(begun: Path, tensors: dict) -> None:
    rewrite(begun, tensors)
    assert "go on with the options that the run began with" in go_on(begun)


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe\0",
        b"[]\n",
        b'["step", "rate"]\n',
        b'{"step": "one", "rate": 1.0}\n',
        b'{"step": null, "rate": 1.0}\n',
        b'{"step": 1.5, "rate": 1.0}\n',
        b'{"step": [1], "rate": 1.0}\n',
        b'{"step": -1, "rate": 1.0}\n',
        b"9" * 5000 + b"\n",
        DEEP.encode() + b"\n",
    ],
)
def test_a_log_that_no_run_wrote(begun: Path, text: bytes) -> None:
    (begun / "log.jsonl").write_bytes(text)
    assert "log.jsonl would be written over, but no training run wrote it" in go_on(begun)


def test_a_log_that_is_no_file(begun: Path) -> None:
    log = begun / "log.jsonl"
    log.unlink()
    log.mkdir()
    assert "no training run wrote it" in go_on(begun)
    log.rmdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(log)
        assert "no training run wrote it" in go_on(begun)


def test_what_is_missing_is_made_again(begun: Path) -> None:
    (begun / "log.jsonl").unlink()
    (begun / "adder.safetensors").unlink()
    for picture in (begun / "pictures").iterdir():
        picture.unlink()
    (begun / "pictures").rmdir()
    run(begun, 7, precision="fp16", average=0.5, picture_every=1)
    assert (begun / "adder.safetensors").is_file()
    assert len(list((begun / "pictures").iterdir())) == 2


@pytest.mark.parametrize("name", ["checkpoints", "pictures"])
def test_a_file_in_the_place_of_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("somebody's")
    with pytest.raises(TalkingPortraitError, match="can't be made"):
        run(tmp_path, 1)
    assert (tmp_path / name).read_text() == "somebody's"


def test_a_folder_that_cannot_be_read(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as only_here:
        only_here.setattr(Path, "iterdir", refuse)
        with pytest.raises(
            TalkingPortraitError, match=r"checkpoints can't be read \(Permission denied\); check its perm"
        ):
            run(begun, 7, precision="fp16", average=0.5)


def test_a_folder_that_no_disk_takes(tmp_path: Path) -> None:
    with pytest.raises(TalkingPortraitError, match=r"can't be (made|read) \(.+\)"):
        run(tmp_path / ("n" * 300), 1)


@pytest.mark.parametrize("name", ["log.jsonl", "pictures/step-00000002.png", "checkpoints/step-00000002.safetensors"])
def test_a_disk_that_is_full(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        if path.name == Path(name).name:
            raise OSError(28, "No space left on device")

    original = Path.open

    def opened(self: Path, *arguments: Any, **options: Any) -> Any:
        full(self)
        return original(self, *arguments, **options)

    def renamed(partial: Path, path: Path) -> None:
        full(path)
        partial.replace(path)

    monkeypatch.setattr(Path, "open", opened)
    monkeypatch.setattr("talking_portrait.pipelines.files.output_paths.rename_durably", renamed)
    with pytest.raises(TalkingPortraitError, match=rf"{Path(name).name} can't be written \(No space left on device\)"):
        run(tmp_path, 3, picture_every=2, save_every=2)
    assert not list(tmp_path.rglob("*.part*"))


def test_weights_that_stop_being_numbers_are_not_written(tmp_path: Path) -> None:
    class Exploding(Adder):
        def loss(self, batch, step):
            if step == 4:
                with torch.no_grad():
                    self.network[0].weight[0, 0] = torch.nan
                return self.network[3].weight.sum()
            return super().loss(batch, step)

    with pytest.raises(TalkingPortraitError, match="After step 5 some weights are infinite or no numbers"):
        run(tmp_path, 5, Exploding(), save_every=2)
    assert not (tmp_path / "adder.safetensors").exists()
    assert sorted(path.name[:13] for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000002", "step-00000004"]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"WORLD_SIZE": "abc"}, "The variable WORLD_SIZE is 'abc', but a whole number from 1 on is expected"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0'"),
        ({"WORLD_SIZE": "-2"}, "WORLD_SIZE is '-2'"),
        ({"WORLD_SIZE": "2.5"}, "WORLD_SIZE is '2.5'"),
        ({"WORLD_SIZE": "9" * 5000}, "WORLD_SIZE is '999"),
        ({"WORLD_SIZE": "2"}, "The variable RANK is not set, but a whole number from 0 to 1 is expected"),
        ({"WORLD_SIZE": "2", "RANK": ""}, "RANK is not set"),
        ({"WORLD_SIZE": "2", "RANK": "abc"}, "RANK is 'abc'"),
        ({"WORLD_SIZE": "2", "RANK": "-1"}, "RANK is '-1'"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK is '2'"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "The 2 processes of WORLD_SIZE can't reach each other"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost"}, "can't reach each other"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "abc"}, "can't reach each other"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "99999"}, "can't reach each"),
    ],
)
def test_processes_that_are_no_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: str
) -> None:
    set_variables(monkeypatch, variables)
    with pytest.raises(TalkingPortraitError) as caught:
        run(tmp_path / "run", 1)
    said = str(caught.value)
    assert words in said
    assert said.endswith("which set the variables, or unset WORLD_SIZE for one process.")
    assert "\n" not in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("rank", ["abc", "-1", "2"])
def test_a_graphics_card_that_is_not_there(monkeypatch: pytest.MonkeyPatch, rank: str) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    set_variables(monkeypatch, {"LOCAL_RANK": "1"})
    assert Processes().device == torch.device("cuda", 1)
    set_variables(monkeypatch, {"LOCAL_RANK": rank})
    with pytest.raises(TalkingPortraitError, match=f"LOCAL_RANK is '{rank}', but a whole number from 0 to 1"):
        Processes()


@pytest.mark.parametrize("variables", [{}, {"WORLD_SIZE": ""}, {"WORLD_SIZE": "1", "RANK": "abc"}, {"RANK": "3"}])
def test_one_process_alone(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    set_variables(monkeypatch, variables)
    with Processes() as alone:
        assert (alone.count, alone.rank, alone.first) == (1, 0, True)


def set_variables(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
