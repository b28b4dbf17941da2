"""The table of model files, where they are looked for, and their download from a server on this machine.

Long, as all of it needs the same small server.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pytest
from talking_portrait.pipelines.commands import models
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.model_files import store as model_files
from talking_portrait.pipelines.model_files.connection import NotFetchedError
from talking_portrait.pipelines.model_files.download import download
from talking_portrait.pipelines.model_files.model_file import ModelFile
from talking_portrait.pipelines.model_files.required import missing_files
from talking_portrait.pipelines.model_files.table import MODEL_FILES

NUMBERS = bytes(range(256)) * 12000  # 3 MB: several chunks
HEADER = json.dumps({"weight": {"dtype": "U8", "shape": [len(NUMBERS)], "data_offsets": [0, len(NUMBERS)]}}).encode()
CONTENT = len(HEADER).to_bytes(8, "little") + HEADER + NUMBERS
"""A safetensors file."""
PICKLE = b"\x80\x02}."
"""As old versions of torch stored weights."""
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT under any path but the special ones, and records the requests."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str | None]] = []
        self.cut_after: int | None = None
        self.tag: str | None = '"v1"'
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        """A client that stops reading is part of these tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        server = self.server
        path, requested_range = urlsplit(self.path).path, self.headers.get("Range")
        server.requests.append((path, requested_range))
        if path == "/elsewhere":
            return self.answer(302, b"", {"Location": "http://example.invalid/file"})
        if path == "/linked":
            return self.answer(302, b"", {"Location": "/file", "X-Linked-ETag": f'"{"0" * 64}"'})
        if path.startswith("/status/"):
            return self.answer(int(path.rsplit("/", 1)[1]), b"")
        if requested_range and self.headers.get("If-Range") in (None, server.tag):
            start = int(requested_range.removeprefix("bytes=").rstrip("-"))
            if start >= len(CONTENT):
                return self.answer(416, b"")
            headers = {"Content-Range": f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"}
            return self.answer(206, CONTENT[start:], headers)
        return self.answer(200, CONTENT)

    def answer(self, status, body, headers=()):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if self.server.tag:
            self.send_header("ETag", self.server.tag)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.end_headers()
        cut = self.server.cut_after
        self.wfile.write(body[:cut])
        if cut is not None and cut < len(body):
            self.close_connection = True


@pytest.fixture
def server():
    server = Server()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "models" / "vae" / "file.safetensors"


def fetch(server, target, path="/file", **options):
    return download(server.url + path, target, allow_http_on_loopback=True, **options)


def left_over(target):
    return sorted(path.name for path in target.parent.iterdir()) if target.parent.exists() else []


def test_a_file_arrives_whole_with_progress(server, target):
    reports = []
    assert fetch(server, target, sha256=SHA256, progress=lambda done, total: reports.append((done, total))) == target
    assert target.read_bytes() == CONTENT
    assert left_over(target) == [target.name]
    assert reports[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)
    assert len(reports) > 2


@pytest.mark.parametrize("tag", ['"v1"', None])
def test_a_cut_download_is_reported_and_resumed(server, target, tag):
    server.tag, server.cut_after = tag, 1_000_000
    with pytest.raises(TalkingPortraitError, match="broke off after 1000000 bytes; run it again"):
        fetch(server, target, sha256=SHA256)
    assert not target.exists()
    server.cut_after = None
    fetch(server, target, sha256=SHA256)
    assert server.requests[-1][1] == "bytes=1000000-"
    assert target.read_bytes() == CONTENT
    assert left_over(target) == [target.name]


def test_a_part_of_another_version_is_not_continued(server, target):
    server.cut_after = 1_000_000
    with pytest.raises(TalkingPortraitError):
        fetch(server, target)
    target.with_name(f".{target.name}.part").write_bytes(b"x" * 1_000_000)
    server.cut_after, server.tag = None, '"v2"'
    fetch(server, target)
    assert target.read_bytes() == CONTENT


def test_a_cancelled_download_goes_on_later(server, target):
    class CancelledError(Exception):
        pass

    def cancel(done, total):
        raise CancelledError

    with pytest.raises(CancelledError):
        fetch(server, target, sha256=SHA256, progress=cancel)
    assert not target.exists()
    fetch(server, target, sha256=SHA256)
    assert server.requests[-1][1] == f"bytes={1 << 20}-"
    assert target.read_bytes() == CONTENT


def test_a_whole_part_is_not_fetched_again(server, target):
    target.parent.mkdir(parents=True)
    target.with_name(f".{target.name}.part").write_bytes(CONTENT)
    fetch(server, target, sha256=SHA256)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("there", [b"somebody's own weights", CONTENT[:100]])
def test_a_file_of_that_name_is_never_written_over(server, target, there):
    target.parent.mkdir(parents=True)
    target.write_bytes(there)
    for path in ("/file", "/status/404"):
        with pytest.raises(TalkingPortraitError, match="is there, but is not the file .* move it elsewhere"):
            fetch(server, target, path, sha256=SHA256)
    assert target.read_bytes() == there
    assert server.requests == []
    assert left_over(target) == [target.name]


def test_a_download_of_another_program_is_not_touched(server, target):
    """Firefox, too, calls it FILE.part."""
    target.parent.mkdir(parents=True)
    other = target.with_name(target.name + ".part")
    other.write_bytes(b"of a browser")
    with pytest.raises(TalkingPortraitError, match="is expected"):
        fetch(server, target, sha256="1" * 64)
    fetch(server, target, sha256=SHA256)
    assert target.read_bytes() == CONTENT
    assert other.read_bytes() == b"of a browser"


def test_the_wrong_checksum_is_refused_and_nothing_is_left(server, target):
    with pytest.raises(TalkingPortraitError, match=f"{SHA256}, but {'1' * 64} is expected"):
        fetch(server, target, sha256="1" * 64)
    assert left_over(target) == []


def test_the_checksum_that_hugging_face_announces_is_used(server, target):
    with pytest.raises(TalkingPortraitError, match="0{64} is expected"):
        fetch(server, target, "/linked")
    assert left_over(target) == []


@pytest.mark.parametrize(
    ("path", "message"), [("/status/404", "404"), ("/status/403", "account"), ("/status/503", "503")]
)
def test_refusals_name_the_next_step(server, target, path, message):
    with pytest.raises(TalkingPortraitError, match=message):
        fetch(server, target, path)
    assert left_over(target) == []


@pytest.mark.parametrize("url", ["http://example.invalid/f", "ftp://example.invalid/f", "file:///etc/passwd", "f"])
def test_only_https_is_fetched(target, url):
    with pytest.raises(TalkingPortraitError, match="https only"):
        download(url, target, allow_http_on_loopback=True)


def test_loopback_needs_to_be_allowed_and_redirects_are_held_to_the_same_rule(server, target):
    with pytest.raises(TalkingPortraitError, match="https only"):
        download(server.url + "/file", target)
    with pytest.raises(TalkingPortraitError, match="https only"):
        fetch(server, target, "/elsewhere")


def test_an_unreachable_host_is_named(target):
    with pytest.raises(TalkingPortraitError, match=r"127\.0\.0\.1 can't be reached"):
        download("https://127.0.0.1:1/file", target)
    assert not target.parent.exists()


def test_a_full_disk_is_reported_before_the_download(server, target, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(TalkingPortraitError, match="is full"):
        fetch(server, target)
    assert left_over(target) == []


def test_a_disk_that_fills_up_is_freed_again(server, target):
    def fill(done, total):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(TalkingPortraitError, match=r"is full \(No space left on device\)"):
        fetch(server, target, progress=fill)
    assert left_over(target) == []


def test_a_folder_that_can_not_be_written_is_named(server, tmp_path):
    (tmp_path / "vae").write_text("a file where the folder should be")
    with pytest.raises(TalkingPortraitError, match="can't be written"):
        fetch(server, tmp_path / "vae" / "file")


# --- the table and the commands ---


CATEGORIES = {
    "audio_encoders",
    "clip_vision",
    "detection",
    "diffusion_models",
    "talking_portrait",
    "upscale_models",
    "vae",
}
ENDINGS = {".bin", ".ckpt", ".mat", ".model", ".onnx", ".pt", ".pth", ".safetensors", ".task", ".tflite"}


def leads_to_a_file(url: str, endings: set[str]) -> bool:
    """Whether it is an https address with a host's full name and the path of a file of such an ending."""
    parts = urlsplit(url)
    labels = (parts.hostname or "").split(".")
    return (
        parts.scheme == "https"
        and parts.netloc == parts.hostname  # no port, no name, no password
        and len(labels) >= 2
        and all(label.replace("-", "").isalnum() for label in labels)
        and not (parts.query or parts.fragment)
        and is_plain(parts.path.removeprefix("/").removeprefix("~"))  # a university's group's own pages
        and (not endings or PurePosixPath(parts.path).suffix in endings)
    )


def is_plain(path: str) -> bool:
    return bool(path) and all(re.fullmatch(r"[\w.+-]+", part) and set(part) != {"."} for part in path.split("/"))


def is_plain_page(url: str) -> bool:
    return leads_to_a_file(url.rstrip("/") if urlsplit(url).path.strip("/") else url.rstrip("/") + "/page", set())


@pytest.mark.parametrize("model", MODEL_FILES, ids=lambda model: model.name)
def test_every_row_of_the_table_can_be_fetched_or_has_instructions(model: ModelFile):
    assert is_plain_page(model.page)
    assert is_plain(model.file)
    assert PurePosixPath(model.file).suffix in ENDINGS
    assert model.folder in CATEGORIES
    if model.source:
        assert model.size or model.about
        assert leads_to_a_file(model.url, ENDINGS)
        assert PurePosixPath(model.url).suffix == PurePosixPath(model.file).suffix
    else:
        assert len(model.by_hand) > 20
    assert bool(model.source) != bool(model.by_hand)
    assert model.size is None or model.size > 5_000
    assert model.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", model.sha256)
    for text in (model.name, model.code_licence, model.weight_licence, model.purpose, *model.systems):
        assert text
    assert model.systems


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://",
        "https:///file.bin",
        "https://localhost/file.bin",
        "http://host.org/file.bin",
        "https://host.org",
        "https://host.org/",
        "https://host.org/folder/",
        "https://host.org//file.bin",
        "https://host.org/../file.bin",
        "https://host.org/file.html",
        "https://me@host.org/file.bin",
        "https://host.org/file.bin?download=1",
        "owner/name/file.bin",
    ],
)
def test_what_leads_to_no_file_would_be_found_in_the_table(url: str):
    assert not leads_to_a_file(url, ENDINGS)


