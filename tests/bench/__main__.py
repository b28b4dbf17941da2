"""How fast the pack is on this machine: python -m tests.bench [NAME ...]. Prints a table; asserts nothing.

Every figure is the median of several runs in one process, after one run to warm up, unless its line says otherwise.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import torch

from .aniportrait import measured

RUNS = 3


def median_seconds(work: Callable[[], object]) -> float:
    work()
    return statistics.median(measured(torch.device("cpu"), work, elapsed=True)[0] for _ in range(RUNS))


def bench_import() -> Iterator[str]:
    code = (
        "import torch, numpy, time; t = time.perf_counter(); import asyncio, talking_portrait as p\n"
        "asyncio.run(asyncio.run(p.comfy_entrypoint()).get_node_list()); print(time.perf_counter() - t)"
    )
    seconds = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(RUNS)]
    yield f"import of the pack and its node list, torch loaded: {statistics.median(seconds) * 1000:.0f} ms"


def bench_driver() -> Iterator[str]:
    from talking_portrait.pipelines.files.example import example_speech
    from talking_portrait.pipelines.instant.driver.driver import drive

    audio = example_speech()
    for threads in (1, os.cpu_count() or 1):
        torch.set_num_threads(threads)
        seconds = median_seconds(lambda: drive(audio, fps=Fraction(25), seed=0))
        yield f"Instant driver, {threads} thread(s): {float(audio.seconds) / seconds:.0f} x real time"


def bench_renderer() -> Iterator[str]:
    from talking_portrait.pipelines.files.example import example_portrait, example_speech
    from talking_portrait.pipelines.instant.driver.driver import drive
    from talking_portrait.pipelines.instant.renderer.renderer import InstantRenderer

    image, track = example_portrait()
    motion = drive(example_speech(), fps=Fraction(25), seed=0)
    for threads in (1, os.cpu_count() or 1):
        torch.set_num_threads(threads)
        start = time.perf_counter()
        renderer = InstantRenderer(image, track)
        ready = time.perf_counter() - start
        seconds = median_seconds(lambda: [None for _ in renderer.frames_uint8(motion)])  # noqa: B023
        yield (
            f"Instant renderer, 512 x 512, {threads} thread(s): {motion.frames / seconds:.1f} frames a second, "
            f"ready in {ready * 1000:.0f} ms"
        )


def bench_animate() -> Iterator[str]:
    from talking_portrait.pipelines.files.example import example_portrait, example_speech
    from talking_portrait.pipelines.files.frame_stream import write_stream
    from talking_portrait.pipelines.instant.animate import frames_of
    from talking_portrait.pipelines.instant.driver.driver import drive

    torch.set_num_threads(os.cpu_count() or 1)
    image, track = example_portrait()
    audio = example_speech()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "bench.mp4")

        def whole() -> int:
            motion = drive(audio, fps=Fraction(25), seed=0)
            return write_stream(path, frames_of(image, track, motion), motion.fps, audio)

        seconds = median_seconds(whole)
        yield f"animate: speech to finished video, 512 x 512, 25 fps: {whole() / seconds:.1f} frames a second"


def bench_memory() -> Iterator[str]:
    code = """
import resource, sys, tempfile, pathlib, numpy as np
from dataclasses import replace
from fractions import Fraction
from talking_portrait.pipelines.files.frame_stream import write_stream
from talking_portrait.pipelines.instant.animate import frames_of
from talking_portrait.pipelines.instant.driver.driver import drive
from talking_portrait.pipelines.files.example import example_portrait, example_speech
image, track = example_portrait()
motion = drive(example_speech(), fps=Fraction(25), seed=0)
rows = np.arange(int(sys.argv[1]) * 25) % motion.frames
motion = replace(motion, **{name: values[rows] for name, values in motion.rows.items()})
with tempfile.TemporaryDirectory() as folder:
    write_stream(pathlib.Path(folder, "m.mp4"), frames_of(image, track, motion), motion.fps)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
    for seconds in (5, 50):
        peak = float(subprocess.check_output([sys.executable, "-c", code, str(seconds)]))
        yield f"peak memory of rendering {seconds} s to a file: {peak:.0f} MB (one run)"


BENCHES = {
    name.removeprefix("bench_"): function for name, function in list(globals().items()) if name.startswith("bench_")
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHES, []], help="which to run (default: all)")
    for name in parser.parse_args().names or BENCHES:
        for line in BENCHES[name]():
            print(line, flush=True)


if __name__ == "__main__":
    main()
