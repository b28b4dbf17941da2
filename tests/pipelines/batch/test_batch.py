"""Batches: rows are checked before anything is rendered, done ones are passed over, failed ones tried once more
where that may help."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from talking_portrait.__main__ import main
from talking_portrait.pipelines.batch import run as module
from talking_portrait.pipelines.batch.manifest import Job, read_manifest
from talking_portrait.pipelines.batch.on_ray import ray_workers
from talking_portrait.pipelines.batch.run import here, run_batch
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.files.example import example_portrait
from talking_portrait.pipelines.files.images import write_image
from talking_portrait.pipelines.files.sound import write_wav
from talking_portrait.pipelines.types import Audio


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_image(tmp_path / "a.png", example_portrait()[0][::4, ::4])
    for name, seconds in (("one", 0.2), ("two", 0.3)):
        write_wav(tmp_path / f"{name}.wav", Audio(torch.randn(1, round(16000 * seconds)) * 0.1, 16000))
    (tmp_path / "out").mkdir()
    return tmp_path


def manifest(folder: Path, *rows: object) -> Path:
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / "rows.jsonl").write_text(text, encoding="utf-8")
    return folder / "rows.jsonl"


def row(audio: str = "one", **others: object) -> dict[str, object]:
    return {"portrait": "a.png", "audio": f"{audio}.wav", **others}


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Stands in for rendering: what was requested, by the sound's name; a sound called "two" fails the first time."""
    calls: list[tuple[str, dict[str, Any]]] = []

    def animate(portrait: Path, audio: Path, out: Path, **options: Any) -> None:
        calls.append((audio.stem, options))
        if audio.stem == "two" and [name for name, _ in calls].count("two") == 1:
            raise TalkingPortraitError("The video can't be written (disk full).") from OSError(
                errno.ENOSPC, "disk full"
            )
        out.write_bytes(b"video")

    monkeypatch.setattr(module, "animate", animate)
    return calls


def test_a_batch_makes_the_videos_that_its_rows_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = manifest(folder, row(settings={"longest_side": 64}, name="talk"))
    assert main(["batch", str(rows), "--out", str(folder / "new" / "out")]) == 0
    (video,) = (folder / "new" / "out").glob("talk_*.mp4")
    assert "1 made, 0 there already, 0 failed" in capsys.readouterr().out
    first = video.stat().st_mtime_ns
    assert main(["batch", str(rows), "--out", str(folder / "new" / "out")]) == 0
    assert "0 made, 1 there already, 0 failed" in capsys.readouterr().out
    assert video.stat().st_mtime_ns == first


def test_what_a_video_is_made_from_names_it(folder: Path) -> None:
    jobs = read_manifest(manifest(folder, row(), "", row(settings={"seed": 1}), row("two"), row()), folder / "out")
    assert [job.numbers for job in jobs] == [(1, 5), (3,), (4,)]
    assert len({job.target.name for job in jobs}) == 3
    before = jobs[0].target
    write_wav(folder / "one.wav", Audio(torch.zeros(1, 8000), 16000))
    assert read_manifest(folder / "rows.jsonl", folder / "out")[0].target != before


def test_a_failure_is_tried_once_more_and_listed(folder: Path, rendered: list, capsys: Any) -> None:
    rows = manifest(folder, row("two", settings={"seed": 4}), row(), row("two", settings={"seed": 5}))
    jobs = read_manifest(rows, folder / "out")
    said: list[str] = []
    outcomes = run_batch(jobs, folder / "out", here, say=said.append)
    assert [outcome.state for outcome in outcomes] == ["done", "done", "done"]
    assert said == ["line 1 failed and is tried once more: The video can't be written (disk full)."]
    assert [name for name, _ in rendered] == ["two", "one", "two", "two"]
    assert rendered[0][1] == {"renderer": "instant", "seed": 4}


def test_only_what_may_pass_is_tried_once_more(folder: Path, capsys: Any) -> None:
    (folder / "none.png").write_bytes(b"no picture")
    rows = [row(settings={"mouth": 9}), row(portrait="none.png"), row(settings={"weights": "none.safetensors"})]
    jobs = read_manifest(manifest(folder, *rows), folder / "out")
    said: list[str] = []
    assert [outcome.state for outcome in run_batch(jobs, folder / "out", say=said.append)] == ["failed"] * 3
    assert [line[:15] for line in said] == ["line 1 failed: ", "line 2 failed: ", "line 3 failed: "]