def test_no_two_rows_of_the_table_are_for_the_same():
    assert len({model.name for model in MODEL_FILES}) == len(MODEL_FILES)
    assert len({(model.folder, model.file) for model in MODEL_FILES}) == len(MODEL_FILES)


def model_file(**changes):
    fields = {"name": "one", "file": "sub/one.bin", "folder": "vae", "systems": ("s",), "page": "https://p.invalid"}
    return ModelFile(**{**fields, "source": "owner/repo/one.bin", **changes})


@pytest.fixture
def root(tmp_path):
    return lambda category: [tmp_path / "models" / category]


@pytest.mark.parametrize("file", ["../one.bin", "/one.bin", "a/../../one.bin", "..\\one.bin", "C:one.bin", ""])
def test_no_name_leads_out_of_its_folder(root, file):
    with pytest.raises(TalkingPortraitError, match="refused"):
        model_files.find(model_file(file=file), root)


def test_check_distinguishes_missing_short_and_altered_files(root):
    model = model_file(size=4, sha256=hashlib.sha256(b"good").hexdigest())
    (path,) = (folder / "sub" / "one.bin" for folder in root("vae"))
    states = []
    for content in (None, b"short", b"evil", b"good"):
        if content is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (status,) = model_files.check(root, [model])
        states.append(status.state)
        assert status.path == path
    assert states == ["missing", "wrong size", "wrong checksum", "ok"]


