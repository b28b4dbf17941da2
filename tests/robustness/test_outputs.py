"""Results whose names, folders and disks are not as usual, and what ended or killed runs leave."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import talking_portrait
import torch
from filelock import FileLock
from safetensors.torch import save_file
from talking_portrait.__main__ import main
from talking_portrait.nodes import host
from talking_portrait.nodes.standalone import node_api
from talking_portrait.nodes.standalone.core_nodes import output_file
from talking_portrait.pipelines.anitalker import speech_video as anitalker
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.files import scratch
from talking_portrait.pipelines.files.frame_stream import write_stream
from talking_portrait.pipelines.files.images import write_image
from talking_portrait.pipelines.files.output_paths import cut_to_bytes
from talking_portrait.pipelines.files.scratch import interruptions_held, scratch_folder, temporary_folder
from talking_portrait.pipelines.files.video import open_video
from talking_portrait.pipelines.model_files.store import list_files
from talking_portrait.pipelines.types import Audio

posix = pytest.mark.skipif(os.name != "posix", reason="of POSIX's links and signals")


def frames(count: int = 3, at: int = -1, happens: Callable[[], Any] = lambda: None) -> Iterator[torch.Tensor]:
    """Batches of one frame; something happens before frame `at` is given."""
    for number in range(count):
        if number == at:
            happens()
        yield torch.full((1, 16, 16, 3), number / count)


@posix
@pytest.mark.parametrize("out", ["talk.mp4", "./talk.mp4", "folder/../talk.mp4", "hard.mp4", "soft.mp4"])
@pytest.mark.parametrize("way", ["API, sound", "API, picture", "animate", "motion"])
def test_no_result_replaces_what_it_is_made_from(tmp_path, monkeypatch, capsys, out, way):
    monkeypatch.chdir(tmp_path)
    Path("talk.mp4").write_text("the only recording")
    Path("folder").mkdir()
    os.link("talk.mp4", "hard.mp4")
    os.symlink("talk.mp4", "soft.mp4")
    os.symlink("talk.mp4", "soft.npz")
    sentence = "talk.mp4 is to be read and to be written over; give another name for the result."
    if way.startswith("API"):
        picture, sound = ("talk.mp4", "voice.wav") if "picture" in way else ("face.png", "talk.mp4")
        with pytest.raises(TalkingPortraitError) as raised:
            talking_portrait.animate(picture, sound, out)
        assert str(raised.value) == sentence
    else:
        assert main([way, "--audio", "talk.mp4", "--out", out if way == "animate" else "soft.npz"]) == 2
        assert capsys.readouterr().err == f"error: {sentence}\n"
    assert Path("talk.mp4").read_text() == "the only recording"


@posix
@pytest.mark.parametrize("way", ["API", "animate", "train"])
def test_no_result_replaces_the_weights_it_is_made_with(tmp_path, monkeypatch, capsys, way):
    monkeypatch.chdir(tmp_path)
    for name in anitalker.FILES.values():
        (file,) = list_files(name)
        path = Path("models", file.folder, file.file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("weights")
    path.rename("o.mp4")
    os.symlink(tmp_path / "o.mp4", path)
    words = "is to be read and to be written over; give another name for the result."
    if way == "API":
        with pytest.raises(TalkingPortraitError, match=words):
            talking_portrait.animate("a.png", "a.wav", "o.mp4", renderer="anitalker", models="models")
    else:
        arguments = {
            "animate": ["animate", "--renderer", "anitalker", "--models", "models", "--out", "o.mp4"],
            "train": ["train", "instant-mouth", "--work", "w", "--start", "o.mp4", "--out", "./o.mp4"],
        }
        assert main(arguments[way]) == 2
        assert words in capsys.readouterr().err
    assert Path("o.mp4").read_text() == "weights"


@posix
@pytest.mark.parametrize("there", [True, False])
def test_two_results_are_not_one_file(tmp_path, monkeypatch, capsys, there):
    monkeypatch.chdir(tmp_path)
    if there:
        Path("m.npz").touch()
    os.symlink("m.npz", "o.mp4")
    assert main(["animate", "--out", "o.mp4", "--save-motion", "m.npz"]) == 2
    assert "o.mp4 and m.npz are the same file by a link; give another name" in capsys.readouterr().err


@posix
@pytest.mark.parametrize("target", ["blob", "old.npz", "new.webm"])
def test_a_video_goes_where_a_link_leads_whatever_that_is_called(tmp_path, target):
    os.symlink(target, tmp_path / "latest.mp4")
    assert write_stream(tmp_path / "latest.mp4", frames(), Fraction(25)) == 3
    assert (tmp_path / "latest.mp4").is_symlink()
    assert (tmp_path / target).read_bytes()[4:8] == b"ftyp"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_no_utf_8_are_kept_and_safetensors_say_so(tmp_path):
    from talking_portrait.models.checkpoints import read_checkpoint
    from talking_portrait.pipelines.evaluation.report import Report, write_report

    report = Report({"video": "f\udcff.mp4"}, (), torch.zeros(8, 8, 3))
    (json_file, *_) = write_report(tmp_path, report)
    assert json.loads(json_file.read_text(encoding="utf-8"))["video"] == "f\udcff.mp4"
    path = tmp_path / "f\udcff.safetensors"
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").rename(path)
    with pytest.raises(TalkingPortraitError, match="no UTF-8; rename that one"):
        read_checkpoint(path)
    assert cut_to_bytes("f\udcff\u89c6", 3) == "f"


@pytest.mark.parametrize("letter", ["n", "\u00e9", "\u89c6", "\U0001f600"])
@pytest.mark.parametrize("node", ["SaveImage", "SaveVideo", "SaveAudio"])
def test_a_name_that_is_taken_before_the_work_is_taken_after_it(tmp_path, capsys, letter, node):
    """Of 200 bytes, the most there may be, to which number and ending come."""
    write_image(tmp_path / "a.png", torch.rand(16, 16, 3))
    write_stream(tmp_path / "a.mp4", frames(), Fraction(25), Audio(torch.rand(1, 1600), 16000))
    prefix = letter * (200 // len(letter.encode()))
    flow = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
        "2": {"class_type": "CreateVideo", "inputs": {"images": ["1", 0], "fps": 25}},
        "3": {"class_type": "LoadAudio", "inputs": {"audio": "a.mp4"}},
        "4": {"class_type": node, "inputs": {"filename_prefix": prefix, "images": ["1", 0]}},
    }
    if node != "SaveImage":
        del flow["4"]["inputs"]["images"]
        flow["4"]["inputs"] |= (
            {"audio": ["3", 0]} if node == "SaveAudio" else {"video": ["2", 0], "format": "auto", "codec": "auto"}
        )
    (tmp_path / "flow.json").write_text(json.dumps(flow))
    out = tmp_path / "out"
    assert main(["run", str(tmp_path / "flow.json"), "--input", str(tmp_path), "--out", str(out)]) == 0
    ending = {"SaveImage": "png", "SaveVideo": "mp4", "SaveAudio": "wav"}[node]
    assert [path.name for path in out.iterdir()] == [f"{prefix}_00001_.{ending}"]


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("gone", ["folder", "scratch"])
def test_a_video_whose_folder_goes_while_it_is_made_is_one_sentence(tmp_path, gone, at):
    folder = tmp_path / "results"
    folder.mkdir()

    def go() -> None:
        for place in [folder] if gone == "folder" else folder.glob(".*.part"):
            shutil.rmtree(place)

    if gone == "scratch" and at == 0:  # it is made with the first frame
        assert write_stream(folder / "x.mp4", frames(3, at, go), Fraction(25)) == 3
        return
    with pytest.raises(
        TalkingPortraitError, match=r"^The (video x\.mp4 can't be written \(|folder .* does not exist)"
    ) as raised:
        write_stream(folder / "x.mp4", frames(3, at, go), Fraction(25))
    assert not folder.exists() or not list(folder.iterdir())
    assert " @ 0x" not in str(raised.value)


def test_a_folder_that_takes_the_name_while_the_video_is_made_is_one_sentence(tmp_path):
    with pytest.raises(TalkingPortraitError, match=r"The video x\.mp4 can't be written"):
        write_stream(tmp_path / "x.mp4", frames(3, 2, (tmp_path / "x.mp4").mkdir), Fraction(25))
    assert [path.name for path in tmp_path.iterdir()] == ["x.mp4"]


@pytest.mark.parametrize("gone", ["folder", "scratch", "file"])
def test_a_saved_file_whose_place_goes_is_one_sentence(tmp_path, gone):
    out = tmp_path / "out"

    def save() -> None:
        with node_api.use_session(node_api.Session(output_folder=out)), output_file("deep/x", ".png") as file:
            file.partial.write_text("whole")
            if gone == "file":
                file.partial.unlink()
            else:
                shutil.rmtree(file.partial.parent if gone == "scratch" else out)

    with pytest.raises(TalkingPortraitError, match=r"Nothing can be put into the folder .*No such file"):
        save()
    assert not out.exists()


@posix
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_request_to_end_waits_until_what_was_begun_can_be_removed(name):
    number, came = getattr(signal, name), []
    before = signal.signal(number, lambda *what: came.append(name))
    try:
        with interruptions_held():
            signal.raise_signal(number)
            assert came == []
        assert came == [name]
    finally:
        signal.signal(number, before)


@posix
def test_a_request_that_is_ignored_stays_so():
    """As nohup has it; an interruption that comes after it still counts."""
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGINT)}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        with interruptions_held():
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGINT)
        assert came == [signal.SIGINT]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@posix
def test_a_killed_runs_temporary_video_goes_with_the_next_one(tmp_path, monkeypatch):
    program = (
        "import os, signal\n"
        "from talking_portrait.nodes import host\n"
        "host.encoded_video(lambda path: (path.write_bytes(b'half'), os.kill(os.getpid(), signal.SIGKILL)))"
    )
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "TMPDIR": str(tmp_path)}, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.rglob("video.mp4")] == ["video.mp4"]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    video = host.encoded_video(lambda path: write_stream(path, frames(), Fraction(25)))
    assert [open_video(path).size for path in tmp_path.rglob("video.mp4")] == [(16, 16)]
    del video
    gc.collect()
    assert list(tmp_path.iterdir()) == []


@posix
def test_a_lock_that_is_a_link_of_anothers_is_not_touched(tmp_path):
    (tmp_path / "precious").write_text("precious")
    trap = tmp_path / ".x.abcd1234.part"
    trap.mkdir()
    os.symlink(tmp_path / "precious", trap / "talking_portrait.lock")
    with scratch_folder(tmp_path, "x"):
        pass
    assert (tmp_path / "precious").read_text() == "precious"
    assert trap.exists()


def test_what_a_run_leaves_that_is_killed_before_its_lock_or_while_it_clears_goes_with_the_next(tmp_path):
    for name in (".a.abcd1234.part", ".b.abcd1234.part", ".c.abcd1234.part", "empty", ".d.abcd1234.other"):
        (tmp_path / name).mkdir()
    (tmp_path / ".b.abcd1234.part" / "somebody's.txt").touch()
    (tmp_path / ".c.abcd1234.part" / "talking_portrait.lock").touch()
    with scratch_folder(tmp_path, "x"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.abcd1234.part", ".d.abcd1234.other", "empty"]


@pytest.mark.parametrize("at", range(4))
def test_a_folder_is_known_as_abandoned_until_all_in_it_is_removed(tmp_path, monkeypatch, at):
    """The process is killed before it removes the file number `at`."""
    removed: list[str] = []
    unlink = os.unlink

    def killed(path: Any, **options: Any) -> None:
        if len(removed) >= at:
            raise OSError("killed")
        removed.append(str(path))
        unlink(path, **options)

    with monkeypatch.context() as patched, scratch_folder(tmp_path, "x") as place:
        for name in ("1", "2", "a/3"):
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).touch()
        patched.setattr(os, "unlink", killed)
        patched.setattr(Path, "unlink", lambda path, missing_ok=False: killed(path))
        scratch._empty(place)
        scratch._remove(place)
        assert not place.exists() or (place / "talking_portrait.lock").exists()
    with scratch_folder(tmp_path, "x"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fails", [True, False])
def test_a_scratch_folder_that_another_process_took_for_a_dead_ones_is_made_anew(tmp_path, monkeypatch, fails):
    """It is gone before its lock is held, upon which locks fail or hold a file that is not there."""
    taken: list[Path] = []

    class SnatchedLock(FileLock):
        def acquire(self, *args: Any, **options: Any) -> Any:
            place = Path(self.lock_file).parent
            if not taken:
                taken.append(place)
                held = None if fails else super().acquire(*args, **options)
                shutil.rmtree(place)
                if fails:
                    raise FileNotFoundError
                return held
            return super().acquire(*args, **options)

    monkeypatch.setattr("filelock.FileLock", SnatchedLock)
    with scratch_folder(tmp_path, "x") as place:
        assert place.is_dir()
        assert [place] == list(tmp_path.iterdir())
        assert taken != [place]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [TalkingPortraitError("The video is refused."), KeyboardInterrupt()])
def test_a_temporary_video_that_fails_is_gone_at_once(tmp_path, monkeypatch, error):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    with pytest.raises(type(error)):
        host.encoded_video(fail)
    assert list(tmp_path.iterdir()) == []


def test_no_room_for_temporary_files_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(TalkingPortraitError, match="There is no room for temporary files"), temporary_folder("x"):
        pass
    with pytest.raises(TalkingPortraitError, match="There is no room for temporary files"):
        host.encoded_video(lambda path: path.touch())
