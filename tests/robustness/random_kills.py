"""Ends the commands at random moments and looks at what is left: `make kills`, and a few of them in the suite.

    python -m tests.robustness.random_kills [--times 100] [--seed 0] [COMMAND ...]

Each command runs on tiny inputs and gets SIGINT, SIGTERM or SIGKILL, mostly while it writes. Its inputs have to stay as
they were, no half results may have a name, and the next run of the same command has to succeed and leave its whole
results alone: no hidden files, nothing in the folder for temporary files. Training goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from talking_portrait.pipelines.audiodvp.fitted_face import FittedFace
from talking_portrait.pipelines.audiodvp.person_model import open_model
from talking_portrait.pipelines.files.example import example_portrait, example_speech
from talking_portrait.pipelines.files.frame_stream import write_stream
from talking_portrait.pipelines.files.images import write_image
from talking_portrait.pipelines.files.motion_file import load_motion
from talking_portrait.pipelines.files.sound import read_audio, write_wav
from talking_portrait.pipelines.files.video import open_video
from talking_portrait.pipelines.instant.animate import fit_portrait, frames_of
from talking_portrait.pipelines.instant.driver.driver import drive
from talking_portrait.pipelines.person.person import open_person
from talking_portrait.pipelines.training.data.clips import CLIPS, MANIFEST, Clip, read_clips
from talking_portrait.pipelines.types import Audio

from ..pipelines.training import training_bench as bench
from ..toy_person import make_person, toy_model

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGKILL") if hasattr(signal, name))
LONGEST = 300.0
"""Seconds that a run may take on the slowest machine, or to end when it is asked to."""
STARTING = 0.2
"""The part of all moments that lie before a command begins to write."""
FRAMES = 10
STEPS = 5
MODEL = b"\x80\x02}q\x00." + bytes(3_000_000)
"""A model file, which begins as a pickle does."""


@dataclass(frozen=True)
class Command:
    """`arguments` follow `talking_portrait`; results go to the folder out. `again`: what the next run has in addition.

    `left` checks whole results, and returns what is wrong with them; `kept` are starts of names that an interruption
    leaves on purpose. `run` is the folder in out that training writes its checkpoints and its log to.
    """

    name: str
    arguments: tuple[str, ...]
    whole: Callable[[Path], Iterator[str]]
    again: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    run: str = ""


# --- what whole results are ---


def only(out: Path, *names: str) -> Iterator[str]:
    found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    if found != sorted(names):
        yield f"{found} is there, but {sorted(names)} is expected"


def is_video(path: Path) -> Iterator[str]:
    count = sum(1 for _ in open_video(path).frames())
    if count != FRAMES:
        yield f"{path.name} has {count} frames"


def animated(out: Path) -> Iterator[str]:
    yield from only(out, "o.mp4", "o.npz")
    yield from is_video(out / "o.mp4")
    if load_motion(out / "o.npz").frames != FRAMES:
        yield "the motion is too short"


def moved(out: Path) -> Iterator[str]:
    yield from only(out, "o.npz")
    if load_motion(out / "o.npz").frames != FRAMES:
        yield "the motion is too short"


def saved(out: Path) -> Iterator[str]:
    """Each run adds numbered results; those of the run that was ended count where they are whole."""
    names = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    for name in names:
        if name.startswith("deep/talk_0"):
            yield from is_video(out / name)
        elif name.startswith("face_0"):
            Image.open(out / name).load()
        elif name.startswith("voice_0"):
            read_audio(out / name)
        else:
            yield f"{name} is there"
    if len(names) < 3:
        yield f"only {names} are there"


def prepared(out: Path) -> Iterator[str]:
    clips = read_clips(out)
    manifest = json.loads((out / MANIFEST).read_text())["videos"]
    entered = sorted(name for video in manifest.values() for name in video["clips"])
    if len(entered) != 2 or sorted(os.listdir(out / CLIPS)) != entered:
        yield f"{sorted(os.listdir(out / CLIPS))} are there, {entered} are in the list"
    for clip in clips:
        yield from is_clip(clip)
    if sorted(os.listdir(out)) != [".manifest.lock", CLIPS, MANIFEST]:
        yield f"{sorted(os.listdir(out))} are there"


def is_clip(clip: Clip) -> Iterator[str]:
    for name in ("points", "matrix", "vertices", "blendshapes", "speech"):
        clip.array(name)  # type: ignore[arg-type]
    for frame in range(clip.frames):
        clip.picture(frame)
    if sorted(os.listdir(clip.folder / "frames")) != [f"{frame:06d}.jpg" for frame in range(clip.frames)]:
        yield f"{clip.folder.name} has other pictures"


def trained(out: Path) -> Iterator[str]:
    checkpoints = [f"checkpoints/step-{step:08d}.safetensors" for step in (STEPS - 1, STEPS)]
    yield from only(out, "audio2mesh.safetensors", "log.jsonl", *checkpoints)
    for path in out.rglob("*.safetensors"):
        load_file(path)
    steps = [line["step"] for line in bench.read_log(out)]
    if steps != list(range(1, STEPS + 1)):
        yield f"the log has the steps {steps}"


def person_prepared(out: Path) -> Iterator[str]:
    person = open_person(out)
    person.track(), person.crops(range(person.frames)), person.audio(), person.speech(), person.mouth_encoder()
    FittedFace.read(out)
    found = sorted(path.name for path in out.iterdir())
    stored = ["audio.wav", "audiodvp", "crops", "meta.json", "mouth.safetensors", "source.mp4", "speech.npz"]
    if found != [".person.lock", *stored, "track.npz", "usable.npy"]:
        yield f"{found} are there"
    if sorted(os.listdir(out / "crops")) != [f"{frame:06d}.png" for frame in range(person.frames)]:
        yield "there are other crops"


def person_trained(out: Path) -> Iterator[str]:
    open_model(out / "person.safetensors")
    checkpoints = [f"checkpoints/step-{step:08d}.safetensors" for step in (STEPS - 1, STEPS)]
    files = [f"{run}/{name}" for run in ("expression", "renderer") for name in ("log.jsonl", *checkpoints)]
    networks = ["expression/expression.safetensors", "renderer/renderer.safetensors"]
    networks.append(f"expression/pictures/step-{STEPS:08d}.png")
    yield from only(out, "person.safetensors", "run.json", "held_out.json", *files, *networks)
    for run in ("expression", "renderer"):
        steps = [line["step"] for line in bench.read_log(out / run)]
        if steps != list(range(1, STEPS + 1)):
            yield f"the log of the {run} has the steps {steps}"


def driven(out: Path) -> Iterator[str]:
    yield from only(out, "o.mp4")
    yield from is_video(out / "o.mp4")


def fetched(out: Path) -> Iterator[str]:
    yield from only(out, "vae/one.bin")
    if (out / "vae" / "one.bin").read_bytes() != MODEL:
        yield "the file is not the one that was sent"


# --- the commands and their inputs ---

AUTO = {"format": "auto", "codec": "auto"}
FLOW: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "face.png"}},
    "2": {"class_type": "LoadVideo", "inputs": {"file": "one.mp4"}},
    "3": {"class_type": "GetVideoComponents", "inputs": {"video": ["2", 0]}},
    "4": {"class_type": "CreateVideo", "inputs": {"images": ["3", 0], "fps": 25, "audio": ["3", 1]}},
    "5": {"class_type": "SaveVideo", "inputs": {"video": ["4", 0], "filename_prefix": "deep/talk", **AUTO}},
    "6": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "face"}},
    "7": {"class_type": "SaveAudio", "inputs": {"audio": ["3", 1], "filename_prefix": "voice"}},
}
FETCH = """
import runpy, sys
from talking_portrait.pipelines.model_files import store
from talking_portrait.pipelines.model_files.model_file import ModelFile
store.MODEL_FILES += (ModelFile("one", "one.bin", "vae", ("s",), "https://p.invalid", "a/b/one.bin", about=3_000_000),)
runpy.run_module("talking_portrait", run_name="__main__", alter_sys=True)
"""
PREPARE = ("prepare", "in/one.mp4", "in/two.mp4", "--out", "out", "--fps", "25", "--size", "128", "--shortest", "0.2")
TRAIN = (
    *("train", "audio2mesh", "--data", "in/data", "--out", "out", "--speech-encoder", "in/encoder.safetensors"),
    *("--frames", "20", "--steps", str(STEPS), "--save-every", "1", "--batch", "1", "--workers", "0"),
    *("--precision", "fp32"),
)
ANIMATE = ("animate", "--size", "64", "--audio", "in/voice.wav", "--out", "out/o.mp4", "--save-motion", "out/o.npz")
PREPARE_PERSON = ("person", "prepare", "in/speaking.mp4", "--out", "out", "--size", "128")
TRAIN_PERSON = (
    *("train", "audiodvp", "--person", "in/person", "--out", "out", "--steps", str(STEPS), "--batch", "2"),
    *("--expression-steps", str(STEPS), "--save-every", "1", "--picture-every", "0", "--size", "small"),
)
DRIVE = ("person", "drive", "in/model.safetensors", "--person", "in/person", "--audio", "in/voice.wav")
COMMANDS = {
    command.name: command
    for command in (
        Command("animate", ANIMATE, animated),
        Command("motion", ("motion", "--audio", "in/voice.wav", "--out", "out/o.npz"), moved),
        Command("run", ("run", "in/flow.json", "--input", "in", "--out", "out"), saved),
        Command("prepare", PREPARE, prepared, kept=(".manifest.lock",)),
        Command("train", TRAIN, trained, again=("--resume",)),
        Command("person", PREPARE_PERSON, person_prepared, kept=(".person.lock",)),
        Command("audiodvp", TRAIN_PERSON, person_trained, again=("--resume",), run="renderer"),
        Command("drive", (*DRIVE, "--out", "out/o.mp4"), driven),
        Command("models", ("models", "get", "one", "--models", "out"), fetched, kept=(".one.bin.part",)),
    )
}


def make_inputs(folder: Path) -> Path:
    """All that the commands read, small."""
    folder.mkdir()
    voice = Audio(example_speech().waveform[:, : 640 * FRAMES], 16000)
    write_wav(folder / "voice.wav", voice)
    picture = Image.fromarray((example_portrait()[0] * 255).byte().numpy()).resize((192, 192))
    frame = torch.from_numpy(np.array(picture)).float() / 255
    write_image(folder / "face.png", frame)
    for name, brightness in (("one", 1.0), ("two", 0.9)):
        frames = (frame[None] * brightness).expand(FRAMES, -1, -1, -1)
        write_stream(folder / f"{name}.mp4", [frames], bench.Fraction(25), voice)
    make_person(folder / "person", seconds=1)
    toy_model(folder / "person").save(folder / "model.safetensors")
    make_speaking(folder / "speaking.mp4")
    (folder / "flow.json").write_text(json.dumps(FLOW))
    bench.make_clip(folder / "data", "a", frames=30, size=64)
    torch.manual_seed(0)
    save_file(bench.speech_encoder().state_dict(), folder / "encoder.safetensors")
    return folder


def make_speaking(path: Path) -> None:
    """A face that speaks for so long as a person needs."""
    fps, speech = bench.Fraction(10), Audio(example_speech().waveform[:, : 16000 * 22 // 10], 16000)
    portrait, track = fit_portrait(*example_portrait(), 192)
    write_stream(path, frames_of(portrait, track, drive(speech, fps=fps)), fps, speech)


class _Host(BaseHTTPRequestHandler):
    """Sends the model file in pieces, so that a download takes some time, and from any byte on."""

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(MODEL) - 1}/{len(MODEL)}")
        self.send_header("Content-Length", str(len(MODEL) - start))
        self.send_header("ETag", '"one"')
        self.end_headers()
        try:
            for place in range(start, len(MODEL), 300_000):
                self.wfile.write(MODEL[place : place + 300_000])
                time.sleep(0.05)
        except OSError:
            self.close_connection = True  # the command has been ended


@contextmanager
def host() -> Iterator[str]:
    """The address of a host of model files."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Host)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