def test_a_file_in_any_folder_of_its_category_counts(tmp_path):
    (tmp_path / "extra" / "sub").mkdir(parents=True)
    (tmp_path / "extra" / "sub" / "one.bin").write_bytes(b"x")
    folders = [tmp_path / "first", tmp_path / "extra"]
    assert model_files.find(model_file(), lambda category: folders) == tmp_path / "extra" / "sub" / "one.bin"


def test_get_uses_the_mirror_and_leaves_whole_files_alone(root, monkeypatch):
    fetched = []

    def fake(url, target, **options):
        fetched.append(url)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(PICKLE)
        return target

    monkeypatch.setattr(model_files, "download", fake)
    monkeypatch.setattr(model_files, "MODEL_FILES", (model_file(), model_file(name="two", file="two.bin")))
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.invalid/")
    paths = model_files.get("s", root)
    assert [path.name for path in paths] == ["one.bin", "two.bin"]
    assert model_files.get("one", root) == paths[:1]
    assert fetched == ["https://mirror.invalid/owner/repo/resolve/main/one.bin"] * 2


def test_a_mirror_on_this_machine_needs_no_certificate(root, server, monkeypatch):
    monkeypatch.setattr(model_files, "MODEL_FILES", (model_file(sha256=SHA256),))
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    (path,) = model_files.get("one", root)
    assert path.read_bytes() == CONTENT
    assert server.requests == [("/owner/repo/resolve/main/one.bin", None)]
    monkeypatch.setenv("HF_ENDPOINT", "http://192.0.2.1")
    path.unlink()
    with pytest.raises(TalkingPortraitError, match="https only"):
        model_files.get("one", root)


