"""The client against a small server that behaves like ComfyUI's, and every way in which a run can end."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from talking_portrait.nodes.standalone import command as cli
from talking_portrait.pipelines.workflow import server as comfy_client

PROMPT = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "face.png"}, "_meta": {"title": "Portrait"}},
    "2": {"class_type": "SaveVideo", "inputs": {"video": ["1", 0], "filename_prefix": "talk"}},
}
INFO = {
    "LoadImage": {"input": {"required": {"image": [["example.png"], {"image_upload": True}]}}, "output": ["IMAGE"]},
    "SaveVideo": {
        "input": {"required": {"video": ["VIDEO", {}], "filename_prefix": ["STRING", {}]}},
        "output": [],
        "output_node": True,
    },
}


@dataclass
class FakeComfy:
    """Plays `events` after a prompt has come; `accept` is the answer of /prompt."""

    events: list[tuple[str, dict[str, Any]]]
    accept: tuple[int, dict[str, Any]] = (200, {"prompt_id": "p1", "number": 1, "node_errors": {}})
    outputs: dict[str, Any] = field(default_factory=dict)
    close_early: bool = False
    history: list[list[Any] | str] | None = None
    """Messages of a run that ended while no client was connected, or failed after its success was told."""
    received: dict[str, Any] = field(default_factory=lambda: {"uploads": {}, "withdrawn": []})
    address: str = ""

    def __enter__(self) -> FakeComfy:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(120)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(120)
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _end(self) -> None:
        await self._runner.cleanup()
        # What still answers would be reported, on the error stream of another test, when it is collected.
        answering = asyncio.all_tasks() - {asyncio.current_task()}
        for task in answering:
            task.cancel()
        await asyncio.gather(*answering, return_exceptions=True)

    async def _start(self) -> None:
        self._queued = asyncio.Event()
        self._done = False
        app = web.Application()
        app.add_routes(
            [
                web.get("/object_info", self._info),
                web.get("/ws", self._ws),
                web.post("/upload/image", self._upload),
                web.post("/prompt", self._prompt),
                web.get("/history/{id}", self._history),
                web.get("/view", self._view),
                web.post("/queue", self._withdraw),
                web.post("/interrupt", self._withdraw),
            ]
        )
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.address = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _info(self, request: web.Request) -> web.Response:
        return web.json_response(INFO)

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        part = form["image"]
        assert isinstance(part, web.FileField)
        self.received["uploads"][part.filename] = part.file.read()
        return web.json_response({"name": f"stored {part.filename}", "subfolder": "sub", "type": "input"})

    async def _prompt(self, request: web.Request) -> web.Response:
        self.received["prompt"] = await request.json()
        self._queued.set()
        return web.json_response(self.accept[1], status=self.accept[0])

    async def _ws(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        self.received["client_id"] = request.query["clientId"]
        await ws.send_json({"type": "status", "data": {"status": {}}})
        await self._queued.wait()
        for kind, data in self.events:
            await ws.send_bytes(b"\x00\x00\x00\x01preview")
            if kind == "execution_success":
                self._done = True
            await ws.send_json({"type": kind, "data": {"prompt_id": "p1", **data}})
        if self.close_early:
            await ws.close()
        async for _ in ws:
            pass
        return ws

    async def _history(self, request: web.Request) -> web.Response:
        status = {"status_str": "error" if self.history else "success", "messages": self.history or []}
        known = self._done or self.history is not None
        return web.json_response({"p1": {"outputs": self.outputs, "status": status}} if known else {})

    async def _view(self, request: web.Request) -> web.Response:
        return web.Response(body=f"{request.query['type']}:{request.query['filename']}".encode())

    async def _withdraw(self, request: web.Request) -> web.Response:
        self.received["withdrawn"].append((request.path, await request.json()))
        return web.json_response({})


SUCCESS = [
    ("execution_start", {}),
    ("executing", {"node": "1"}),
    ("progress", {"node": "1", "value": 1, "max": 2}),
    ("progress", {"prompt_id": "another", "node": "1", "value": 2, "max": 2}),
    ("executing", {"node": None}),
    ("execution_success", {}),
]
SAVED = {"2": {"images": [{"filename": "talk_00001_.mp4", "subfolder": "video", "type": "output"}], "animated": [True]}}


def run(server: FakeComfy, out: Path, **options: Any) -> comfy_client.ServerRun:
    return comfy_client.run_on_server(server.address, PROMPT, INFO, out=out, **options)


def test_files_are_uploaded_and_results_downloaded(tmp_path):
    picture = tmp_path / "my face.png"
    picture.write_bytes(b"pixels")
    reported = []
    with FakeComfy(SUCCESS, outputs=SAVED) as server:
        result = run(
            server, tmp_path / "out", files={"face.png": picture}, report=lambda *raised: reported.append(raised)
        )
    assert server.received["uploads"] == {"my face.png": b"pixels"}
    assert server.received["prompt"]["prompt"]["1"]["inputs"]["image"] == "sub/stored my face.png"
    assert server.received["prompt"]["client_id"] == server.received["client_id"]
    assert result.files == [tmp_path / "out" / "video" / "talk_00001_.mp4"]
    assert result.files[0].read_bytes() == b"output:talk_00001_.mp4"
    assert reported == [("Portrait", 0, 0), ("Portrait", 1, 2)]
    assert not server.received["withdrawn"]
    assert PROMPT["1"]["inputs"]["image"] == "face.png"


def test_previews_come_only_when_nothing_was_saved(tmp_path):
    preview = {"1": {"images": [{"filename": "look.png", "subfolder": "", "type": "temp"}]}}
    with FakeComfy(SUCCESS, outputs=preview) as server:
        assert [file.name for file in run(server, tmp_path).files] == ["look.png"]
    with FakeComfy(SUCCESS, outputs={**preview, **SAVED}) as server:
        assert [file.name for file in run(server, tmp_path).files] == ["talk_00001_.mp4"]


def test_what_a_node_shows_on_the_way_is_no_result(tmp_path):
    preview = {"1": {"images": [{"filename": "look.png", "subfolder": "", "type": "temp"}]}}
    info = {**INFO, "LoadImage": {**INFO["LoadImage"], "has_intermediate_output": True}}
    with FakeComfy(SUCCESS, outputs=preview) as server:
        result = comfy_client.run_on_server(server.address, PROMPT, info, out=tmp_path, timeout=20)
    assert result.files == []


@pytest.mark.parametrize(
    ("subfolder", "filename", "place"),
    [
        ("/etc/../..", "../../evil.mp4", "etc/evil.mp4"),
        ("//tmp/escaped", "evil.mp4", "tmp/escaped/evil.mp4"),
        ("\\\\tmp\\escaped", "..\\evil.mp4", "tmp/escaped/evil.mp4"),
        ("", "//evil.mp4", "evil.mp4"),
        ("", "///tmp/evil.mp4", "tmp/evil.mp4"),
        ("C:/x", "evil.mp4", "x/evil.mp4"),
        ("..", "..", "result"),
    ],
)
def test_a_server_can_not_write_outside_the_folder(tmp_path, subfolder, filename, place):
    evil = {"2": {"images": [{"filename": filename, "subfolder": subfolder, "type": "output"}]}}
    with FakeComfy(SUCCESS, outputs=evil) as server:
        (file,) = run(server, tmp_path / "out").files
    assert file == tmp_path / "out" / place
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


@pytest.mark.parametrize(
    ("filename", "names"),
    [
        ("talk_00001_.mp4", ["talk_00001_.mp4", "talk_00002_.mp4", "talk_00003_.mp4"]),
        ("talk.mp4", ["talk.mp4", "talk_00001_.mp4", "talk_00002_.mp4"]),
    ],
)
def test_results_of_before_are_kept(tmp_path, filename, names):
    saved = {"2": {"images": [{"filename": filename, "subfolder": "video", "type": "output"}]}}
    (tmp_path / "video").mkdir()
    (tmp_path / "video" / names[0]).write_bytes(b"yesterday's")
    for name in names[1:]:
        with FakeComfy(SUCCESS, outputs=saved) as server:
            assert run(server, tmp_path).files == [tmp_path / "video" / name]
    assert sorted(path.name for path in (tmp_path / "video").iterdir()) == sorted(names)
    assert (tmp_path / "video" / names[0]).read_bytes() == b"yesterday's"


def test_a_download_that_fails_leaves_no_file(tmp_path):
    class Broken(FakeComfy):
        async def _view(self, request: web.Request) -> web.Response:
            return web.Response(status=500)

    with Broken(SUCCESS, outputs=SAVED) as server, pytest.raises(comfy_client.ServerUnreachableError):
        run(server, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


REFUSAL = {
    "error": {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation", "details": ""},
    "node_errors": {
        "1": {
            "errors": [{"type": "value_not_in_list", "message": "Value not in list", "details": "image: 'face.png'"}],
            "class_type": "LoadImage",
        }
    },
}
BROKEN = {"node_id": "1", "exception_type": "RuntimeError", "exception_message": "out of luck\n"}


@pytest.mark.parametrize(
    ("server", "error", "code", "words"),
    [
        (
            FakeComfy([], (400, REFUSAL)),
            comfy_client.ServerRefusedError,
            2,
            "Portrait (node 1): Value not in list: image: 'face.png'",
        ),
        (
            FakeComfy([], (400, {"error": {"message": "no node X", "details": "Node ID '#1'"}, "node_errors": {}})),
            comfy_client.ServerRefusedError,
            2,
            "no node X\n  Node ID '#1'",
        ),
        (
            FakeComfy([("execution_error", BROKEN)]),
            comfy_client.ServerError,
            3,
            "Portrait: RuntimeError: out of luck",
        ),
        (
            FakeComfy([("execution_interrupted", {"node_id": "1"})]),
            comfy_client.ServerInterruptedError,
            4,
            "interrupted at Portrait",
        ),
        (FakeComfy([("executing", {"node": "1"})], close_early=True), comfy_client.ServerUnreachableError, 6, "closed"),
        (
            FakeComfy([], close_early=True, history=[["execution_error", BROKEN]]),
            comfy_client.ServerError,
            3,
            "Portrait: RuntimeError: out of luck",
        ),
        (
            FakeComfy([], close_early=True, history=[["execution_interrupted", {"node_id": "1"}]]),
            comfy_client.ServerInterruptedError,
            4,
            "interrupted at Portrait",
        ),
        (
            FakeComfy([], close_early=True, history=["the worker\nis gone"]),
            comfy_client.ServerError,
            3,
            "The run failed: the worker is gone; look at ComfyUI's log.",
        ),
        (
            FakeComfy(SUCCESS, history=["the result got lost"]),
            comfy_client.ServerError,
            3,
            "The run failed: the result got lost; look at ComfyUI's log.",
        ),
    ],
)
def test_every_other_outcome_has_its_message_and_exit_code(tmp_path, server, error, code, words):
    with server, pytest.raises(error) as raised:
        run(server, tmp_path)
    assert words in str(raised.value)
    assert raised.value.exit_code == code


def test_a_run_that_ended_without_a_message_is_found_in_the_history(tmp_path):
    with FakeComfy([], outputs=SAVED, close_early=True, history=[]) as server:
        assert [file.name for file in run(server, tmp_path).files] == ["talk_00001_.mp4"]


def test_a_part_that_the_server_leaves_out_is_reported(tmp_path):
    accepted = {"prompt_id": "p1", "number": 1, "node_errors": REFUSAL["node_errors"]}
    with FakeComfy(SUCCESS, (200, accepted), SAVED) as server:
        result = run(server, tmp_path)
    assert result.warnings[1] == "  Portrait (node 1): Value not in list: image: 'face.png'"
    assert len(result.files) == 1


def test_what_comfyui_repeats_for_each_input_of_a_node_is_said_once(tmp_path):
    """It does so with what a node's own check says, here of the two files of a loader."""
    said = {"type": "custom_validation_failed", "message": "Custom validation failed for node"}
    errors = [{**said, "details": f"{name} - The files - are missing"} for name in ("stage1", "stage2")]
    answer = {**REFUSAL, "node_errors": {"1": {"errors": [*errors, *REFUSAL["node_errors"]["1"]["errors"]]}}}
    with FakeComfy([], (400, answer)) as server, pytest.raises(comfy_client.ServerRefusedError) as raised:
        run(server, tmp_path)
    assert str(raised.value).splitlines()[1:] == [
        "  Portrait (node 1): Custom validation failed for node: stage1, stage2 - The files - are missing",
        "  Portrait (node 1): Value not in list: image: 'face.png'",
    ]


