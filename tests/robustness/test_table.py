"""Each row of the robustness table: its test is there, or it is run and says its sentence."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import talking_portrait
from talking_portrait.__main__ import main
from talking_portrait.nodes.standalone import command
from talking_portrait.nodes.standalone import node_api as standalone
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.workflow.check import describe

from . import inputs, rows, table

ROOT = Path(__file__).parents[2]
ALL = [row for section in rows.SECTIONS.values() for row in section]
ELSEWHERE = [row for row in ALL if row.test]
LOADERS = {".png": "LoadImage", ".wav": "LoadAudio", ".mp4": "LoadVideo"}


def named(row: rows.Row) -> str:
    return f"{row.given}, {row.way}"


@cache
def functions(file: Path) -> set[str]:
    return {entry.name for entry in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(entry, ast.FunctionDef)}


@cache
def texts() -> list[str]:
    """Every text in the pack's code, parts of f-strings by themselves."""
    files = [path for layer in ("models", "pipelines", "nodes") for path in (ROOT / layer).rglob("*.py")]
    return [
        entry.value
        for path in files
        for entry in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(entry, ast.Constant) and isinstance(entry.value, str)
    ]


@pytest.mark.parametrize("row", ELSEWHERE, ids=named)
def test_a_row_is_covered_by_a_test(row: rows.Row) -> None:
    file, function = row.test.split("::")
    assert function in functions(ROOT / "tests" / file)
    assert bool(row.sentence) != bool(row.figure)
    for piece in re.split(r"\s*\.\.\.\s*", row.sentence):
        assert any(piece in text for text in texts()), f"the pack does not say {piece!r}"


def place_inputs(named: list[str], folder: Path) -> None:
    for name in named:
        if name in inputs.INPUTS and not (folder / name).exists():
            inputs.make(name, folder)


def says(sentence: str, said: str) -> bool:
    return re.search(".*".join(map(re.escape, sentence.split("..."))), said) is not None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TALKING_PORTRAIT_MODELS", str(tmp_path / "models"))
    return tmp_path


@pytest.mark.parametrize("row", rows.COMMANDS, ids=named)
def test_a_command_says_its_sentence(row: rows.Row, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = shlex.split(row.way)
    place_inputs([*arguments, *(("face.png", "voice.wav") if arguments[0] == "batch" else ())], folder)
    before = {path.name for path in folder.iterdir()}
    assert main(arguments) == 2
    (said,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    assert says(row.sentence, said), said
    left = {path.name for path in folder.iterdir()} - before
    assert left <= ({"data"} if arguments[0] == "prepare" else set()), "a result of what is refused"


@pytest.mark.parametrize("row", rows.NODES, ids=named)
def test_a_node_says_its_sentence(row: rows.Row, folder: Path) -> None:
    node, *given = shlex.split(row.way)
    registry = command.registry()
    known = describe(registry, {node})[node]["input"]
    usual = {
        name: options[0]["default"]
        for name, (_, *options) in (known.get("required", {}) | known.get("optional", {})).items()
        if options and "default" in options[0]
    }

    def run() -> None:
        for name, file in (pair.split("=") for pair in given):
            place_inputs([file], folder)
            (usual[name], *_) = registry[LOADERS[Path(file).suffix]].execute(file).args
        registry[node].execute(**usual)

    session = standalone.Session(input_folder=folder, output_folder=folder / "out")
    with standalone.use_session(session), pytest.raises(TalkingPortraitError) as raised:
        run()
    assert says(row.sentence, str(raised.value)), raised.value


@pytest.mark.parametrize("row", rows.CALLS, ids=named)
def test_a_call_says_its_sentence(row: rows.Row, folder: Path) -> None:
    call = ast.parse(row.way, mode="eval").body
    assert isinstance(call, ast.Call)
    function: Callable[..., Any] = getattr(talking_portrait, ast.unparse(call.func))
    arguments = [ast.literal_eval(value) for value in call.args]
    options = {str(entry.arg): ast.literal_eval(entry.value) for entry in call.keywords}
    place_inputs([value for value in arguments if value], folder)
    with pytest.raises(TalkingPortraitError) as raised:
        function(*arguments, **options)
    assert says(row.sentence, str(raised.value)), raised.value


def test_every_complaint_has_its_row() -> None:
    assert [row.given.split(":")[0] for row in rows.COMPLAINTS] == [f"C{number}" for number in range(1, 33)]


def test_the_page_is_that_of_the_rows() -> None:
    assert table.PAGE.read_text("utf-8") == table.page(), "run python -m tests.robustness.table"