def test_unknown_names_and_files_to_be_fetched_by_hand_are_explained(root):
    systems = r"; systems are aniportrait, anitalker, .*, and `models list` shows all files\.$"
    with pytest.raises(TalkingPortraitError, match=r"^'\.\./x' is neither a model file nor a system" + systems):
        model_files.get("../x", root)
    for name, meant in (
        ("wav2vec2-base-960h", "wav2vec2_base_960h"),
        ("Kim_Vocal_2.onnx", "kim_vocal_2"),
        ("GFPGANv1.4.pth", "gfpgan"),
        ("AniPortait", "aniportrait"),
    ):
        with pytest.raises(TalkingPortraitError, match=f"^'{name}' is neither .*, but {meant} is{systems}"):
            model_files.get(name, root)
    with pytest.raises(TalkingPortraitError, match="by hand from https://faces"):
        model_files.get("audiodvp_bfm2009", root)


def test_files_that_cannot_be_fetched_do_not_keep_the_others_away_and_are_named_together(root, monkeypatch):
    def fake(url, target, **options):
        if "invalid" in url:
            raise NotFetchedError("far can't be reached; check it.")
        if "closed" in url:
            raise NotFetchedError("closed does not give the file out (403).")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(PICKLE)
        return target

    def unreachable(url, target, **options):
        raise NotFetchedError(f"{urlsplit(url).hostname} can't be reached; check it.")

    monkeypatch.setattr(model_files, "download", fake)
    sources = {"a": "https://far.invalid/a.bin", "b": "https://closed.test/b.bin", "c": "https://far.invalid/c.bin"}
    lost = [model_file(name=name, file=f"{name}.bin", source=source) for name, source in sources.items()]
    files = (*lost, model_file())
    monkeypatch.setattr(model_files, "MODEL_FILES", files)
    with pytest.raises(TalkingPortraitError) as raised:
        model_files.get("s", root)
    assert str(raised.value) == (
        "Not all model files of s could be fetched: a, c (far can't be reached; check it); b (closed does not give the "
        "file out (403)); the others are here."
    )
    assert [status.state for status in model_files.check(root, files)] == ["missing"] * 3 + ["ok"]
    two = [model_file(name=name, file=f"{name}.bin", source=f"https://{name}.test/x") for name in "xy"]
    monkeypatch.setattr(model_files, "MODEL_FILES", two)
    monkeypatch.setattr(model_files, "download", unreachable)
    with pytest.raises(TalkingPortraitError) as raised:
        model_files.get("s", root)
    assert str(raised.value) == (
        "Not all model files of s could be fetched: x (x.test can't be reached); y (y.test can't be reached); check it."
    )
    monkeypatch.setattr(model_files, "download", fake)
    monkeypatch.setattr(model_files, "MODEL_FILES", files)
    with pytest.raises(NotFetchedError, match=r"^closed does not give the file out \(403\)\.$"):
        model_files.get("b", root)
    monkeypatch.setenv("HF_ENDPOINT", "no address")
    monkeypatch.setattr(model_files, "MODEL_FILES", (*lost, model_file(name="d", file="d.bin")))
    with pytest.raises(TalkingPortraitError, match=r"^HF_ENDPOINT is "):
        model_files.get("s", root)  # what all of its files have in common is said once


