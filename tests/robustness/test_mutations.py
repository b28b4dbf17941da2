"""Readers bounded in time and memory, whatever was done to a file: some of what `mutations.py` can do."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from . import mutations

COUNT = {"checkpoint": 60, "workflow": 120, "motion": 60, "media": 60, "driver,manifest,person,statement": 40}
MANY = 2000
SECONDS = 300
"""For all of them on the slowest machine; a reader that hangs takes longer."""
MEGABYTES = 400
"""Beyond what the whole files need, of which none has more than a few megabytes."""


def run(readers: str, count: int, seed: int, seconds: float) -> None:
    command = [sys.executable, "-m", "tests.robustness.mutations", readers, str(count), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    for reader, line in zip(readers.split(","), lines, strict=True):
        figures = json.loads(line)
        assert figures["read"] + figures["refused"] == count, reader
        assert figures["read"] > 0, reader
        assert figures["refused"] > count / (100 if reader == "statement" else 10), reader
        assert figures["megabytes"] < MEGABYTES, reader


def test_every_reader_is_tried():
    assert {reader for readers in COUNT for reader in readers.split(",")} == set(mutations.READERS)


@pytest.mark.parametrize("readers", COUNT)
def test_damaged_files_are_read_or_one_sentence_within_bounds(readers: str) -> None:
    run(readers, COUNT[readers], 0, SECONDS)


@pytest.mark.slow
@pytest.mark.parametrize("readers", COUNT)
def test_thousands_of_damaged_files_are_read_or_one_sentence(readers: str) -> None:
    run(readers, MANY, 1, 20 * SECONDS)


def test_what_a_reader_does_to_the_world_outside_is_a_fault(tmp_path) -> None:
    path, watch = tmp_path / "a", mutations.Watch()
    path.write_bytes(b"")
    assert mutations.fault_of(lambda path: path.read_bytes(), path, watch) == ("", False)
    assert "open of" in mutations.fault_of(lambda path: path.write_bytes(b""), path, watch)[0]
    assert "os.mkdir" in mutations.fault_of(lambda path: path.with_suffix(".d").mkdir(), path, watch)[0]