def test_a_run_that_takes_too_long_is_removed_from_the_server(tmp_path):
    with FakeComfy([("executing", {"node": "1"})]) as server, pytest.raises(comfy_client.ServerTimeoutError) as raised:
        run(server, tmp_path, timeout=0.2)
    assert raised.value.exit_code == 5
    assert ("/queue", {"delete": ["p1"]}) in server.received["withdrawn"]
    assert ("/interrupt", {"prompt_id": "p1"}) in server.received["withdrawn"]


def test_no_server_is_reported_at_once(tmp_path):
    with socket.socket() as taken:  # and so free for no other server, but none listens there
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(
            comfy_client.ServerUnreachableError, match=r"^No ComfyUI answers at [^(]+ \(Connection refused\); "
        ):
            comfy_client.fetch_node_info(f"http://127.0.0.1:{taken.getsockname()[1]}")
    with pytest.raises(comfy_client.ServerUnreachableError, match="is no address"):
        comfy_client.fetch_node_info("127.0.0.1:8188")


def test_the_command_uploads_what_set_and_the_workflow_name(tmp_path, capsys):
    workflow = tmp_path / "flow.json"
    second = {"3": {"class_type": "LoadImage", "inputs": {"image": "here.png"}}}
    workflow.write_text(json.dumps({**PROMPT, **second}))
    (tmp_path / "here.png").write_bytes(b"here")
    mine = tmp_path / "elsewhere" / "mine.png"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    arguments = [
        str(workflow),
        "--set",
        f"Portrait.image={mine}",
        "--input",
        str(tmp_path),
        "--out",
        str(tmp_path / "o"),
    ]
    with FakeComfy(SUCCESS, outputs=SAVED) as server:
        code = command([*arguments, "--server", server.address])
    assert code == 0
    assert server.received["uploads"] == {"mine.png": b"mine", "here.png": b"here"}
    assert capsys.readouterr().out.split() == [str(tmp_path / "o" / "video" / "talk_00001_.mp4")]
    with FakeComfy(SUCCESS) as server:
        assert command([*arguments, "--server", server.address]) == 7
    with FakeComfy([], (400, REFUSAL)) as server:
        assert command([*arguments, "--server", server.address]) == 2


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("here.png [input]", "sub/stored here.png"),
        ("here.png [output]", "here.png [output]"),
        ("here.png [temp]", "here.png [temp]"),
        ("../secret.png", "../secret.png"),
        ("sub\\..\\..\\secret.png [input]", "sub\\..\\..\\secret.png [input]"),
    ],
)
def test_what_lies_in_the_servers_own_folders_is_not_sent_there(tmp_path, name, sent):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for place in ("in/here.png", "secret.png", "in/here.png [output]"):
        (tmp_path / place).write_bytes(b"here")
    load = {**PROMPT["1"], "inputs": {"image": name}}
    (tmp_path / "flow.json").write_text(json.dumps({**PROMPT, "1": load}))
    with FakeComfy(SUCCESS, outputs=SAVED) as server:
        arguments = [str(tmp_path / "flow.json"), "--input", str(tmp_path / "in"), "--out", str(tmp_path / "o")]
        assert command([*arguments, "--server", server.address]) == 0
    assert server.received["prompt"]["prompt"]["1"]["inputs"]["image"] == sent
    assert list(server.received["uploads"]) == (["here.png"] if sent.startswith("sub/") else [])