# --- one moment ---


@dataclass(frozen=True)
class Course:
    """How long a run takes: `begin` until something is in one of its folders, `rest` until it says what it has done."""

    begin: float
    rest: float


class Trial:
    """A fresh folder in which a command runs, is ended and runs again."""

    def __init__(self, command: Command, inputs: Path, folder: Path, address: str) -> None:
        self.command, self.folder, self.address = command, folder, address
        shutil.copytree(inputs, folder / "in")
        self.out, self.temporary = folder / "out", folder / "tmp"
        self.out.mkdir()
        self.temporary.mkdir()
        self.before = hashes(folder / "in")

    def start(self, *more: str) -> subprocess.Popen[str]:
        entry = ["-c", FETCH] if self.command.name == "models" else ["-m", "talking_portrait"]
        places = {"TMPDIR": str(self.temporary), "HF_ENDPOINT": self.address}
        return subprocess.Popen(
            [sys.executable, *entry, *self.command.arguments, *more],
            cwd=self.folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", **places},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )

    def begun(self) -> bool:
        return any(os.listdir(self.out)) or any(os.listdir(self.temporary))

    def wait_for_begin(self, process: subprocess.Popen[str]) -> None:
        while process.poll() is None and not self.begun():
            time.sleep(0.002)

    def course(self) -> Course:
        """Of a run that nobody ends."""
        start = time.monotonic()
        process = self.start()
        self.wait_for_begin(process)
        begin = last = time.monotonic()
        assert process.stdout is not None
        for _ in process.stdout:
            last = time.monotonic()
        _, told = process.communicate(timeout=LONGEST)
        assert process.returncode == 0, told
        return Course(begin - start, last - begin)

    def ended(self, number: int, moment: float, course: Course) -> tuple[int, str]:
        """Exit code and error output of a run that gets a signal at `moment`, of 0 to 1."""
        process = self.start()
        if moment < STARTING and self.command.name != "models":  # the program around that one sets no handlers
            time.sleep(moment / STARTING * course.begin)
        else:
            self.wait_for_begin(process)
            time.sleep(max(moment - STARTING, 0) / (1 - STARTING) * course.rest)
        process.send_signal(number)
        _, told = process.communicate(timeout=LONGEST)
        return process.returncode, told

    def problems_of_end(self, number: int, code: int, told: str) -> Iterator[str]:
        """What is wrong after the first run."""
        if number == getattr(signal, "SIGKILL", None):
            if code not in (0, -number):
                yield f"it ended with {code}: {told[-200:]}"
        else:
            # Python ends by SIGINT itself, which shells report as 130 too, where one has come amid its generated code.
            asked = code == 130 or (code == -signal.SIGINT and told.endswith("interrupted\n"))
            python_starts = not self.begun() and code == -number and "talking_portrait" not in told
            if asked and (not told.endswith("interrupted\n") or "Traceback" in told):
                yield f"it said {told[-300:]!r}"
            elif code and not asked and not python_starts:
                yield f"it ended with {code}: {told[-300:]!r}"
            yield from self.left_over(kept=self.command.kept)
        yield from self.half_results()

    def half_results(self) -> Iterator[str]:
        """What has a name has to be whole, whoever ended the run."""
        for path in self.out.rglob("*"):
            hidden = any(part.startswith(".") for part in path.relative_to(self.out).parts)
            if hidden or not path.is_file():
                continue
            try:
                if path.name == "source.mp4":
                    if path.read_bytes() != (self.folder / "in" / "speaking.mp4").read_bytes():
                        yield f"{path.name} is not whole"
                elif path.suffix == ".mp4":
                    yield from is_video(path)
                elif path.name in ("speech.npz", "track.npz"):
                    dict(np.load(path))
                elif path.suffix == ".npz":
                    load_motion(path)
                elif path.suffix in (".png", ".jpg"):
                    Image.open(path).load()
                elif path.suffix == ".wav":
                    read_audio(path)
                elif path.suffix == ".safetensors":
                    load_file(path)
                elif path.suffix == ".json":
                    json.loads(path.read_text())
                elif path.suffix == ".npy":
                    np.load(path)
                elif path.suffix == ".bin" and path.read_bytes() != MODEL:
                    yield f"{path.name} is not whole"
            except Exception as error:
                yield f"{path.name} is not whole: {type(error).__name__} {error}"

    def left_over(self, kept: tuple[str, ...] = ()) -> Iterator[str]:
        for path in (*self.out.rglob(".*"), *self.temporary.rglob("*")):
            if not path.name.startswith(kept or ("\0",)):
                yield f"{path.relative_to(self.folder)} is left"

    def problems_of_next(self) -> Iterator[str]:
        """Runs the command again, and returns what is wrong then."""
        run = self.out / self.command.run
        checkpoint = max((path.name for path in run.glob("checkpoints/step-*")), default="step-0.")
        done = int(checkpoint[5:].split(".")[0])
        log = run / "log.jsonl"
        lines = log.read_text().splitlines()[:done] if done else []
        process = self.start(*self.command.again)
        _, told = process.communicate(timeout=LONGEST)
        if process.returncode:
            yield f"the next run ended with {process.returncode}: {told[-300:]}"
            return
        if lines and log.read_text().splitlines()[:done] != lines:
            yield "training did not go on from its last checkpoint"
        try:
            yield from self.command.whole(self.out)
        except Exception as error:
            yield f"{type(error).__name__}: {error}"
        locks = tuple(name for name in self.command.kept if name.endswith(".lock"))
        yield from self.left_over(kept=locks)
        if hashes(self.folder / "in") != self.before:
            yield "an input has changed"


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def courses(inputs: Path, folder: Path, address: str, names: list[str]) -> dict[str, Course]:
    """How long each command takes here."""
    return {name: Trial(COMMANDS[name], inputs, new(folder, name), address).course() for name in names}


def new(folder: Path, name: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder))


