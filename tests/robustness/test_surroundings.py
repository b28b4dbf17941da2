"""Streams, folders, homes and signals that are not as usual: one sentence or none, never a traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from talking_portrait import __main__ as command_line
from talking_portrait.__main__ import LESS_MEMORY, main
from talking_portrait.pipelines.commands.shared import terminal
from talking_portrait.pipelines.errors import TalkingPortraitError, escaped, one_line, refusal
from talking_portrait.pipelines.face.landmarker_opencv import TFLiteLandmarker
from talking_portrait.pipelines.face.landmarks import open_landmarker
from talking_portrait.pipelines.files.images import write_image
from talking_portrait.pipelines.files.sound import write_wav
from talking_portrait.pipelines.model_files import store
from talking_portrait.pipelines.model_files.required import required_files
from talking_portrait.pipelines.types import Audio

LIST = f'"{sys.executable}" -m talking_portrait models list'
ANIMATE = f'"{sys.executable}" -m talking_portrait animate --size 64 --audio a.wav --out '
posix = pytest.mark.skipif(os.name != "posix", reason="of POSIX's shells and signals")


def shell(command: str, folder: Path, **variables: str | None) -> subprocess.CompletedProcess[str]:
    write_wav(folder / "a.wav", Audio(torch.rand(1, 6400), 16000))
    environment = {name: value for name, value in {**os.environ, **variables}.items() if value is not None}
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    return done


@posix
@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_a_video_is_made_whichever_streams_are_closed(tmp_path, closed):
    done = shell(f"{ANIMATE} o.mp4 {closed}", tmp_path)
    assert done.returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "o.mp4"]
    assert (tmp_path / "o.mp4").read_bytes()[4:8] == b"ftyp"


@posix
@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (f"{LIST} >/dev/full", 2, "error: The system refused to read or write (No space left on device)"),
        (f"{LIST} >/dev/full 2>&1", 2, ""),
        (f"set -o pipefail; {LIST} nonsense 2>&1 >/dev/null | true", 2, ""),
    ],
)
def test_a_stream_that_takes_nothing_has_its_exit_code(tmp_path, command, code, words):
    if "/dev/full" in command and not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    done = shell(command, tmp_path)
    assert done.returncode == code
    assert done.stderr.startswith(words)
    assert done.stderr.count("\n") == bool(words)


@posix
def test_a_reader_that_has_gone_ends_a_command_with_141():
    """As after `| head -1`, which may also read all that a fast program says before it goes."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "talking_portrait", "models", "list"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@posix
@pytest.mark.parametrize("encoding", ["cp1252", "ascii:strict"])
def test_a_name_that_the_console_has_no_letters_for_is_escaped(tmp_path, encoding):
    done = shell(f"{ANIMATE} \u89c6\u9891.mp4", tmp_path, PYTHONIOENCODING=encoding)
    assert done.returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "\u89c6\u9891.mp4"]
    assert ("\\u89c6\\u9891.mp4: 10 frames" in done.stdout) == (encoding != "utf-8")


@pytest.mark.parametrize("variable", ["~nosuchuser/x", "~nosuchuser"])
def test_a_model_folder_of_nobody_is_one_sentence(monkeypatch, capsys, variable):
    monkeypatch.setenv("TALKING_PORTRAIT_MODELS", variable)
    assert main(["models", "check", "face_landmarker"]) == 2
    assert capsys.readouterr().err.startswith("error: There is no home folder here to keep model files in")


