"""examples/api_client.py with a server that answers as ComfyUI does; tests/comfyui runs it with a real one."""

from __future__ import annotations

import importlib.util
import json
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("api_client", ROOT / "examples" / "api_client.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


client = load()


class Fake(BaseHTTPRequestHandler):
    """A ComfyUI that runs one graph in three looks: waiting, running, done with `status` and one video."""

    status: dict[str, Any]
    refusal: bytes | None
    looks: int
    posted: dict[str, bytes]
    downloads: threading.Barrier
    """Answers downloads when as many have been requested."""

    def do_GET(self) -> None:
        if self.path == "/queue":
            running, pending = [[3, "other"]], [[9, "later"], [5, "run"]]
            self._answer({"queue_running": running, "queue_pending": pending} if self.looks < 2 else
                         {"queue_running": [[5, "run"]], "queue_pending": []})  # fmt: skip
        elif self.path.startswith("/view?"):
            self.downloads.wait(20)
            self._send(200, self.path.encode())
        else:
            type(self).looks += 1
            video = {"filename": "talking.mp4", "subfolder": "video", "type": "output"}
            preview = {"filename": "shown.png", "subfolder": "", "type": "temp"}
            outputs = {"7": {"images": [video, preview], "animated": [True]}}
            self._answer({"run": {"status": self.status, "outputs": outputs}} if self.looks > 2 else {})

    def do_POST(self) -> None:
        self.posted[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/prompt" and self.refusal is not None:
            self._send(400, self.refusal)
        elif self.path == "/prompt":
            self._answer({"prompt_id": "run"})
        else:
            self._answer({"name": "voice (1).wav", "subfolder": "", "type": "input"})

    def _answer(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Fake]]:
    monkeypatch.setattr(client, "POLL_SECONDS", 0.01)
    fake = type("Server", (Fake,), {"status": {"messages": []}, "refusal": None, "looks": 0, "posted": {}})
    fake.downloads = threading.Barrier(1)  # type: ignore[attr-defined]
    http = ThreadingHTTPServer(("127.0.0.1", 0), fake)
    fake.address = f"http://127.0.0.1:{http.server_port}"  # type: ignore[attr-defined]
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield fake
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def voice(tmp_path: Path) -> Path:
    path = tmp_path / 'my "voice".wav'
    path.write_bytes(b"RIFF sound")
    return path


def run(server: Any, *arguments: str) -> int:
    return client.main(["--server", server.address, *arguments])


def test_a_picture_and_a_voice_become_a_file(server: Any, voice: Path, tmp_path: Path, capsys) -> None:
    files = ("--image", str(voice), "--audio", str(voice))
    for name in ("talking.mp4", "talking_2.mp4"):
        server.looks = 0
        assert run(server, *files, "--set", "4.seed=7", "--set", "4.weights=own", "--out", str(tmp_path / "out")) == 0
        out, err = capsys.readouterr()
        assert out.strip() == str(tmp_path / "out" / name)
        assert err.split("\n") == ["waiting behind 1", "running", ""]
    assert (tmp_path / "out" / "talking.mp4").read_text() == "/view?filename=talking.mp4&subfolder=video&type=output"
    upload = server.posted["/upload/image"]
    assert b'name="image"; filename="my %22voice%22.wav"\r\nContent-Type: audio/' in upload
    assert b"\r\n\r\nRIFF sound\r\n--" in upload
    graph = json.loads(server.posted["/prompt"])["prompt"]
    assert graph["1"]["inputs"]["image"] == graph["2"]["inputs"]["audio"] == "voice (1).wav"
    assert (graph["4"]["inputs"]["seed"], graph["4"]["inputs"]["weights"]) == (7, "own")


def test_clients_that_share_a_folder_keep_their_results(server: Any, tmp_path: Path) -> None:
    server.downloads = threading.Barrier(2)
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(lambda _: run(server, "--out", str(tmp_path / "out")), range(2))) == [0, 0]
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"talking.mp4", "talking_2.mp4"}


def test_a_folder_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(client.ClientError, match="talking.mp4 can't be written .*; give another folder with --out"):
        client.new_file(tmp_path / "gone", "talking.mp4")


def test_a_run_that_takes_too_long_is_taken_off_the_queue(server: Any, capsys) -> None:
    assert run(server, "--timeout", "-1") == 1
    assert "took longer than -1 s and was stopped" in capsys.readouterr().err
    assert json.loads(server.posted["/queue"]) == {"delete": ["run"]}
    assert json.loads(server.posted["/interrupt"]) == {"prompt_id": "run"}