def test_half_a_letter_in_a_row_is_listed_and_does_not_end_the_batch(folder: Path) -> None:
    jobs = read_manifest(manifest(folder, row(settings={"fps": "\ud800"})), folder / "out")
    assert [outcome.state for outcome in run_batch(jobs, folder / "out")] == ["failed"]
    listed = json.loads((folder / "out" / "batch.json").read_text(encoding="utf-8"))
    assert r"The frame rate is \ud800," in listed[0]["error"]


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("CUDA error: unspecified launch failure"), OSError(errno.EIO, "I/O error")]
)
def test_what_the_machine_refuses_may_pass(folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(module, "animate", refuse)
    (job,) = read_manifest(manifest(folder, row()), folder / "out")
    failure = module.render(job)
    assert failure is not None
    assert failure.may_pass


def test_a_list_of_rows_is_not_written_over(folder: Path, capsys: Any) -> None:
    rows = manifest(folder, row()).rename(folder / "batch.json")
    before = rows.read_text()
    assert main(["batch", str(rows), "--out", str(folder)]) == 2
    assert f"{rows} is to be read and to be written over" in capsys.readouterr().err
    assert rows.read_text() == before


def test_a_list_of_results_that_does_not_fit_is_named(folder: Path, monkeypatch: Any, rendered: list) -> None:
    def full(self: Path, *_: Any, **__: Any) -> int:
        raise OSError(28, "No space left on device")

    jobs = read_manifest(manifest(folder, row("one")), folder / "out")
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(TalkingPortraitError, match=r"batch.json can't be written \(No space left on device\)"):
        run_batch(jobs, folder / "out")


def test_a_row_that_never_succeeds_ends_the_command_with_1(folder: Path, capsys: Any) -> None:
    rows = manifest(folder, row(settings={"mouth": 9}), row(settings={"longest_side": 64}))
    assert main(["batch", str(rows), "--out", str(folder / "out")]) == 1
    assert "1 made, 0 there already, 1 failed" in capsys.readouterr().out
    states = json.loads((folder / "out" / "batch.json").read_text())
    assert [entry["state"] for entry in states] == ["failed", "done"]
    assert states[0]["error"].startswith("The driver's mouth is 9, but a number from 0 to 3 is expected")


def test_an_interruption_keeps_what_is_done(folder: Path, monkeypatch: pytest.MonkeyPatch, rendered: list) -> None:
    jobs = read_manifest(manifest(folder, row(), row(settings={"seed": 2})), folder / "out")

    def interrupted(jobs: Sequence[Job]) -> Iterator[tuple[Job, module.Failure | None]]:
        yield next(iter(here(jobs)))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_batch(jobs, folder / "out", interrupted)
    assert [entry["state"] for entry in json.loads((folder / "out" / "batch.json").read_text())] == ["done"]
    assert [outcome.state for outcome in run_batch(jobs, folder / "out")] == ["there", "done"]
    assert len(rendered) == 2


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", r"Line 2 of rows.jsonl is no JSON, but an object such as .* is expected on each line."),
        ("[1]", r"Line 2 of rows.jsonl: The row is .* but an object with portrait and audio is expected."),
        ({"portrait": "a.png"}, "but an object with portrait and audio is expected."),
        (row(sound=1), "The row has 'sound', but only portrait, audio, renderer, settings, name are known."),
        (row("none"), r"Line 2 of rows.jsonl: The audio file .* does not exist"),
        (row(renderer="x"), "The renderer is 'x', but one of instant, aniportrait, anitalker, apasco is expected."),
        (row(settings=[1]), "but an object is expected, such as"),
        (row(settings={"out": "b.mp4"}), "The settings have 'out', which is no setting of a row; a row has portrait,"),
        (row(settings={"size": 64}), "size was given, but .* blink_rate, .* fps, longest_side, .* film_end, jaw"),
        (row(settings={"jaw": 0.5}), "jaw was given, but it is for videos; give a video as the portrait, or leave it"),
        (row(settings={"steps": 3}), "steps was given, but the renderer instant takes seed, mouth,"),
        (row(renderer="anitalker", settings={"mouth": 1}), "mouth was given, but the renderer anitalker takes "),
        (row(name="../up"), "The name is '../up', but a plain file name is expected."),
        (row(portrait=""), "The portrait is empty, but the name of a file is expected."),
        (row(name=3), "The name is 3, but text is expected."),
        (row(renderer=[]), "The renderer is .*, but one of instant, aniportrait"),
        (
            '{"portrait": "a\u2028\x85.png", "audio": "b.wav"}',
            "Line 2 of rows.jsonl: The portrait file .* does not exist",
        ),
    ],
)
def test_a_wrong_row_is_refused_before_anything_is_made(folder: Path, line: object, words: str) -> None:
    with pytest.raises(TalkingPortraitError, match=words):
        read_manifest(manifest(folder, row(), line), folder / "out")


