"""Readers bounded in time and memory, whatever was done to a file: some of what `mutations.py` can do."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from . import mutations

COUNT = {"checkpoint": 120, "workflow": 240, "motion": 120, "media": 100}
SECONDS = 300
"""For all of them on the slowest machine; a reader that hangs takes longer."""
MEGABYTES = 400
"""Beyond what the whole files need, of which none has more than 100 kB."""


def test_every_reader_is_tried():
    assert COUNT.keys() == mutations.READERS.keys()


@pytest.mark.parametrize("reader", COUNT)
def test_damaged_files_are_read_or_one_sentence_within_bounds(reader: str) -> None:
    command = [sys.executable, "-m", "tests.robustness.mutations", reader, str(COUNT[reader]), "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["read"] + figures["refused"] == COUNT[reader]
    assert figures["read"] > 0
    assert figures["refused"] > COUNT[reader] / 10
    assert figures["megabytes"] < MEGABYTES