def attempt(
    command: Command, inputs: Path, folder: Path, address: str, course: Course, number: int, moment: float
) -> tuple[str, list[str]]:
    """How a run ended that got a signal at a moment, and all that is wrong after it and after the next one."""
    trial = Trial(command, inputs, folder, address)
    code, told = trial.ended(number, moment, course)
    begun = "writing" if trial.begun() else "starting"
    problems = [*trial.problems_of_end(number, code, told), *trial.problems_of_next()]
    return f"{command.name} {signal.Signals(number).name} while {begun}: exit {code}", problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help=", ".join(COMMANDS))
    parser.add_argument("--times", type=int, default=100, help="moments for each command")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    names = options.commands or list(COMMANDS)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let what runs in the background ignore it
    rng = random.Random(options.seed)
    counts: Counter[str] = Counter()
    failed = 0
    with tempfile.TemporaryDirectory() as temporary, host() as address:
        folder = Path(temporary)
        inputs = make_inputs(folder / "in")
        known = courses(inputs, folder, address, names)
        for turn in range(options.times):
            for name in names:
                number, moment = SIGNALS[turn % len(SIGNALS)], rng.random()
                place = new(folder, name)
                ended, problems = attempt(COMMANDS[name], inputs, place, address, known[name], number, moment)
                counts[ended] += 1
                failed += bool(problems)
                for problem in problems:
                    print(f"{ended}, moment {moment:.3f}: {problem}", flush=True)
                shutil.rmtree(place, ignore_errors=True)
    for ended, count in sorted(counts.items()):
        print(f"{count:4} x {ended}")
    print(f"{sum(counts.values())} moments, {failed} with something wrong")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
