"""Every system's speed on a graphics card, in one command and from a plain checkout.

    python -m tests.bench.gpu --out DIR [--minutes 8] [--only ROW ...]
    python -m tests.bench.gpu --out DIR --tiny             # tiny networks on a CPU: whether it runs, not how fast

It needs torch, numpy, safetensors, einops and transformers, nothing installed of this pack, and no network; Instant's
row needs scipy too and is left out without it. Weights are random and of the published shapes. The VAE is the host's
and is left out, as CLIP is. A row's first run warms up, and its floating-point operations and the bytes that its
operations read and write are counted; the median of later runs is its speed. Rows come most wanted first; gpu.json and
gpu.md are written after each, so that what is measured when time is up stays.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ROOT = Path(__file__).resolve().parents[2]


def _make_importable() -> None:
    """The pack under its name, where it is not installed."""
    if importlib.util.find_spec("talking_portrait") is None:
        spec = importlib.util.spec_from_file_location(
            "talking_portrait", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
        )
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules["talking_portrait"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)


_make_importable()

from .aniportrait import counted, measured, peak_memory  # noqa: E402
from .gpu_numbers import PRECISIONS, numbers  # noqa: E402
from .gpu_rows import work  # noqa: E402

MATMUL_SIDE = 8192
COPY_BYTES = 4 * 2**30
RUNS = 3


@dataclass
class Row:
    """One measurement: frames a second, arithmetic, memory.

    `tb` is how many 1e12 bytes the operations read and wrote, each for itself; caches make the card move fewer.
    """

    name: str
    what: str
    precision: str = "float16"
    frames: int = 0
    seconds: float = 0.0
    tflop: float = 0.0
    tb: float = 0.0
    peak_gb: float = 0.0
    matmul_share: float = 0.0
    copy_share: float = 0.0
    note: str = ""

    @property
    def rate(self) -> float:
        return self.frames / self.seconds if self.seconds else 0.0


class MovedBytes(TorchDispatchMode):
    """Adds up what each operation reads and writes; views move nothing."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = (leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor))
            self.total += sum(min(tensor.nbytes, tensor.untyped_storage().nbytes()) for tensor in tensors)
        return result


class TimeIsUpError(Exception):
    """The minutes are over before a row was measured."""


