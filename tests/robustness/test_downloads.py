"""Hosts of model files that send anything but the file, or without end: one sentence, and the disk stays as it was."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import certifi
import pytest
from filelock import FileLock
from talking_portrait.__main__ import main
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.model_files import download as downloads
from talking_portrait.pipelines.model_files import store
from talking_portrait.pipelines.model_files.contents import fault_of
from talking_portrait.pipelines.model_files.download import download
from talking_portrait.pipelines.model_files.model_file import ModelFile
from talking_portrait.pipelines.model_files.table import MODEL_FILES

WHOLE = b"\x80\x02}q\x00." + bytes(300_000)
"""A file that begins as a pickle does."""
SHA256 = hashlib.sha256(WHOLE).hexdigest()
PINNED = {"size": len(WHOLE), "sha256": SHA256}
ROUGHLY = {"about": 300_000}
Answer = Callable[[BaseHTTPRequestHandler], None]


class Host(ThreadingHTTPServer):
    """Answers each request as `answer` does; `ranges` are those that were requested."""

    daemon_threads = True

    def __init__(self, answer: Answer) -> None:
        self.answer, self.ranges = answer, list[Any]()
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that stops reading is part of these tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Host

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self.close_connection = True
        self.server.ranges.append(self.headers.get("Range"))
        self.server.answer(self)


@pytest.fixture
def host() -> Iterator[Callable[[Answer], Host]]:
    hosts: list[Host] = []

    def start(answer: Answer) -> Host:
        hosts.append(Host(answer))
        return hosts[-1]

    yield start
    for one in hosts:
        one.shutdown()
        one.server_close()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models" / "file.pth"


def fetch(host: Host, target: Path, **known: Any) -> Path:
    return download(host.url + "/file", target, allow_http_on_loopback=True, **known)


def left_over(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir()) if target.parent.exists() else []


def send(body: bytes, status: int = 200, **headers: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            if value:
                request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)

    return answer


def without_end(chunked: bool, start: bytes = b"") -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header(*(("Transfer-Encoding", "chunked") if chunked else ("Connection", "close")))
        request.end_headers()
        block = start + bytes(50_000)
        while True:
            request.wfile.write(b"%x\r\n%s\r\n" % (len(block), block) if chunked else block)

    return answer


@pytest.mark.parametrize("known", [PINNED, ROUGHLY, {"sha256": SHA256}, {}])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_without_end_stops_at_the_most_that_a_file_can_have(host, target, monkeypatch, known, chunked):
    monkeypatch.setattr(downloads, "MAX_BYTES", 1_000_000)
    monkeypatch.setattr(downloads, "CHUNK", 50_000)
    most = []
    with pytest.raises(TalkingPortraitError, match="was stopped, as more comes than the"):
        fetch(host(without_end(chunked, WHOLE[:6])), target, **known, progress=lambda done, total: most.append(done))
    assert max(most) <= (known.get("size") or 2 * known.get("about", 500_000))
    assert left_over(target) == []


@pytest.mark.parametrize("known", [PINNED, ROUGHLY])
def test_next_to_nothing_for_a_minute_counts_as_broken_off_and_is_kept(host, target, monkeypatch, known):
    monkeypatch.setattr(downloads, "SLOW_SECONDS", 0.5)

    def drip(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(WHOLE)))
        request.end_headers()
        for number in range(100):
            request.wfile.write(WHOLE[number : number + 1])
            time.sleep(0.1)

    with pytest.raises(TalkingPortraitError, match=r"broke off after \d+ bytes; run it again"):
        fetch(host(drip), target, **known)
    assert left_over(target)[0] == ".file.pth.part"


PAGE = b"<!doctype html><html>Log in to the hotel wifi</html>"


@pytest.mark.parametrize("known", [PINNED, ROUGHLY, {"sha256": SHA256}, {}])
@pytest.mark.parametrize(
    "answer",
    [
        send(b""),
        send(b"tiny"),
        send(PAGE, Content_Type="text/html"),
        send(b"\xef\xbb\xbf\r\n " + PAGE),
        send(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"),
        send(b"", 204),
        send(b"", 201),
        send(b"", 416),
        send(b"", 500),
        send(WHOLE, 203),
        send(b"abcd", 206, Content_Range="bytes 0-3/4"),
        send(WHOLE, 206, Content_Range=f"bytes 0-{len(WHOLE) - 1}/{len(WHOLE)}"),
        send(WHOLE, Content_Length="abc"),
        send(WHOLE, Content_Length="-5"),
        send(WHOLE, Content_Length="9" * 5000),
        send(WHOLE, Content_Length=str(10**18)),
        send(WHOLE, Content_Length="1e3"),
        send(b"\x1f\x8b" + bytes(50), Content_Encoding="gzip"),
        send(b"", 302),
        send(b"", 302, Location="http://[::1"),
        send(b"", 302, Location="http://127.0.0.1:99999/x"),
        send(b"", 302, Location="file:///etc/passwd"),
        send(b"", 302, Location="ftp://127.0.0.1/x"),
        send(b"", 302, Location="http://192.0.2.1/x"),
        send(b"", 302, Location="/file"),
        lambda request: request.wfile.write(b"\0\1\2 not http at all\r\n\r\n"),
        lambda request: request.wfile.write(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n"),
        lambda request: request.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 500 + b"\r\n"),
        lambda request: request.wfile.write(b"HTTP/1.1 200 \x1b[31m\r\nContent-Length: 0\r\n\r\n"),
        lambda request: None,
    ],
)
def test_what_is_not_the_file_is_one_sentence_and_leaves_nothing(host, target, known, answer):
    with pytest.raises(TalkingPortraitError) as told:
        fetch(host(answer), target, **known)
    assert "\n" not in str(told.value)
    assert "\x1b" not in str(told.value)
    assert len(str(told.value)) < 500
    assert not target.exists()
    assert all(name.startswith(".file.pth.part") for name in left_over(target))
    assert all(path.stat().st_size == 0 for path in target.parent.glob(".file*"))


@pytest.mark.parametrize("known", [PINNED, ROUGHLY, {}])
@pytest.mark.parametrize("tag", ['"\u00e9\u00e9"', '"' + "a" * 60_000 + '"', "W/", '"a"b"', ""])
def test_odd_tags_do_no_harm(host, target, known, tag):
    def answer(request: BaseHTTPRequestHandler) -> None:
        start = int((request.headers.get("Range") or "bytes=0-")[6:-1])
        headers = {"Content_Range": f"bytes {start}-{len(WHOLE) - 1}/{len(WHOLE)}"} if start else {}
        send(WHOLE[start:], 206 if start else 200, ETag=tag, **headers)(request)

    assert fetch(host(answer), target, **known).read_bytes() == WHOLE
    assert left_over(target) == ["file.pth"]


@pytest.mark.parametrize("tag", [b"", b'"v"', b"\xff\xfe", b'"v"\r\nX: y', b'"' + b"a" * 10_000 + b'"'])
@pytest.mark.parametrize("known", [PINNED, ROUGHLY])
@pytest.mark.parametrize("part", [b"", WHOLE[:1000], b"x" * 1000, WHOLE, WHOLE + b"x" * 400_000])
def test_whatever_a_killed_run_has_left_becomes_the_whole_file(host, target, tag, known, part):
    """The part goes on only where its tag or a checksum can tell that it is of the same file."""
    target.parent.mkdir()
    target.with_name(".file.pth.part").write_bytes(part)
    target.with_name(".file.pth.part.tag").write_bytes(tag)
    target.with_name(".file.pth.part.lock").touch()
    stale = part[:1000] == b"x" * 1000

    def answer(request: BaseHTTPRequestHandler) -> None:
        start = int((request.headers.get("Range") or "bytes=0-")[6:-1])
        if start >= len(WHOLE):
            return send(b"", 416)(request)
        if not start or request.headers.get("If-Range") not in (None, '"v"') or (stale and tag == b'"v"'):
            return send(WHOLE, ETag='"w"' if stale else '"v"')(request)
        return send(WHOLE[start:], 206, Content_Range=f"bytes {start}-{len(WHOLE) - 1}/{len(WHOLE)}")(request)

    source = host(answer)
    for _ in range(2):  # a wrong part is found out at the end, and gone then
        try:
            fetch(source, target, **known)
            break
        except TalkingPortraitError as error:
            told = str(error)
            assert stale, told
    assert target.read_bytes() == WHOLE
    assert left_over(target) == ["file.pth"]


def test_the_lock_of_a_process_that_was_killed_with_the_file_in_place_goes(host, target, monkeypatch):
    model = ModelFile("one", target.name, "vae", ("s",), "https://p.invalid", "owner/repo/one.pth", about=len(WHOLE))
    monkeypatch.setattr(store, "MODEL_FILES", (*MODEL_FILES, model))
    target.parent.mkdir()
    target.write_bytes(WHOLE)
    lock = target.with_name(f".{target.name}.part.lock")
    lock.touch()
    held = FileLock(lock)
    with held:
        assert store.get("one", lambda category: [target.parent]) == [target]
        assert lock.exists()
    assert store.get("one", lambda category: [target.parent]) == [target]
    assert left_over(target) == [target.name]


def test_another_part_than_was_asked_for_is_not_put_together(host, target):
    target.parent.mkdir()
    target.with_name(".file.pth.part").write_bytes(WHOLE[:1000])

    def answer(request: BaseHTTPRequestHandler) -> None:
        if request.headers.get("Range"):
            return send(WHOLE[500:], 206, Content_Range=f"bytes 500-{len(WHOLE) - 1}/{len(WHOLE)}")(request)
        return send(WHOLE)(request)

    source = host(answer)
    assert fetch(source, target, **PINNED).read_bytes() == WHOLE
    assert source.ranges == ["bytes=1000-", None]


def test_two_that_fetch_the_same_file_at_once_both_get_it_whole(host, target):
    def slowly(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(WHOLE)))
        request.end_headers()
        for start in range(0, len(WHOLE), 50_000):
            request.wfile.write(WHOLE[start : start + 50_000])
            time.sleep(0.3)

    source = host(slowly)
    code = (
        "import sys; from pathlib import Path\n"
        "from talking_portrait.pipelines.model_files.download import download\n"
        f"download({source.url + '/file'!r}, Path({str(target)!r}), about=300_000, "
        "allow_http_on_loopback=True)"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    assert target.read_bytes() == WHOLE
    assert left_over(target) == ["file.pth"]


def archive(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for name, content in members.items():
            made.writestr(name, content)
    return file.getvalue()


def tensors(end: int, size: int) -> bytes:
    header = json.dumps({"a": {"dtype": "U8", "shape": [end], "data_offsets": [0, end]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(size)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.safetensors", tensors(9, 9), ""),
        ("a.safetensors", tensors(9, 8), "its header says"),
        ("a.safetensors", b"\xff" * 100, "no safetensors file"),
        ("a.safetensors", (9).to_bytes(8, "little") + b"{not json", "header is damaged"),
        ("a.safetensors", (2).to_bytes(8, "little") + b"{}", ""),
        ("a.pth", archive(a=b"x" * 1000), ""),
        ("a.ckpt", archive(a=b"x" * 1000)[:-50], "its end is missing"),
        ("a.pt", b"\x80\x02}.", ""),
        ("a.bin", b"BZh91AY&SY", "no PyTorch checkpoint"),
        ("a.onnx", b"\x08\x07\x12\x00", ""),
        ("a.onnx", b"\x0a\x07\x12\x00", "no ONNX network"),
        ("a.onnx", b"\x08", "no ONNX network"),
        ("a.task", archive(a=b"x"), ""),
        ("a.task", b"\x1c\0\0\0TFL3", "no MediaPipe task"),
        ("a.tflite", b"\x1c\0\0\0TFL3", ""),
        ("a.json", b' {"a": 1}', ""),
        ("a.json", b"a = 1", "no JSON"),
        ("a.unknown", b"anything", ""),
        ("a.unknown", b"  <html>", "a web page"),
        ("a.pth", b"", "empty"),
    ],
)
def test_content_fits_the_name_or_is_told(tmp_path, name, content, fault):
    (tmp_path / name).write_bytes(content)
    found = fault_of(tmp_path / name, name)
    assert (fault in found) if fault else not found


@pytest.mark.parametrize("content", [b"tiny", b"", PAGE])
def test_check_finds_what_an_earlier_version_took_for_the_file(tmp_path, monkeypatch, capsys, content):
    model = ModelFile("one", "one.bin", "vae", ("s",), "https://p.invalid", "owner/repo/one.bin")
    monkeypatch.setattr(store, "MODEL_FILES", (*MODEL_FILES, model))
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "one.bin").write_bytes(content)
    assert main(["models", "check", "one", "--models", str(tmp_path)]) == 1
    assert capsys.readouterr().out.startswith("wrong content")
    (tmp_path / "vae" / "one.bin").write_bytes(WHOLE)
    assert main(["models", "check", "one", "--models", str(tmp_path)]) == 0


def test_every_file_that_is_fetched_has_a_bound_and_is_used():
    fetched = [model for model in MODEL_FILES if model.source]
    assert all(model.size or model.about for model in fetched)
    assert not [model.name for model in MODEL_FILES if "film" in model.file]


@pytest.mark.parametrize(
    "endpoint", ["http://[::1", "ftp://x", "mirror", "http://127.0.0.1:99999", "https://", "file:///etc", "http://x y"]
)
def test_a_mistyped_mirror_is_named(tmp_path, monkeypatch, capsys, endpoint):
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    assert main(["models", "get", "anitalker_stage1", "--models", str(tmp_path / "m")]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: HF_ENDPOINT is ")
    assert told.count("\n") == 1
    assert not (tmp_path / "m").exists()


def test_a_password_of_the_mirror_is_not_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_ENDPOINT", "http://me:secret@192.0.2.1")
    assert main(["models", "get", "anitalker_stage1", "--models", str(tmp_path)]) == 2
    assert "secret" not in capsys.readouterr().err


def test_certificates_that_are_none_are_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "company.pem").write_text("no certificate")
    monkeypatch.setenv("PIP_CERT", str(tmp_path / "company.pem"))
    monkeypatch.setenv("HF_ENDPOINT", "https://127.0.0.1:1")
    assert main(["models", "get", "hallo_net", "--models", str(tmp_path / "m")]) == 2
    told = capsys.readouterr().err
    assert "company.pem, which PIP_CERT names, can't be read" in told
    assert told.count("\n") == 1


def test_certificates_that_change_are_read_again(tmp_path, monkeypatch, capsys):
    company = tmp_path / "company.pem"
    monkeypatch.setenv("PIP_CERT", str(company))
    monkeypatch.setenv("HF_ENDPOINT", "https://127.0.0.1:1")
    for content, reason in ((certifi.contents(), "can't be reached"), ("no certificate", "can't be read")):
        company.write_text(content)
        os.utime(company, (len(content), len(content)))
        assert main(["models", "get", "hallo_net", "--models", str(tmp_path / "m")]) == 2
        assert reason in capsys.readouterr().err
