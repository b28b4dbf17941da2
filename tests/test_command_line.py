"""The command line on real files: results, error sentences and exit codes."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import talking_portrait
import talking_portrait.__main__ as command_line
import torch
from PIL import Image
from talking_portrait.__main__ import main
from talking_portrait.pipelines.commands.shared import terminal
from talking_portrait.pipelines.commands.shared.progress_bar import ProgressBar
from talking_portrait.pipelines.files.example import example_portrait
from talking_portrait.pipelines.files.images import write_image
from talking_portrait.pipelines.files.motion_file import load_motion
from talking_portrait.pipelines.files.sound import read_audio, write_wav
from talking_portrait.pipelines.files.video import open_video
from talking_portrait.pipelines.instant import animate
from talking_portrait.pipelines.types import Audio

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def signals() -> Iterator[None]:
    """Started commands are sent signals that a suite in the background, or under nohup, has them ignore."""
    names = [name for name in ("SIGINT", "SIGHUP") if hasattr(signal, name)]
    ignored = [getattr(signal, name) for name in names if signal.getsignal(getattr(signal, name)) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.default_int_handler)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture
def voice(tmp_path: Path) -> Path:
    """1.01 seconds of a buzzing, swelling tone."""
    time = torch.arange(16160) / 16000
    wave = torch.sin(2 * torch.pi * 140 * time).sign() * torch.sin(torch.pi * 3 * time).abs() * 0.3
    write_wav(tmp_path / "voice.wav", Audio(wave[None], 16000))
    return tmp_path / "voice.wav"


def test_animate_writes_a_video_with_its_sound_and_motion(tmp_path, voice, capsys):
    out, kept = tmp_path / "out.mp4", tmp_path / "motion.npz"
    command = ["animate", "--audio", str(voice), "--out", str(out), "--size", "96", "--save-motion", str(kept)]
    assert main(command) == 0
    assert "26 frames at 25 fps" in capsys.readouterr().out
    video = open_video(out)
    assert (video.size, video.fps) == ((96, 96), 25)
    assert len(list(video.frames())) == 26
    assert abs(float(read_audio(out).seconds) - 1.01) < 0.1
    with np.load(kept) as table:
        assert table["vertices"].shape == (26, 468, 3)
        assert table["rotation"].shape == table["translation"].shape == (26, 3)
        assert float(table["fps"]) == 25
    assert main(["animate", "--motion", str(kept), "--out", str(tmp_path / "again.mp4"), "--size", "96"]) == 0
    again = np.stack(list(open_video(tmp_path / "again.mp4").frames()))
    assert np.abs(again - np.stack(list(video.frames())).astype(float)).mean() < 0.5


@pytest.mark.parametrize("link", [False, True])
def test_what_a_result_is_made_from_is_not_written_over(tmp_path, voice, capsys, link):
    film, motion = tmp_path / "film.mp4", tmp_path / "m.npz"
    weights, basel = tmp_path / "w.safetensors", tmp_path / "data.mat"
    for name, arguments in (
        (film, ["animate", "--audio", str(film), "--out"]),
        (film, ["animate", "--image", str(film), "--out"]),
        (motion, ["animate", "--motion", str(motion), "--out", str(film), "--save-motion"]),
        (motion, ["motion", "--audio", str(motion), "--out"]),
        (weights, ["train", "instant-driver", "--people", str(tmp_path), "--start", str(weights), "--out"]),
        (basel, ["person", "face-model", str(basel), "--out"]),
    ):
        name.write_bytes(voice.read_bytes())
        out = name.with_name(f"link{name.suffix}") if link else name
        if link:
            out.symlink_to(name)
        assert main([*arguments, str(out)]) == 2
        assert f"{name} is to be read and to be written over" in capsys.readouterr().err
        assert name.read_bytes() == voice.read_bytes()
        if link:
            out.unlink()
        name.unlink()


def test_options_of_the_driver_are_refused_with_a_saved_motion(tmp_path, voice, capsys):
    motion, out = tmp_path / "m.npz", tmp_path / "out.mp4"
    assert main(["motion", "--audio", str(voice), "--out", str(motion)]) == 0
    command = ["animate", "--motion", str(motion), "--out", str(out), "--size", "64"]
    capsys.readouterr()
    assert main([*command, "--audio", str(voice)]) == 0
    assert capsys.readouterr().err == ""
    assert main([*command, "--fps", "30"]) == 0
    assert capsys.readouterr().err.startswith("--fps has no effect with --motion: ")
    assert main([*command, "--fps", "25", "--blink-rate", "3", "--seed", "0"]) == 0
    assert capsys.readouterr().err.startswith("--fps, --seed, --blink-rate have no effect with --motion: ")
    assert open_video(out).fps == 25


@pytest.mark.parametrize(
    ("seconds", "frames", "words"),
    [
        (2.5, 63, "The motion lasts 1.04 s and the sound 2.50 s, so its last pose is held."),
        (0.5, 13, "The motion lasts 1.04 s and the sound 0.50 s, so the motion is cut where the sound ends."),
    ],
)
def test_sound_sets_the_length_and_another_length_of_the_motion_is_reported(
    tmp_path, voice, capsys, seconds, frames, words
):
    assert main(["motion", "--audio", str(voice), "--out", str(tmp_path / "m.npz")]) == 0
    write_wav(tmp_path / "other.wav", Audio(torch.randn(1, round(16000 * seconds)) * 0.1, 16000))
    command = ["animate", "--motion", str(tmp_path / "m.npz"), "--audio", str(tmp_path / "other.wav"), "--size", "64"]
    command += ["--out", str(tmp_path / "out.mp4"), "--save-motion", str(tmp_path / "used.npz")]
    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().err.strip() == words
    assert len(list(open_video(tmp_path / "out.mp4").frames())) == frames
    assert float(read_audio(tmp_path / "out.mp4").seconds) == pytest.approx(
        seconds, abs=0.07
    )  # AAC ends with a whole block
    before, used = load_motion(tmp_path / "m.npz"), load_motion(tmp_path / "used.npz")
    shared = min(before.frames, frames)
    assert used.frames == frames
    assert np.abs(used.vertices[:shared] - before.vertices[:shared]).max() == 0
    assert np.ptp(used.vertices[shared - 1 :], axis=0).max() == 0


def test_motion_repeats_with_its_seed(tmp_path, voice):
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        assert main(["motion", "--audio", str(voice), "--out", str(tmp_path / f"{name}.npz"), "--seed", seed]) == 0
    a, b, c = (load_motion(tmp_path / f"{name}.npz") for name in "abc")
    np.testing.assert_allclose(a.rotation, b.rotation, atol=1e-4)
    np.testing.assert_allclose(a.vertices, b.vertices, atol=1e-5)
    assert not np.allclose(a.rotation, c.rotation, atol=0.1)


def test_amounts_of_zero_are_a_still_head(tmp_path, voice):
    still = ["--head", "0", "--nod", "0", "--drift", "0", "--brows", "0", "--blinks", "0", "--mouth", "0"]
    assert main(["motion", "--audio", str(voice), "--out", str(tmp_path / "m.npz"), *still]) == 0
    motion = load_motion(tmp_path / "m.npz")
    assert not motion.rotation.any()
    assert not motion.translation.any()
    assert np.array_equal(motion.vertices, np.broadcast_to(motion.neutral, motion.vertices.shape))


def test_a_picture_that_moves_is_said_to_be_one_picture(tmp_path, capsys):
    """Pages of a TIFF do not move."""
    first, second = Image.new("RGB", (64, 64)), Image.new("RGB", (64, 64), "white")
    for name, kind in (("a.gif", "GIF"), ("a.png", "PNG"), ("a.webp", "WEBP"), ("a.tif", "TIFF")):
        first.save(tmp_path / name, kind, save_all=True, append_images=[second])
        assert main(["animate", "--image", str(tmp_path / name), "--out", str(tmp_path / "out.mp4")]) != 0
        said = capsys.readouterr().err
        assert "shows no face" in said
        assert ("moves, and its first picture is taken" in said) == (kind in ("GIF", "PNG", "WEBP"))
        assert ("has 2 pages, of which the first is taken" in said) == (kind == "TIFF")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--audio", "none.wav"], "none.wav does not exist"),
        (["--fps", "0"], "frame rate is 0"),
        (["--fps", "1000"], "frame rate is 1000"),
        (["--out", "nowhere/out.mp4"], "folder"),
        (["--out", "out.txt"], ".mp4"),
        (["--size", "3"], "at least 16"),
        (["--size", "100000"], "million pixels"),
        (["--crf", "52"], "0 (lossless) to 51"),
        (["--save-motion", "out.mp4"], ".npz"),
        (["--device", "toaster"], "'toaster'"),
        (["--device", "meta"], "'meta'"),
        (["--face", "5"], "only face 0"),
        (["--out", "."], ".mp4"),
        (["--motion", "voice.wav"], "voice.wav"),
        (["--image", "voice.wav"], "can't be read"),
        (["--save-motion", "nowhere/m.npz"], "folder"),
        (["--save-motion", "voice.wav/m.npz"], "voice.wav is a file; name a folder"),
        (["--save-motion", "."], ".npz"),
        (["--out", "x" * 5000 + ".mp4"], "name"),
        (["--audio", "x" * 5000], "can't be opened (File name too long)"),
        (["--image", "a\0b"], "can't be opened (embedded null byte)"),
        (["--fps", "1/0"], "frame rate is 1/0"),
        (["--mouth", "nan"], "mouth is nan"),
        (["--image", "none.png", "--blinks", "inf"], "blinks is inf"),
        (["--image", "none.png", "--size", "3"], "at least 16"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(tmp_path, voice, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert main(["animate", "--audio", "voice.wav", "--out", "out.mp4", *arguments]) == 2
    stderr = capsys.readouterr().err.strip()
    assert words in stderr
    assert "\n" not in stderr
    assert len(stderr) < 500
    assert [path.name for path in tmp_path.iterdir()] == ["voice.wav"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required: COMMAND; --help lists what it takes."),
        (["sing"], "invalid choice: 'sing'"),
        (["animate", "--out", "o.mp4", "--audio", ""], "an argument is empty"),
        (["animate"], "error: talking_portrait animate: the following arguments are required: --out"),
        (["animate", "--out", "o.mp4", "--size", "x\n"], "--size: invalid int value: 'x"),
        (["motion", "--audio", "-v.wav", "--out", "m.npz"], "--audio: expected one argument; write a name that begins"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(capsys, arguments, words):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    stderr = capsys.readouterr().err
    assert words in stderr
    assert stderr.count("\n") == 1


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"Talking Portrait {talking_portrait.__version__}\n"


def test_a_motion_never_replaces_a_recording(tmp_path, voice, capsys):
    before = voice.read_bytes()
    assert main(["motion", "--audio", str(voice), "--out", str(voice)]) == 2
    assert ".npz" in capsys.readouterr().err
    assert voice.read_bytes() == before


@pytest.mark.parametrize(("option", "target"), [("--out", "/proc/x.mp4"), ("--save-motion", "/proc/x.npz")])
def test_the_output_path_is_checked_before_the_work(tmp_path, voice, monkeypatch, capsys, option, target):
    monkeypatch.setattr("talking_portrait.pipelines.files.sound.read_speech", None)  # it would fail, had it been called
    place = {"--out": str(tmp_path / "out.mp4"), "--save-motion": str(tmp_path / "m.npz"), option: target}
    assert main(["animate", "--audio", str(voice), *(part for pair in place.items() for part in pair)]) == 2
    assert "/proc can't be written to" in capsys.readouterr().err


def test_a_large_picture_becomes_a_video_of_usual_size(tmp_path, voice, monkeypatch, capsys):
    monkeypatch.setattr(animate, "USUAL_LONGEST_SIDE", 100)
    out = tmp_path / "out.mp4"
    assert main(["animate", "--audio", str(voice), "--out", str(out)]) == 0
    assert open_video(out).size == (100, 100)
    assert "has 512 x 512 pixels; the longer side of the video gets 100 (choose another with --size)" in (
        capsys.readouterr().err
    )
    assert main(["animate", "--audio", str(voice), "--out", str(out), "--size", "128"]) == 0
    assert open_video(out).size == (128, 128)


@pytest.mark.parametrize("moment", ["torch", "numpy"])
def test_an_interrupt_while_libraries_load_is_no_fault(tmp_path, moment, signals):
    (tmp_path / f"{moment}.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    result = subprocess.run(
        [sys.executable, "-m", "talking_portrait", "animate", "--out", "a.mp4"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr.strip()) == (130, "interrupted")
    assert not list(tmp_path.glob("*.mp4"))


@pytest.mark.parametrize("command", ["doctor", "animate"])
def test_a_package_that_is_not_installed_is_one_sentence(tmp_path, command):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    result = subprocess.run(
        [sys.executable, "-m", "talking_portrait", command, *(["--out", "a.mp4"] if command == "animate" else [])],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert re.fullmatch(
        r'error: The Python package torch is not installed; run: ".+" -m pip install '
        r'-r ".*requirements\.txt" -r ".*requirements-standalone\.txt"\n',
        result.stderr,
    )


def test_a_module_of_our_own_that_is_missing_stays_a_fault(monkeypatch, tmp_path):
    fault = ModuleNotFoundError("No module named 'talking_portrait.none'", name="talking_portrait.none")

    def fail(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(animate, "InstantRenderer", fail)
    with pytest.raises(ModuleNotFoundError):
        main(["animate", "--out", str(tmp_path / "a.mp4")])


def test_an_interrupt_that_breaks_a_library_is_still_one(tmp_path, signals):
    """As one that NumPy swallows while it loads, and misses a part of itself later."""
    swallow = "try:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept KeyboardInterrupt:\n    pass\nraise AttributeError"
    (tmp_path / "numpy.py").write_text(f"import os, signal\n{swallow}")
    result = subprocess.run(
        [sys.executable, "-m", "talking_portrait", "animate", "--out", "a.mp4"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr.strip()) == (130, "interrupted")


@pytest.mark.parametrize(
    ("own", "expected"), [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")]
)
def test_threads_leave_a_busy_machine_its_cores_unless_told_otherwise(monkeypatch, own, expected):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    code = "import os, sys, talking_portrait.__main__; print('torch' in sys.modules, os.environ.get('GOMP_SPINCOUNT'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", expected]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("[enforce fail] can't allocate memory: 5 bytes")])
def test_too_little_memory_is_reported(tmp_path, monkeypatch, capsys, error):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(animate, "InstantRenderer", fail)
    assert main(["animate", "--out", str(tmp_path / "a.mp4")]) == 2
    assert "error: This needs more memory than there is" in capsys.readouterr().err


def test_a_reader_may_close_the_pipe_early(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [sys.executable, "-m", "talking_portrait", "models", "list"]
        result = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writer)
    assert (result.returncode, result.stderr) == (141, b"")


@pytest.mark.parametrize("name", ["SIGTERM", pytest.param("SIGHUP", marks=pytest.mark.slow), "SIGINT"])
def test_every_termination_signal_cleans_up(tmp_path, name, signals):
    """The video is being written when the signal comes."""
    code = (
        "import os, signal, sys\n"
        "from talking_portrait import __main__ as command\n"
        "from talking_portrait.pipelines.commands.shared.progress_bar import ProgressBar\n"
        f"def stop(*_): os.kill(os.getpid(), signal.{name})\n"
        "ProgressBar.__call__ = lambda self, done, total, preview=None: self._label == 'rendering' and stop()\n"
        "sys.exit(command.main(['animate', '--out', 'a.mp4', '--size', '192']))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr.strip()) == (130, "interrupted")
    assert list(tmp_path.iterdir()) == []


def test_an_own_picture_needs_no_download(tmp_path, voice, monkeypatch, capsys):
    def no_network(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setenv("TALKING_PORTRAIT_MODELS", str(tmp_path / "models"))
    write_image(tmp_path / "own.png", example_portrait()[0])
    own = ["animate", "--image", str(tmp_path / "own.png"), "--audio", str(voice), "--size", "96"]
    assert main([*own, "--out", str(tmp_path / "out.mp4")]) == 0
    assert (tmp_path / "out.mp4").stat().st_size > 1000
    assert not (tmp_path / "models").exists()
    stderr = capsys.readouterr().err
    assert stderr.count("\n") == 1
    assert "download it from https://" in stderr
    assert "models get face_landmarker" in stderr


def test_a_picture_without_a_face_is_reported(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TALKING_PORTRAIT_MODELS", str(tmp_path / "models"))
    write_image(tmp_path / "grey.png", torch.full((64, 64, 3), 0.5))
    assert main(["animate", "--image", str(tmp_path / "grey.png"), "--out", str(tmp_path / "out.mp4")]) == 2
    assert "error: " in capsys.readouterr().err


def test_interruption_leaves_nothing(tmp_path, voice, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ProgressBar, "__call__", interrupt)
    assert main(["animate", "--audio", str(voice), "--out", str(tmp_path / "out.mp4"), "--size", "64"]) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["voice.wav"]


def test_a_truncated_motion_is_refused(tmp_path, voice, capsys):
    assert main(["motion", "--audio", str(voice), "--out", str(tmp_path / "m.npz")]) == 0
    (tmp_path / "cut.npz").write_bytes((tmp_path / "m.npz").read_bytes()[:1000])
    assert main(["animate", "--motion", str(tmp_path / "cut.npz"), "--out", str(tmp_path / "out.mp4")]) == 2
    assert "cut.npz" in capsys.readouterr().err


def test_what_is_said_beside_a_progress_bar_has_a_line_of_its_own(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "stdout", screen)
    bar = ProgressBar("rendering")
    bar(0, 10)
    bar._drawn = 0.0
    bar(5, 10)
    terminal.note("a note")
    bar(10, 10)
    terminal.say("the result")
    lines = [line.rpartition("\r")[2].removesuffix("\033[K") for line in screen.getvalue().split("\n")]
    assert screen.getvalue().startswith(f"\rrendering [{24 * '.'}] 0/10 frames\033[K\r"), "no time left is known yet"
    assert (lines[1], lines[3:]) == ("a note", ["the result", ""])
    bar._drawn = 0.0
    bar(6, 10)
    terminal.last_words("\ninterrupted")
    assert screen.getvalue().endswith(" s left\033[K\ninterrupted\n"), "no empty line lies between"


@pytest.mark.parametrize("start", [["-m", "talking_portrait"], [str(ROOT)]])
def test_it_runs_installed_and_straight_from_its_folder(start, tmp_path):
    result = subprocess.run(
        [sys.executable, *start, "models", "list"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "face_landmarker" in result.stdout


def test_a_linked_pack_uses_the_models_of_the_comfyui_it_is_linked_into(tmp_path):
    (tmp_path / "custom_nodes").mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "custom_nodes" / "pack").symlink_to(ROOT)
    environment = {name: value for name, value in os.environ.items() if name != "TALKING_PORTRAIT_MODELS"}
    command = [sys.executable, "custom_nodes/pack", "models", "check", "face_landmarker"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert str(tmp_path / "models" / "detection" / "face_landmarker.task") in done.stdout


@pytest.mark.parametrize(("module", "names"), command_line.COMMANDS.items())
def test_a_command_is_found_by_its_name_alone(module: str, names: tuple[str, ...]):
    (commands,) = (action for action in command_line._parser(names[0])._actions if action.dest == "command")
    assert tuple(commands.choices or ()) == names, module


def test_what_needs_no_torch_starts_without_it():
    lines = [
        ["--version"],
        ["models", "list"],
        ["motion", "--help"],
        ["run", "--help"],
        ["batch", "--help"],
    ]
    code = f"""
import sys
from talking_portrait.__main__ import main
for line in {lines}:
    try:
        main(line)
    except SystemExit:
        pass
    print("torch" in sys.modules, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["False"] * len(lines)