class Bench:
    """What the rows share: device, sizes, ceilings, the end of the time."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.tiny, self.out = options.tiny, options.out
        self.device = torch.device("cpu" if self.tiny else "cuda")
        self.dtype = torch.float32 if self.tiny else torch.float16
        self.end = time.monotonic() + 60 * options.minutes
        self.matmul_tflops, self.copy_tb = 0.0, 0.0
        self.rows: list[Row] = []
        self.errors: dict[str, dict[str, float]] = {}

    def measure(self, row: Row, run: Callable[[], Any], runs: int = RUNS, *, count: bool = True) -> None:
        """Fills the row: one run to warm up, one to count if wanted, then the median of up to `runs`."""
        self.check_time()
        first, _ = measured(self.device, run)
        if count:
            self._count(row, run)
        else:
            row.note = f"first run {first:.0f} s"
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds: list[float] = []
        while len(seconds) < runs and (not seconds or time.monotonic() + seconds[-1] < self.end):
            self.check_time()
            seconds.append(measured(self.device, run)[0])
            row.seconds, row.peak_gb = statistics.median(seconds), peak_memory(self.device)
        if self.matmul_tflops:
            row.matmul_share = row.tflop / row.seconds / self.matmul_tflops
        if self.copy_tb:
            row.copy_share = row.tb / row.seconds / self.copy_tb

    def _count(self, row: Row, run: Callable[[], Any]) -> None:
        moved = MovedBytes()

        def watched() -> None:
            with moved:
                run()

        try:
            row.tflop = counted(watched)
            row.tb = moved.total / 1e12
        except Exception as error:  # a speed without its arithmetic is better than none
            row.note = f"not counted: {type(error).__name__}: {str(error)[:100]}"

    def check_time(self) -> None:
        if time.monotonic() > self.end:
            raise TimeIsUpError

    def write(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        name = "CPU" if self.device.type == "cpu" else torch.cuda.get_device_name()
        found = {
            "device": name,
            "torch": torch.__version__,
            "matmul_tflops": self.matmul_tflops,
            "copy_tb_a_second": self.copy_tb,
            "rows": [asdict(row) | {"frames_a_second": row.rate} for row in self.rows],
            "relative_errors_against_the_cpu": self.errors,
        }
        (self.out / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")
        lines = [
            f"{name}, torch {torch.__version__}: {self.matmul_tflops:.0f} TFLOP/s in a bfloat16 matrix product, "
            f"{self.copy_tb:.2f} TB/s in a copy",
            "",
            "| row | precision | frames a second | TFLOP a frame | of the product | of the copy | peak GB | note |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row in self.rows:
            counts = f"{row.tflop / max(row.frames, 1):.2f} | {row.matmul_share:.0%} | {row.copy_share:.0%}"
            figures = f"{row.rate:.2f} | {counts if row.tflop else ' | | '} | {row.peak_gb:.1f}"
            lines.append(f"| {row.what} | {row.precision} | {figures if row.seconds else ' | | | | '} | {row.note} |")
        if self.errors:
            lines += ["", "| against the CPU, relative | " + " | ".join(PRECISIONS) + " |", "|---|---|---|---|"]
            lines += [
                f"| {name} | "
                + " | ".join(f"{errors.get(precision, float('nan')):.1e}" for precision in PRECISIONS)
                + " |"
                for name, errors in self.errors.items()
            ]
        (self.out / "gpu.md").write_text("\n".join(lines) + "\n")


def ceilings(bench: Bench) -> None:
    """What the card reaches in a matrix product and in a copy, to measure the rows by."""
    side, size = (256, 2**20) if bench.tiny else (MATMUL_SIDE, COPY_BYTES)
    a, b = (torch.randn(side, side, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    bench.matmul_tflops = 2 * side**3 / _seconds(bench, lambda: a @ b) / 1e12
    source = torch.randint(0, 255, (size,), device=bench.device, dtype=torch.uint8)
    target = torch.empty_like(source)
    bench.copy_tb = 2 * size / _seconds(bench, lambda: target.copy_(source)) / 1e12


def _seconds(bench: Bench, work: Callable[[], Any]) -> float:
    """Of one of ten runs, after three to warm up."""
    for _ in range(3):
        work()
    return measured(bench.device, lambda: [work() for _ in range(10)])[0] / 10


def fill_row(bench: Bench, row: Row, measurement: Callable[[Row], None]) -> None:
    """Measures; a row that fails says why and costs no other."""
    try:
        bench.check_time()
        measurement(row)
    except TimeIsUpError:
        row.note = "left out: the time was up"
    except Exception as error:
        traceback.print_exc()
        row.note = f"failed: {type(error).__name__}: {str(error)[:200]}"
    if bench.device.type == "cuda":
        torch.cuda.empty_cache()  # the next row's peak is its own


def _attempt(part: Callable[[], None]) -> None:
    try:
        part()
    except Exception:
        traceback.print_exc()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.json and gpu.md")
    parser.add_argument("--minutes", type=float, default=8.0, help="no run is begun after them")
    parser.add_argument("--only", nargs="*", help="names of rows")
    parser.add_argument("--tiny", action="store_true", help="tiny networks on a CPU")
    options = parser.parse_args(arguments)
    bench = Bench(options)
    with torch.no_grad():
        _attempt(lambda: ceilings(bench))
        for name, what, measurement in work(bench):
            if options.only and name not in options.only:
                continue
            row = Row(name, what, str(bench.dtype).removeprefix("torch."))
            bench.rows.append(row)
            fill_row(bench, row, measurement)
            print(f"{row.what}: {row.rate:.2f} frames a second {row.note}", flush=True)
            bench.write()
        _attempt(lambda: numbers(bench))
        bench.write()
    print((bench.out / "gpu.md").read_text())


if __name__ == "__main__":
    main()