def test_an_empty_manifest_is_refused(folder: Path, capsys: Any) -> None:
    assert main(["batch", str(manifest(folder)), "--out", str(folder / "out")]) == 2
    assert "rows.jsonl has no rows; give one JSON object on each line." in capsys.readouterr().err


def test_without_ray_the_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(TalkingPortraitError, match=r"--ray needs Ray \(.*\); run: .* -m pip install ray"):
        ray_workers()


def test_a_cluster_of_this_machine_is_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an address Ray goes to the cluster that was last started here, and waits for minutes if it has gone."""
    begun: list[dict[str, Any]] = []

    class Ray(SimpleNamespace):
        def init(self, **settings: Any) -> None:
            begun.append(settings)
            raise RuntimeError("that is enough")

    monkeypatch.setitem(sys.modules, "ray", Ray(is_initialized=lambda: False))
    with pytest.raises(TalkingPortraitError, match="that is enough"):
        ray_workers()
    assert [settings["address"] for settings in begun] == ["local"]


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("127.0.0.1:{}", r"Nothing answers at '127.0.0.1:\d+', where the Ray cluster was expected \("),
        ("ray://127.0.0.1:{}", r"Nothing answers at 'ray://127.0.0.1:\d+'"),
        ("there.invalid:{}", "Nothing answers at 'there.invalid"),
        ("cluster", "The address of the Ray cluster is 'cluster', but HOST:PORT, ray://HOST:PORT or auto"),
        ("cluster:port", "is 'cluster:port', but HOST:PORT"),
        ("[::1", r"is '\[::1', but HOST:PORT"),
    ],
)
def test_an_address_without_a_cluster_is_a_sentence_at_once(monkeypatch, address: str, sentence: str) -> None:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())  # which is not used
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
    with pytest.raises(TalkingPortraitError, match=sentence):
        ray_workers(address.format(free))


@pytest.mark.slow
def test_a_killed_worker_loses_nothing_and_doubles_nothing(folder: Path) -> None:
    """Two workers of a local cluster; one is killed while it renders."""
    ray = pytest.importorskip("ray", reason="needs requirements-ray.txt")
    for name in ("one", "two"):
        write_wav(folder / f"{name}.wav", Audio(torch.randn(1, 48000) * 0.1, 16000))
    rows = [row(name, settings={"longest_side": 64, "seed": seed}) for seed in range(3) for name in ("one", "two")]
    jobs = read_manifest(manifest(folder, *rows), folder / "out")
    ray.init(num_cpus=2, num_gpus=0, log_to_driver=False, include_dashboard=False)
    killed: list[int] = []
    said: list[str] = []

    def progress(done: int, total: int, preview: object = None) -> None:
        if not killed:
            killed.append(kill_one_worker())

    try:
        outcomes = run_batch(jobs, folder / "out", ray_workers(replicas=2), say=said.append, progress=progress)
    finally:
        ray.shutdown()
    assert killed
    assert len(said) == 1
    assert "its worker ended before it was done" in said[0]
    assert [outcome.state for outcome in outcomes] == ["done"] * 6
    assert sorted(path.name for path in (folder / "out").iterdir()) == sorted(
        ["batch.json", *(job.target.name for job in jobs)]
    )


def kill_one_worker() -> int:
    """Ends a process of Ray that is at work on a row."""
    for _ in range(600):
        for place in Path("/proc").glob("[0-9]*"):
            try:
                command = (place / "cmdline").read_bytes()
                parent = int((place / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            if command.startswith(b"ray::render") and parent:
                os.kill(int(place.name), signal.SIGKILL)
                return int(place.name)
        time.sleep(0.05)
    raise AssertionError("no worker of Ray is at work")
