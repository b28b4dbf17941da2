"""The suite as other machines would run it, one configuration after the other: `make test-anywhere`.

Results differ in their last bits between processors, numbers of threads and libraries, and a busy machine is slow; no
test may notice. Arguments, if there are any, go to pytest in place of the whole suite and the goldens.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

SUITE = ["-n", "auto", "--maxprocesses=4", "--dist=loadfile"]
GOLDENS = ["tests/parity", "-m", "parity", "--only-runnable"]
LOAD = """
import os, time
end = time.monotonic() + 6 * 3600  # in any case
while os.getppid() == {parent} and time.monotonic() < end:
    pass
"""


CHOICES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_DYNAMIC")
"""Settings of the surroundings that a configuration leaves out unless it names them."""


@dataclass(frozen=True)
class Configuration:
    name: str
    environment: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    busy: bool = False


CONFIGURATIONS = (
    Configuration(
        "no vector instructions, one thread", {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}
    ),
    Configuration("AVX2, one thread", {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}),
    Configuration("its own instructions, one thread"),
    # MKL, left to itself, would take no more threads than there are cores.
    Configuration("its own instructions, three threads", {"OMP_NUM_THREADS": "3", "MKL_DYNAMIC": "FALSE"}),
    Configuration("without oneDNN, one thread", options=("--without-onednn",)),
    Configuration("beside a busy loop on every core, one thread", busy=True),
)


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Keeps `count` cores busy."""
    code = LOAD.format(parent=os.getpid())
    loops = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def run(configuration: Configuration, arguments: list[str]) -> bool:
    """Whether everything passes in that configuration."""
    surroundings = {name: value for name, value in os.environ.items() if name not in CHOICES}
    surroundings |= {"OMP_NUM_THREADS": "1"} | configuration.environment
    passed = True
    with busy_loops((os.cpu_count() or 1) if configuration.busy else 0):
        for part in [arguments] if arguments else [SUITE, GOLDENS]:
            command = [sys.executable, "-m", "pytest", *part, *configuration.options]
            passed &= subprocess.run(command, env=surroundings, check=False).returncode == 0
    return passed


def main(arguments: list[str]) -> int:
    failed = []
    for configuration in CONFIGURATIONS:
        print(f"\n=== {configuration.name}", flush=True)
        if not run(configuration, arguments):
            failed.append(configuration.name)
    print(f"\n=== failed: {'; '.join(failed)}" if failed else "\n=== passed in every configuration", flush=True)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
