"""Servers that are not ComfyUI, or are hostile: what they answer ends in one sentence, in time, and stays in --out."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from talking_portrait.__main__ import main
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.workflow import server, server_connection, server_results
from talking_portrait.pipelines.workflow.result_names import MAX_NAME_BYTES, plain_name
from talking_portrait.pipelines.workflow.server_results import files_of, place_of

from ..pipelines.workflow.test_server import INFO, PROMPT, SAVED, SUCCESS, FakeComfy


def answering(path: str, handler: Any, **options: Any) -> FakeComfy:
    """A server that is like ComfyUI but for the answer to one path."""
    names = {"/object_info": "_info", "/ws": "_ws", "/prompt": "_prompt", "/history": "_history", "/view": "_view"}

    async def answer(self: FakeComfy, request: web.Request) -> web.StreamResponse:
        return await handler(request)

    hostile = type("Hostile", (FakeComfy,), {names[path]: answer})
    return hostile(SUCCESS, outputs=SAVED, **options)


def body(content: bytes | str, **options: Any) -> Any:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=content, **options)

    return answer


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" " * 100_000)


async def dripping(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.05)


async def silent(request: web.Request) -> web.Response:
    await asyncio.sleep(600)
    return web.Response()


def run(hostile: FakeComfy, folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str]:
    """Exit code and what was said of a run on the server; results go to `folder`/out."""
    (folder / "flow.json").write_text(json.dumps(PROMPT))
    with hostile:
        command = ["run", str(folder / "flow.json"), "--server", hostile.address, "--out", str(folder / "out"), *more]
        code = main(command)
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert sum(line.startswith("error: ") for line in told.splitlines()) == (code not in (0, 7))
    assert max(map(len, told.splitlines())) < 1500
    assert not [path for path in folder.rglob("*") if path.is_file() and not path.is_relative_to(folder / "out")][1:]
    return code, told


@pytest.fixture(autouse=True)
def _soon_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in for ComfyUI does not answer a farewell."""
    monkeypatch.setattr(server, "SECONDS_TO_CLOSE", 0.1)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that are reached within a test."""
    monkeypatch.setattr(server_connection, "MAX_ANSWER", 500_000)
    monkeypatch.setattr(server, "MAX_RESULT_BYTES", 500_000)
    monkeypatch.setattr(server, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(server_connection.get_json, "__defaults__", (0.5,))
    monkeypatch.setattr(server_connection.post_json, "__kwdefaults__", {"allowed": (200,), "within": 0.5})


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("path", ["/object_info", "/prompt", "/history", "/view"])
@pytest.mark.parametrize("handler", [endless, dripping, silent])
def test_an_answer_without_end_is_cut_off(tmp_path, capsys, path, handler):
    code, told = run(answering(path, handler), tmp_path, capsys, "--timeout", "2")
    assert code in (3, 5, 6)
    assert any(words in told for words in ("has more than", "have more than", "took longer", "in time", "any more"))
    assert not [place for place in (tmp_path / "out").rglob("*") if place.is_file()]


@pytest.mark.parametrize("path", ["/object_info", "/prompt", "/history"])
@pytest.mark.parametrize(
    "content",
    ["", "null", "[]", "7", '"text"', "{", "<html>", "[" * 100_000, '{"a":' * 100_000, "1" + "0" * 6000, b"\xff\xfe"],
)
def test_an_answer_of_another_kind_is_one_sentence(tmp_path, capsys, path, content):
    code, told = run(answering(path, body(content)), tmp_path, capsys)
    assert code == 6
    assert f"The answer to {path}" in told
    assert "is none of ComfyUI's (it is no JSON object)" in told


@pytest.mark.parametrize(
    "entry",
    [
        None, 5, [], {"outputs": None}, {"outputs": [1]}, {"outputs": {"2": None}}, {"outputs": {"2": [5]}},
        {"outputs": {"2": {"images": 5}}}, {"outputs": {"2": {"images": [None, 5, {}, {"filename": 7}]}}},
        {"outputs": {"2": {"images": [{"filename": None, "subfolder": {}}]}}},
    ],
)  # fmt: skip
def test_a_history_of_other_types_has_no_results(tmp_path, capsys, monkeypatch, entry):
    async def at_once(seconds: float) -> None:
        pass

    monkeypatch.setattr(server.asyncio, "sleep", at_once)
    code, told = run(answering("/history", body(json.dumps({"p1": entry}))), tmp_path, capsys)
    assert code == (7 if isinstance(entry, dict) else 3)
    assert ("keeps no history" in told) == (code == 3)


odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["input", "required", "image", "options", "prompt_id", "filename"]), inner)
    ),
    max_leaves=8,
)


@settings(max_examples=80)
@given(odd)
def test_any_value_may_stand_anywhere_in_an_answer(value):
    client = server._Client("http://x", INFO, Path("out"), 1.0, lambda title, done, total: None)
    for kind in ("executing", "progress", "execution_error", "execution_interrupted", "execution_success"):
        for data in (value, {"node": value, "value": value, "max": value}, {"node_id": value, "exception_type": value}):
            with suppress(TalkingPortraitError):
                assert client._handle({"type": kind, "data": data}, "p1") in (True, False)
    assert isinstance(client._error_lines({"1": value, "2": {"errors": value}, "3": {"errors": [value]}}), list)
    assert isinstance(files_of({"2": value, "3": {"images": [value, {"filename": value}]}}), list)
    info = server._node_info({"input": {"required": {"image": value, "b": [value, value]}, "optional": value}})
    list(server.upload_inputs({"1": {"class_type": "A", "inputs": {"image": "x", "b": "x"}}}, {"A": info}))


@pytest.mark.parametrize(
    "info",
    [
        {"LoadImage": None, "SaveVideo": 5},
        {"LoadImage": {"input": None}, "SaveVideo": {"input": {"required": [1]}}},
        {"LoadImage": {"input": {"required": {"image": []}}}, "SaveVideo": {"input": {"required": {"video": None}}}},
        {"LoadImage": {"input": {"required": {"image": ["STRING", 5]}}, "display_name": {}}, "SaveVideo": {}},
        {"LoadImage": {"input": {"required": {"image": [{}, []]}}, "input_order": 7}, "SaveVideo": {"output": 1}},
    ],
)
def test_node_information_of_other_types_is_passed_over(tmp_path, capsys, info):
    code, _ = run(answering("/object_info", body(json.dumps(info))), tmp_path, capsys)
    assert code == 0
    assert (tmp_path / "out" / "video" / "talk_00001_.mp4").is_file()


@pytest.mark.parametrize(
    "event",
    [
        ("progress", {"node": "1", "value": float("inf"), "max": float("nan")}),
        ("progress", {"node": "1", "value": 10**400, "max": 10**300}),
        ("progress", {"node": {"a": []}, "value": None, "max": "ten"}),
        ("progress", {"node": "1", "value": -5, "max": -1}),
        ("executing", {"node": ["1"] * 1000}),
        (None, {"node": "1"}),
        ({"a": 1}, {}),
    ],
)
def test_odd_messages_are_passed_over(tmp_path, capsys, event):
    code, _ = run(FakeComfy([event, *SUCCESS], outputs=SAVED), tmp_path, capsys)
    assert code == 0


@pytest.mark.parametrize("frame", ["null", "[]", "5", "[" * 50_000, "no json", '{"type": "x", "data": "text"}'])
def test_frames_that_are_no_messages_are_passed_over(tmp_path, capsys, frame):
    async def ws(self: FakeComfy, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await self._queued.wait()
        await socket.send_str(frame)
        self._done = True
        await socket.send_json({"type": "execution_success", "data": {"prompt_id": "p1"}})
        async for _ in socket:
            pass
        return socket

    code, _ = run(type("Odd", (FakeComfy,), {"_ws": ws})([], outputs=SAVED), tmp_path, capsys)
    assert code == 0


def test_messages_without_end_do_not_outlast_the_wait(tmp_path, capsys):
    async def ws(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        while True:
            await socket.send_json({"type": "progress", "data": {"node": "1", "value": 1, "max": 2}})
            await asyncio.sleep(0)  # it answers other requests too, where sending never has to wait

    started = time.monotonic()
    code, told = run(answering("/ws", ws), tmp_path, capsys, "--timeout", "1")
    assert code == 5
    assert "took longer than 1 s and was interrupted" in told
    assert time.monotonic() - started < 60


def test_a_message_larger_than_memory_should_hold_ends_the_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(server, "MAX_MESSAGE", 10_000)

    async def ws(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str("x" * 100_000)
        async for _ in socket:
            pass
        return socket

    code, told = run(answering("/ws", ws), tmp_path, capsys)
    assert code == 6
    assert "closed the connection" in told


@pytest.mark.parametrize(
    ("path", "place"),
    [
        *((path, "http://127.0.0.1:1/x") for path in ("/object_info", "/ws", "/prompt", "/history", "/view")),
        *(("/view", place) for place in ("file:///etc/passwd", "ftp://x", "//[", "", "/object_info")),
    ],
)
def test_no_redirect_is_followed(tmp_path, capsys, path, place):
    async def elsewhere(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": place})

    code, told = run(answering(path, elsewhere), tmp_path, capsys)
    assert code == 6
    assert "passes requests on to" in told


def test_a_result_of_which_next_to_nothing_comes_is_given_up(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(server_connection, "SLOW_SECONDS", 0.3)
    code, told = run(answering("/view", dripping), tmp_path, capsys)
    assert code == 6
    assert "does not answer any more" in told
    assert not [place for place in (tmp_path / "out").rglob("*") if place.is_file()]


NAMES = [
    ("..", "evil.mp4", "evil.mp4"),
    ("a/../../b", "..\\..\\evil.mp4", "a/b/evil.mp4"),
    ("//host/share", "evil.mp4", "host/share/evil.mp4"),
    ("\\\\?\\C:\\x", "evil.mp4", "_/x/evil.mp4"),
    ("~", "~root.mp4", "root.mp4"),
    (" .ssh ", ".bashrc", "ssh/bashrc"),
    ("", "...", "result"),
    ("", "", "result"),
    ("", "a\0b.mp4", "a_b.mp4"),
    ("", "a\x1b[31m\r\n.mp4", "a_[31m__.mp4"),
    ("", "a\u202e4pm.exe", "a_4pm.exe"),
    ("", "a\ud800b.mp4", "a_b.mp4"),
    ("con", "NUL.mp4", "_con/_NUL.mp4"),
    ("", "com1.tar.gz", "_com1.tar.gz"),
    ("", "lpt\u00b9", "_lpt\u00b9"),
    ("", "aux .png", "_aux .png"),
    ("", "talk.mp4. . ", "talk.mp4"),
    ("", "a:stream.mp4", "a_stream.mp4"),
    ("", "-rf", "rf"),
    ("", "%2e%2e%2fevil.mp4", "%2e%2e%2fevil.mp4"),
    ("", "\uff0e\uff0e\uff0fevil.mp4", "\uff0e\uff0e\uff0fevil.mp4"),
    ("", "\u89c6\u9891.mp4", "\u89c6\u9891.mp4"),
]


@pytest.mark.parametrize(("subfolder", "filename", "place"), NAMES)
def test_a_result_stays_inside_the_folder_under_a_name_that_a_file_can_have(tmp_path, subfolder, filename, place):
    assert place_of({"subfolder": subfolder, "filename": filename}, tmp_path) == tmp_path / place


@settings(max_examples=200)
@given(st.text(), st.text())
def test_whatever_a_server_calls_its_result(tmp_path_factory, subfolder, filename):
    root = tmp_path_factory.mktemp("out")
    place = place_of({"subfolder": subfolder, "filename": filename}, root)
    assert place.is_relative_to(root)
    assert ".." not in place.parts
    assert len(place.parts) - len(root.parts) <= server_results.MAX_FOLDERS + 1
    assert all(plain_name(part) == part for part in place.relative_to(root).parts)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.touch()


@pytest.mark.parametrize("name", ["x" * 5000 + ".mp4", "\u89c6" * 5000 + ".mp4", "x." + "y" * 5000, "." * 5000 + "a"])
def test_a_long_name_is_cut_and_keeps_its_ending(name):
    found = plain_name(name)
    assert 0 < len(found.encode()) <= MAX_NAME_BYTES
    assert found.endswith(".mp4") == name.endswith(".mp4")


def test_a_link_in_the_folder_leads_nowhere(tmp_path, capsys):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "video").symlink_to(tmp_path / "elsewhere")
    code, told = run(FakeComfy(SUCCESS, outputs=SAVED), tmp_path, capsys)
    assert code == 2
    assert "leads out of" in told
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_too_many_results_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(server_results, "MAX_RESULTS", 3)
    many = {"2": {"images": [{"filename": f"{number}.png"} for number in range(4)]}}
    code, told = run(FakeComfy(SUCCESS, outputs=many), tmp_path, capsys)
    assert code == 3
    assert "has 4 results, but at most 3" in told


def test_what_a_server_says_can_not_steer_the_terminal(tmp_path, capsys):
    evil = "\x1b]0;owned\x07\x1b[2Jfine\r\nerror: forged"
    failed = {"node_id": evil, "exception_type": evil, "exception_message": evil}
    refusal = {"error": {"message": evil, "details": evil}, "node_errors": {evil: {"errors": [{"message": evil}]}}}
    info = {name: {**entry, "display_name": evil} for name, entry in INFO.items()}
    for hostile, code in (
        (FakeComfy([("execution_error", failed)]), 3),
        (FakeComfy([], (400, refusal)), 2),
        (FakeComfy([("executing", {"node": evil}), *SUCCESS], outputs=SAVED), 0),
        (answering("/object_info", body(json.dumps(info))), 0),
    ):
        found, told = run(hostile, tmp_path, capsys)
        assert found == code
        assert not set(told) & set("\x1b\x07\r")
        assert "\nerror: forged" not in told


@pytest.mark.parametrize(
    "address", ["http://", "http://[::1", "http://a b", "http://127.0.0.1:99999", "http://127.0.0.1:x", "ftp://x",
                "http://" + "a" * 300, "file:///etc/passwd", "http://\x1b[31m", "http://127.0.0.1:1/?q#f"],
)  # fmt: skip
def test_what_is_no_address_is_one_sentence(tmp_path, capsys, address):
    (tmp_path / "flow.json").write_text(json.dumps(PROMPT))
    assert main(["run", str(tmp_path / "flow.json"), "--server", address, "--out", str(tmp_path / "out")]) == 6
    told = capsys.readouterr().err
    assert told.count("error: ") == 1
    assert "\x1b" not in told
    assert len(told) < 500


def test_a_password_in_the_address_is_not_shown(tmp_path, capsys):
    (tmp_path / "flow.json").write_text(json.dumps(PROMPT))
    assert main(["run", str(tmp_path / "flow.json"), "--server", "http://me:secret@127.0.0.1:1"]) == 6
    assert "secret" not in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="of POSIX's signals")
def test_ctrl_c_takes_the_run_off_the_server(tmp_path):
    (tmp_path / "flow.json").write_text(json.dumps(PROMPT))
    ready = "import os, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    start = f"{ready}os.execv(sys.executable, [sys.executable, '-m', 'talking_portrait', *sys.argv[1:]])"
    with FakeComfy([("executing", {"node": "1"})]) as comfy:
        command = ["run", "flow.json", "--server", comfy.address]
        process = subprocess.Popen(
            [sys.executable, "-c", start, *command], cwd=tmp_path, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        assert process.stderr.readline() == "Portrait\n"  # which is what the server has said
        process.send_signal(signal.SIGINT)
        told = process.communicate()[1]
    assert (process.returncode, told.strip()) == (130, "interrupted")
    assert [path for path, _ in comfy.received["withdrawn"]] == ["/queue", "/interrupt"]
    assert not (tmp_path / "out").exists()