def test_without_a_home_what_needs_no_model_still_runs(tmp_path, monkeypatch, capsys):
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(store.Path, "home", nobody)
    monkeypatch.delenv("TALKING_PORTRAIT_MODELS", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert main(["models", "check", "face_landmarker"]) == 2
    assert "TALKING_PORTRAIT_MODELS" in capsys.readouterr().err
    write_image(tmp_path / "a.png", torch.rand(8, 8, 3))
    (tmp_path / "flow.json").write_text(json.dumps(SAVE))
    assert main(["run", str(tmp_path / "flow.json"), "--input", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert isinstance(open_landmarker(), TFLiteLandmarker)
    with pytest.raises(TalkingPortraitError, match="name a folder for them in the environment variable"):
        open_landmarker(engine="mediapipe")
    with pytest.raises(TalkingPortraitError, match="name a folder for them in the environment variable"):
        required_files("restore", {"gfpgan": "gfpgan"})


SAVE = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}


@posix
def test_a_current_folder_that_is_gone_is_one_sentence(tmp_path):
    (tmp_path / "gone").mkdir()
    done = shell(f"cd gone; rmdir ../gone; {LIST}", tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: The current folder has been removed; change to another one and run it again.\n"


@posix
def test_a_folder_for_temporary_files_that_is_not_there_is_done_without(tmp_path):
    assert shell(f"{ANIMATE} o.mp4", tmp_path, TMPDIR=str(tmp_path / "none")).returncode == 0


@posix
def test_a_home_that_takes_nothing_is_one_sentence(tmp_path):
    """A file, as the superuser may write into any folder."""
    (tmp_path / "home").write_text("")
    home = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": None, "TALKING_PORTRAIT_MODELS": None}
    done = shell(f'"{sys.executable}" -m talking_portrait models get face_landmarker', tmp_path, **home)
    assert done.returncode == 2
    assert "face_landmarker.task can't be written (Not a directory)" in done.stderr
    assert done.stderr.count("\n") == 1
    assert shell(f"{ANIMATE} o.mp4", tmp_path, **home).returncode == 0


def test_an_endless_or_huge_workflow_is_one_sentence(tmp_path, capsys):
    (tmp_path / "huge.json").write_bytes(bytes(21_000_000))
    for name in [str(tmp_path / "huge.json"), *(["/dev/zero"] if os.path.exists("/dev/zero") else [])]:
        assert main(["run", name]) == 2
        assert capsys.readouterr().err == (
            f"error: {name} has more than 20 MB, which no workflow has; give a workflow's JSON.\n"
        )


@pytest.mark.parametrize("content", [b"", b"\xff\xfe{", b"[" * 100_000, b"7" * 5000, b'{"a": 1, "a": {}}', b"null"])
def test_what_is_no_workflow_is_one_sentence(tmp_path, capsys, content):
    (tmp_path / "a.json").write_bytes(content)
    assert main(["run", str(tmp_path / "a.json")]) == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith("error: ")
    assert "\n" not in told
    assert len(told) < 500


def test_a_video_that_is_not_there_fails_prepare(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", "nope.mp4", "--out", "d"]) == 2
    told = capsys.readouterr().err
    assert "error: 1 of 1 videos could not be prepared (nope.mp4), for the reasons above" in told
    assert list(tmp_path.iterdir()) == []


@posix
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["animate", "--image", "p", "--out", "o.mp4"], "The picture file p is a pipe, but an ordinary file is"),
        (["run", "p"], "The workflow p can't be read (it is a pipe)"),
    ],
)
def test_a_pipe_is_not_waited_for(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("p")
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


@posix
def test_a_workflow_may_come_from_another_program(tmp_path):
    done = shell(f'"{sys.executable}" -m talking_portrait run <(echo "[1]")', tmp_path)
    assert "is JSON but no workflow" in done.stderr


def test_an_address_is_no_folder_for_results(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("")
    for command in (["batch", "rows.jsonl"], ["prepare", "nope.mp4"]):
        assert main([*command, "--out", "https://example.org/a"]) == 2
        assert "is an address, but a folder of this machine is expected" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize("command", list(LESS_MEMORY))
def test_each_command_has_its_own_advice_on_memory(command, capsys):
    assert command_line._tell(MemoryError(), command, interrupted=False) == 2
    told = capsys.readouterr().err
    assert told == f"error: This needs more memory than there is; {LESS_MEMORY[command]}.\n"
    assert ("--size" in told) == (command in ("animate", "prepare"))


def test_every_command_has_an_advice_on_memory():
    (commands,) = (action for action in command_line._parser()._actions if action.dest == "command")
    assert set(LESS_MEMORY) == set(commands.choices or ())


def test_a_refusal_of_the_system_names_the_file():
    error = OSError(13, "Permission denied", "face.png")
    assert refusal(error).startswith("face.png can't be used (Permission denied); check")


@posix
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("module", ["argparse", "unicodedata", "aiohttp"])
def test_a_request_to_end_while_the_program_starts_is_no_traceback(tmp_path, name, module):
    """It comes in the middle of the imports, from a module that stands in for one of them."""
    (tmp_path / f"{module}.py").write_text(f"import os, signal\nos.kill(os.getpid(), signal.{name})\n")
    if module == "aiohttp":  # as one of many that other packages pass over when they are broken
        (tmp_path / "torch.py").write_text("try:\n    import aiohttp\nexcept BaseException:\n    pass\n")
    places = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    ready = "import os, signal, sys; [signal.signal(number, signal.SIG_DFL) for number in (1, 2, 15)]; "
    start = f"{ready}os.execv(sys.executable, [sys.executable, '-m', 'talking_portrait', 'motion', '--out', 'a.npz'])"
    done = subprocess.run(
        [sys.executable, "-c", start],
        env={**os.environ, "PYTHONPATH": places},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.strip()) == (130, "interrupted")


@pytest.mark.skipif(not hasattr(signal, "SIGCHLD"), reason="a system without this signal")
def test_readers_that_the_same_request_has_ended_raise_nothing_amid_the_cleaning_up():
    """A scheduler sends SIGTERM to all processes of a job, and DataLoader's handler raises for one that has ended."""
    before = signal.signal(signal.SIGCHLD, lambda number, frame: pytest.fail("a reader has ended"))
    try:
        with pytest.raises(KeyboardInterrupt):
            command_line._interrupting([])(signal.SIGTERM, None)
        os.kill(os.getpid(), signal.SIGCHLD)
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_second_request_does_not_break_into_the_cleaning_up():
    asked: list[float] = []
    interrupt = command_line._interrupting(asked)
    with pytest.raises(KeyboardInterrupt):
        interrupt(signal.SIGINT, None)
    interrupt(signal.SIGINT, None)
    asked[0] -= command_line.SECONDS_TO_CLEAN_UP + 1
    with pytest.raises(KeyboardInterrupt):
        interrupt(signal.SIGINT, None)


def test_torchs_empty_folder_does_not_stay(tmp_path):
    program = (
        "import torch\n"
        "from talking_portrait import __main__ as command\n"
        "weight = torch.nn.Parameter(torch.ones(3))\n"
        "weight.sum().backward(); torch.optim.AdamW([weight]).step()\n"
        "command.main(['models', 'check', 'hallo_net'])"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path), "TALKING_PORTRAIT_MODELS": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
    assert list(tmp_path.iterdir()) == []


EVIL = "\x1b]0;owned\x07\x1b[2Jfine\r\nerror: forged \u202etxt.exe"


@pytest.mark.parametrize("spot", ["title", "id", "class", "file", "prefix", "set", "workflow"])
def test_nothing_of_a_workflow_can_steer_the_terminal(tmp_path, monkeypatch, capsys, spot):
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "a.png", torch.rand(8, 8, 3))
    load, save = ({**node, "inputs": dict(node["inputs"])} for node in SAVE.values())
    first = EVIL if spot == "id" else "1"
    save["inputs"]["images"] = [first, 0]
    if spot == "title":
        load["_meta"] = save["_meta"] = {"title": EVIL}
    if spot == "class":
        load["class_type"] = EVIL
    if spot == "file":
        load["inputs"]["image"] = EVIL
    if spot == "prefix":
        save["inputs"]["filename_prefix"] = EVIL
    name = f"{EVIL.replace('/', '')}.json" if spot == "workflow" else "flow.json"
    (tmp_path / name).write_text("{" if spot == "workflow" else json.dumps({first: load, "2": save}))
    code = main(["run", name, *(["--set", f"{EVIL}.image=5"] if spot == "set" else [])])
    captured = capsys.readouterr()
    assert code == (0 if spot in ("title", "id") else 2)
    assert not set(captured.out + captured.err) & set("\x1b\x07\r\u202e")
    assert sum(line.startswith("error: ") for line in captured.err.splitlines()) == (code != 0)


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("2.images=5", "A link to an output of IMAGE is expected: images is 5"),
        ("2.images=null", "A link to an output of IMAGE is expected: images is 'null'"),
        ("2.images=[1]", "A link to an output of IMAGE is expected: images is '[1]'"),
        ("2.images=", "A link to an output of IMAGE is expected: images is ''"),
    ],
)
def test_a_constant_in_the_place_of_pictures_names_node_and_input(tmp_path, monkeypatch, capsys, assignment, words):
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "a.png", torch.rand(8, 8, 3))
    (tmp_path / "flow.json").write_text(json.dumps(SAVE))
    assert main(["run", "flow.json", "--set", assignment]) == 2
    assert capsys.readouterr().err == f"error: The workflow was refused:\n  SaveImage (node 2): {words}\n"


def test_what_a_terminal_obeys_is_escaped_and_letters_stay():
    assert escaped("a\x1b[31m\u9762\t\x9b\u202e\n\u2028\U0001f600") == (
        "a\\x1b[31m\u9762\\t\\x9b\\u202e\n\\u2028\U0001f600"
    )
    assert one_line("a\n b\r\x00") == "a b \\x00"
    assert one_line("x" * 100, 10) == "xxxxxx ..."


def test_a_name_of_several_lines_is_printed_on_one(capsys):
    terminal.say("a\nb")
    terminal.note("a\nb")
    captured = capsys.readouterr()
    assert captured.out == "a\\nb\n"
    assert captured.err == "a\nb\n"
