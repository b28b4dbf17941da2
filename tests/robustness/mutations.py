"""Reads thousands of damaged files, each made from a small whole one by a seed:

    python -m tests.robustness.mutations READER COUNT SEED

READER is one of `READERS`, or several with commas between them. A reader returns a result or raises a
TalkingPortraitError of one line; anything else, a file that it writes, a program that it starts and a connection are
printed and make the exit status 1. The last line of each has the number of results and refusals, the longest time that
one file took and how much memory was needed beyond that of the whole files.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from talking_portrait.models.checkpoints import read_checkpoint
from talking_portrait.models.face.face_mesh import BLENDSHAPES, face_mesh
from talking_portrait.models.speech.mouth_network import MouthConfig, MouthNetwork, save_mouth_network
from talking_portrait.nodes.standalone.command import registry
from talking_portrait.pipelines.audio.mouth_weights import open_mouth
from talking_portrait.pipelines.audiodvp.animate import open_model
from talking_portrait.pipelines.batch.manifest import read_manifest
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.files.ffmpeg import executable
from talking_portrait.pipelines.files.frame_stream import write_stream
from talking_portrait.pipelines.files.images import read_image, write_image
from talking_portrait.pipelines.files.motion_file import load_motion, save_motion
from talking_portrait.pipelines.files.sound import open_sound, write_wav
from talking_portrait.pipelines.files.video import open_video
from talking_portrait.pipelines.provenance.metadata import read_statement
from talking_portrait.pipelines.types import Audio, FaceMotion
from talking_portrait.pipelines.workflow.check import GraphRefusedError, check_graph, describe
from talking_portrait.pipelines.workflow.formats import class_names, load_workflow, to_prompt

from ..toy_person import make_person, toy_model

LONGEST_SENTENCE = 2000
_LENGTHS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**40, 2**63 - 1, 2**64 - 1)
_WORDS = (b"null", b"-1", b"1e999", b"9" * 400, b"[]", b"{}", b'""', b"NaN", b"true", b'"\\ud800"', b"\xff")


def mutated(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """One to four kinds of damage: bytes, lengths and words replaced, blocks doubled, moved, removed, put in."""
    result = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if not result:
            break
        place = rng.randrange(len(result))
        size = min(rng.choice((1, 2, 4, 8, 16, 100, 1000)), len(result) - place)
        block = bytes(result[place : place + size])
        kind = rng.randrange(8)
        if kind == 0:
            del result[place:]
        elif kind == 1:
            result[place] = rng.randrange(256)
        elif kind == 2:
            result[place] ^= 1 << rng.randrange(8)
        elif kind == 3:
            result[place:place] = block * rng.choice((1, 2, 50))
        elif kind == 4:
            del result[place : place + size]
        elif kind == 5:
            start = rng.randrange(len(other))
            result[place : place + size] = other[start : start + size]
        elif kind == 6:
            width, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
            number = rng.choice(_LENGTHS) % 256**width
            result[place : place + width] = number.to_bytes(width, order)  # type: ignore[arg-type]
        else:
            result[place : place + size] = rng.choice(_WORDS)
    return bytes(result)


# --- whole files, and what reads them ---


def checkpoints(folder: Path) -> dict[str, bytes]:
    value = {"state_dict": {"module.w": torch.ones(3, 2), "module.b": torch.ones(2).half()}, "optimizer": [{}], "n": 1}
    torch.save(value, folder / "zip.ckpt")
    torch.save(value, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    tensors = {"w": torch.ones(4, 4), "b": torch.arange(6).reshape(2, 3).to(torch.int64)}
    return {
        "zip.ckpt": (folder / "zip.ckpt").read_bytes(),
        "legacy.pth": (folder / "legacy.pth").read_bytes(),
        "plain.bin": pickle.dumps(value, 4),
        "old.pt": pickle.dumps(value, 2),
        "a.safetensors": save(tensors, {"format": "pt"}),
    }


def read_weights(path: Path) -> None:
    for mapped in (False, True):
        for tensor in read_checkpoint(path, mapped=mapped).values():
            assert isinstance(tensor, torch.Tensor)


def workflows(folder: Path) -> dict[str, bytes]:
    prompt = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}, "_meta": {"title": "A"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    slot = {"name": "images", "type": "IMAGE", "link": 5}
    inner = [
        {"id": 1, "type": "LoadImage", "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [1]}],
         "widgets_values": ["a.png", "image"], "mode": 0},
        {"id": 2, "type": "Reroute", "inputs": [{"name": "", "type": "*", "link": 1}],
         "outputs": [{"name": "", "type": "*", "links": [2]}]},
    ]  # fmt: skip
    graph = {
        "id": "graph",
        "nodes": inner,
        "links": [
            {"id": 1, "origin_id": 1, "origin_slot": 0, "target_id": 2, "target_slot": 0, "type": "IMAGE"},
            {"id": 2, "origin_id": 2, "origin_slot": 0, "target_id": -20, "target_slot": 0, "type": "IMAGE"},
        ],
        "inputs": [],
        "outputs": [{"name": "images", "type": "IMAGE", "linkIds": [2]}],
    }
    flow = {
        "nodes": [
            {"id": 7, "type": "graph", "outputs": [{"name": "images", "type": "IMAGE", "links": [5]}], "order": 0},
            {"id": 8, "type": "SaveImage", "inputs": [slot], "widgets_values": ["x"], "mode": 0, "order": 1},
            {"id": 9, "type": "Note", "widgets_values": ["text"], "mode": 2},
            {"id": 10, "type": "PrimitiveNode", "widgets_values": [5, "fixed"], "outputs": []},
        ],
        "links": [[5, 7, 0, 8, 0, "IMAGE"]],
        "groups": [],
        "definitions": {"subgraphs": [graph]},
        "version": 0.4,
    }
    return {"api.json": json.dumps(prompt).encode(), "ui.json": json.dumps(flow, indent=1).encode()}


def read_workflow(path: Path) -> None:
    workflow = load_workflow(path)
    nodes = registry()
    prompt = to_prompt(workflow, describe(nodes, class_names(workflow)))
    with suppress(GraphRefusedError):  # it lists what is wrong
        check_graph(prompt, nodes)


def motions(folder: Path) -> dict[str, bytes]:
    neutral = face_mesh().vertices.astype(np.float32)
    still = np.zeros((3, 3), np.float32)
    scores = np.zeros((3, len(BLENDSHAPES)), np.float32)
    motion = FaceMotion(np.repeat(neutral[None], 3, axis=0), neutral, still, still, Fraction(25), scores)
    save_motion(folder / "a.npz", motion)
    with np.load(folder / "a.npz") as stored:
        np.savez_compressed(folder / "b.npz", **{name: stored[name] for name in stored.files})
    return {name: (folder / name).read_bytes() for name in ("a.npz", "b.npz")}


def read_motion(path: Path) -> None:
    motion = load_motion(path)
    assert np.isfinite(motion.vertices).all()


def media(folder: Path) -> dict[str, bytes]:
    picture = torch.rand(24, 32, 3, generator=torch.Generator().manual_seed(0))
    sound = Audio(torch.rand(1, 8000, generator=torch.Generator().manual_seed(0)) * 0.1, 16000)
    write_wav(folder / "a.wav", sound)
    write_stream(folder / "a.mp4", [picture[None].expand(8, -1, -1, -1)], Fraction(25), sound)
    for name in ("a.png", "a.jpg", "a.gif", "a.webp", "a.tiff"):
        write_image(folder / name, picture)
    for ending in ("flac", "mp3", "ogg", "m4a", "mkv", "avi", "aiff", "w64", "voc", "caf"):
        command = [executable(), "-loglevel", "error", "-i", folder / "a.wav", folder / f"s.{ending}"]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def read_media(path: Path) -> None:
    if path.suffix in (".png", ".jpg", ".gif", ".webp", ".tiff"):
        assert read_image(path).shape[2] == 3
        return
    if path.suffix in (".mp4", ".avi", ".mkv"):
        with suppress(TalkingPortraitError):  # one may be there without the other
            for _ in open_video(path).frames():
                pass
    for block in open_sound(path).blocks():
        assert np.isfinite(block).all() or path.suffix in (".wav", ".w64", ".caf")  # floats, which are checked later


def weights_of_a_driver(folder: Path) -> dict[str, bytes]:
    network = MouthNetwork(MouthConfig(channels=8, dilations=(1, 2)))
    save_mouth_network(network, folder / "own.safetensors", {"data": "none"})
    return {"own.safetensors": (folder / "own.safetensors").read_bytes()}


def read_driver(path: Path) -> None:
    assert all(torch.isfinite(tensor).all() for tensor in open_mouth(path).state_dict().values())


def persons(folder: Path) -> dict[str, bytes]:
    toy_model(make_person(folder / "toy")).save(folder / "person.safetensors")
    return {"person.safetensors": (folder / "person.safetensors").read_bytes()}


def read_person(path: Path) -> None:
    open_model(path)


def statements(folder: Path) -> dict[str, bytes]:
    picture = torch.rand(1, 24, 32, 3, generator=torch.Generator().manual_seed(0))
    for name in ("a.mp4", "a.mov", "a.mkv"):
        write_stream(folder / name, [picture], Fraction(25))
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def manifests(folder: Path) -> dict[str, bytes]:
    row = {"portrait": "a.jsonl", "audio": "a.jsonl", "renderer": "anitalker", "name": "b" * 90}
    rows = [row, {**row, "settings": {"steps": 3}}]
    return {"a.jsonl": "\n".join(map(json.dumps, rows)).encode()}


def read_rows(path: Path) -> None:
    for job in read_manifest(path, path.parent / "out"):
        assert job.target.parent == path.parent / "out"


READERS: dict[str, tuple[Callable[[Path], dict[str, bytes]], Callable[[Path], None]]] = {
    "checkpoint": (checkpoints, read_weights),
    "workflow": (workflows, read_workflow),
    "motion": (motions, read_motion),
    "media": (media, read_media),
    "driver": (weights_of_a_driver, read_driver),
    "person": (persons, read_person),
    "statement": (statements, lambda path: read_statement(path) and None),
    "manifest": (manifests, read_rows),
}


class Watch:
    """What Python does to the world outside while `at_work`: files opened for writing, programs, connections."""

    FORBIDDEN = {"subprocess.Popen", "os.system", "os.exec", "os.remove", "os.rename", "os.mkdir", "os.rmdir",
                 "socket.connect", "socket.bind", "shutil.rmtree", "os.symlink", "os.link"}  # fmt: skip
    WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

    def __init__(self) -> None:
        self.at_work = False
        self.found: list[str] = []
        sys.addaudithook(self._event)

    def _event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.at_work:
            return
        writes = event == "open" and isinstance(arguments[2], int) and bool(arguments[2] & self.WRITING)
        if (writes and "__pycache__" not in str(arguments[0])) or event in self.FORBIDDEN:
            self.found.append(f"{event} of {arguments[0]!r}")


def peak_megabytes() -> float:
    """The most memory that this process has had, 0 where that is not known."""
    try:
        import resource
    except ImportError:  # on Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def fault_of(read: Callable[[Path], None], path: Path, watch: Watch) -> tuple[str, bool]:
    """What is wrong with how a file is read, "" for nothing; whether it was refused."""
    watch.at_work, watch.found = True, []
    try:
        read(path)
        return "; ".join(watch.found), False
    except TalkingPortraitError as error:
        text = str(error)
        if watch.found:
            return "; ".join(watch.found), True
        return ("" if len(text) < LONGEST_SENTENCE and "\n" not in text else f"no sentence: {text[:300]!r}"), True
    except Exception:
        return traceback.format_exc(), True
    finally:
        watch.at_work = False


def main(reader: str, count: int, seed: int, watch: Watch) -> int:
    logging.disable()
    make, read = READERS[reader]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "whole").mkdir()
        (folder / "damaged").mkdir()
        whole = make(folder / "whole")
        for name, content in whole.items():
            (folder / "damaged" / name).write_bytes(content)
            fault, refused = fault_of(read, folder / "damaged" / name, watch)
            assert not fault, fault
            assert not refused, f"{name} is refused"
        before = peak_megabytes()
        names, refusals, faults, longest = list(whole), 0, 0, (0.0, "")
        for number in range(count):
            rng = random.Random(f"{seed} {number}")
            name = names[number % len(names)]
            path = folder / "damaged" / name
            path.write_bytes(mutated(whole[name], whole[rng.choice(names)], rng))
            start = time.monotonic()
            fault, refused = fault_of(read, path, watch)
            longest = max(longest, (time.monotonic() - start, f"{name} of {number}"))
            refusals += refused
            if fault:
                faults += 1
                print(f"{name}, number {number} of seed {seed}: {fault}", flush=True)
    figures: dict[str, Any] = {
        "read": count - refusals,
        "refused": refusals - faults,
        "faults": faults,
        "seconds": round(longest[0], 3),
        "longest": longest[1],
        "megabytes": round(peak_megabytes() - before),
    }
    print(json.dumps(figures))
    return int(faults > 0)


if __name__ == "__main__":
    looking = Watch()
    sys.exit(max([main(name, int(sys.argv[2]), int(sys.argv[3]), looking) for name in sys.argv[1].split(",")]))