def test_the_editors_own_nodes_are_not_sent_to_a_server(tmp_path, capsys):
    def node(number, kind, values=(), link=None, links=()):
        inputs = [{"name": "video", "type": "*", "link": link}] if link else []
        outputs = [{"name": "*", "type": "*", "links": list(links)}]
        return {"id": number, "type": kind, "widgets_values": list(values), "inputs": inputs, "outputs": outputs}

    nodes = [
        node(1, "LoadImage", ["face.png"], links=[1]),
        node(2, "SaveVideo", ["talk"], link=2),
        node(3, "SetNode", ["x"], link=1),
        node(4, "GetNode", ["x"], links=[2]),
        node(5, "Label (rgthree)"),
        node(6, "MarkdownNote", ["text"]),
    ]
    flow = {"nodes": nodes, "links": [[1, 1, 0, 3, 0, "*"], [2, 4, 0, 2, 0, "*"]]}
    (tmp_path / "flow.json").write_text(json.dumps(flow))
    with FakeComfy(SUCCESS, outputs=SAVED) as server:
        assert command([str(tmp_path / "flow.json"), "--out", str(tmp_path / "o"), "--server", server.address]) == 0
    sent = server.received["prompt"]["prompt"]
    assert sorted(sent) == ["1", "2"]
    assert sent["2"]["inputs"] == {"video": ["1", 0], "filename_prefix": "talk"}
    assert "it is not known here: Label (rgthree) (node 5)\n" in capsys.readouterr().err


def command(arguments: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser()
    cli.add_commands(parser.add_subparsers())
    options = parser.parse_args(["run", *arguments])
    return options.run(options)