def run(*arguments):
    parser = argparse.ArgumentParser()
    models.add_commands(parser.add_subparsers(required=True))
    options = parser.parse_args(["models", *arguments])
    return options.run(options)


def test_the_table_and_what_is_here_are_printed_for_programs_too(tmp_path, capsys):
    assert run("list", "face_landmarker", "--json") == 0
    (described,) = json.loads(capsys.readouterr().out)
    assert (described["name"], described["folder"]) == ("face_landmarker", "detection")
    assert described["url"].startswith("https://")
    assert run("check", "face_landmarker", "--models", str(tmp_path), "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    path = tmp_path / "detection" / "face_landmarker.task"
    assert found == {"name": "face_landmarker", "state": "missing", "path": str(path)}


def test_the_commands_print_the_table_and_report_broken_files(tmp_path, capsys):
    assert run("list", "sd_vae_ft_mse") == 0
    text = capsys.readouterr().out
    assert "vae/sd-vae-ft-mse.safetensors, 334.6 MB (334643276 bytes)" in text
    assert "weights: MIT" in text
    assert run("list", "hallo_net") == 0
    text = capsys.readouterr().out
    assert "about 4850 MB" in text
    assert "sha256   unknown" in text
    assert run("check", "instant", "--models", str(tmp_path)) == 0
    (tmp_path / "detection").mkdir()
    (tmp_path / "detection" / "face_landmarker.task").write_bytes(b"truncated")
    assert run("check", "instant", "--models", str(tmp_path)) == 1
    text = capsys.readouterr().out
    assert "wrong size      face_landmarker" in text


@pytest.mark.parametrize(("count", "listed"), [(1, " P0, or"), (2, " P0 and P1, or"), (3, " P0, P1 and P2, or")])
def test_pages_of_missing_files_are_listed(count, listed):
    files = {
        Path(f"a/{model.file}"): replace(model, page=f"P{number}") for number, model in enumerate(MODEL_FILES[:count])
    }
    assert f"from{listed} run: " in str(missing_files(files))


def test_model_root(monkeypatch, tmp_path):
    monkeypatch.setenv("TALKING_PORTRAIT_MODELS", str(tmp_path))
    assert model_files.default_folders("vae") == [tmp_path / "vae"]
    monkeypatch.delenv("TALKING_PORTRAIT_MODELS")
    (tmp_path / "ComfyUI" / "models").mkdir(parents=True)
    monkeypatch.setattr(model_files, "PACK", tmp_path / "ComfyUI" / "custom_nodes" / "pack")
    assert model_files.default_model_root() == tmp_path / "ComfyUI" / "models"
    monkeypatch.setattr(model_files, "PACK", tmp_path / "elsewhere" / "pack")
    assert model_files.default_model_root().parts[-2:] == ("talking_portrait", "models")


def test_the_named_command_works_where_the_pack_is_only_a_folder(monkeypatch):
    assert model_files.models_command("list") == "python -m talking_portrait models list"
    monkeypatch.setattr(sys, "meta_path", [])
    command = shlex.split(model_files.models_command("list face_landmarker"))
    monkeypatch.undo()
    assert "face_landmarker" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
