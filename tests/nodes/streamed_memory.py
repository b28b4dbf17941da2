"""How much memory a renderer takes of which the video alone is saved. Linux only.

    python -m tests.nodes.streamed_memory RENDERER SECONDS FOLDER [SIDE]

FOLDER holds `models`, of tiny weights. Prints in MB what is held when the renderer begins, with its inputs and what the
nodes before it left behind, and the peak until it has ended.
"""

from __future__ import annotations

import gc
import os
import sys
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from talking_portrait.nodes.standalone import command
from talking_portrait.nodes.standalone import node_api as standalone
from talking_portrait.pipelines.files.frame_stream import write_stream
from talking_portrait.pipelines.workflow.run import run_graph

from ..robustness.inputs import FPS, face
from .test_streamed_video import DUBBED, graph


def peak() -> int:
    """The most that this process has held since `forget_peak`, in MB."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1000


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def write_noise(path: Path, seconds: int) -> None:
    """Second by second, as what is measured is not to be this program's own."""
    generator = np.random.default_rng(0)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        for _ in range(seconds):
            file.writeframes((3000 * generator.standard_normal(16000)).astype("<i2").tobytes())


def peaks(renderer: str, seconds: int, folder: Path, side: int = 64) -> tuple[int, int]:
    """When the renderer begins, and at most while it runs."""
    place = folder / f"{renderer} {seconds}"
    place.mkdir()
    os.environ["TALKING_PORTRAIT_MODELS"] = str(folder / "models")
    write_noise(place / "voice.wav", seconds)
    if renderer in DUBBED:
        write_stream(place / "film.mp4", (face()[None] for _ in range(round(seconds * FPS))), FPS)
    sizes = {"width": side, "height": side} if renderer.endswith("Sampler") else {}
    found: dict[str, int] = {}

    @contextmanager
    def around(node: str, title: str) -> Iterator[None]:
        if node == "render":
            gc.collect()
            forget_peak()
            found["begins"] = peak()
        yield
        found[node] = peak()

    with standalone.use_session(standalone.Session(input_folder=place, output_folder=place / "out")):
        run_graph(graph(renderer, "video", **sizes), command.registry(), around=around)
    return found["begins"], found["render"]


if __name__ == "__main__":
    print(*peaks(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), *map(int, sys.argv[4:])))