def node_errors() -> bytes:
    errors = [{"message": "Value 1000 bigger than max of 240", "details": "fps"}]
    node = {"class_type": "TalkingPortraitInstantDriver", "errors": errors}
    return json.dumps({"error": {"message": "Prompt outputs failed validation"}, "node_errors": {"4": node}}).encode()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (node_errors(), r"TalkingPortraitInstantDriver \(node 4\): Value 1000 bigger than max of 240: fps"),
        (b'{"error": {"message": "Prompt has no outputs"}, "node_errors": {}}', "Prompt has no outputs"),
        (b'{"error": "no"}', "HTTP status 400"),
        (b'{"node_errors": {"4": {"class_type": "A", "errors": []}}}', "HTTP status 400"),
        (b"<html>", "HTTP status 400"),
    ],
)
def test_a_refusal_is_a_sentence(server: Any, capsys, body: bytes, reason: str) -> None:
    server.refusal = body
    assert run(server) == 1
    assert capsys.readouterr().err.startswith("error: ComfyUI refused it (")
    with pytest.raises(client.ClientError, match=reason):
        client.ComfyUI(server.address).queue({})


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (
            {
                "messages": [
                    [
                        "execution_error",
                        {"node_type": "Driver", "node_id": "4", "exception_message": "No\nsound; add some.\n"},
                    ]
                ]
            },
            "error: The run failed at Driver (node 4): No sound; add some.\n",
        ),
        (
            {"messages": [["execution_start", {}], ["execution_interrupted", {}]]},
            "error: The run was interrupted on the server;",
        ),
        (
            {"status_str": "error", "messages": ["the worker\nis gone"]},
            "error: The run failed: the worker is gone; look at the server's log.\n",
        ),
        ({"status_str": "error", "messages": []}, "error: The run failed: no reason was given; look at"),
    ],
)
def test_a_run_that_fails_says_why(server: Any, capsys, status: dict[str, Any], said: str) -> None:
    server.status = status
    assert run(server) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--server", "127.0.0.1:8188"), "an address such as http://127.0.0.1:8188 is expected"),
        (("--server", "http://127.0.0.1:9"), "No ComfyUI answers at http://127.0.0.1:9 ("),
        (("--server", "http://[::1"), "No ComfyUI answers at http://[::1 ("),
        (("--server", "http://a b"), "No ComfyUI answers at http://a b ("),
        (("--out", str(ROOT / "README.md" / "under")), "can't be made (Not a directory); give another with --out"),
        (("--set", "seed=7"), "NODE.INPUT=VALUE is expected"),
        (("--set", "4.sed=7"), "The graph has no input 4.sed; its nodes are 1, 2, 3"),
        (("--set", "99.seed=7"), "The graph has no input 99.seed"),
        (("--image", "gone.png"), "gone.png can't be read (No such file or directory)"),
        (("gone.json",), "gone.json can't be read (No such file or directory)"),
        ((str(ROOT / "README.md"),), "README.md is no JSON"),
        ((str(ROOT / "example_workflows" / "instant.json"),), "is no graph in API format; save it with"),
        ((str(ROOT / "example_workflows/api/instant.json"), "--image", "a.png"), "The graph has no LoadImage"),
    ],
)
def test_what_can_not_be_used_is_said_in_a_sentence(server: Any, capsys, arguments: tuple[str, ...], said: str) -> None:
    assert run(server, *arguments) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b"{}", b"\xff"])
def test_an_address_of_something_else_is_refused(server: Any, capsys, monkeypatch, answer: bytes) -> None:
    monkeypatch.setattr(server, "_answer", lambda self, value: self._send(200, answer))
    assert run(server) == 1
    assert "is no ComfyUI's answer; correct the address" in capsys.readouterr().err


def test_what_speaks_no_http_is_refused(capsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=lambda: listening.accept()[0].sendall(b"SSH-2.0\r\n\r\n"), daemon=True)
        thread.start()
        assert client.main(["--server", f"http://127.0.0.1:{listening.getsockname()[1]}"]) == 1
        thread.join()
    error = capsys.readouterr().err
    assert error.startswith("error: No ComfyUI answers at ")
    assert error.count("\n") == 1


def test_it_needs_the_standard_library_alone() -> None:
    text = (ROOT / "examples" / "api_client.py").read_text()
    modules = {line.split()[1].split(".")[0] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert modules <= sys.stdlib_module_names
