"""A few random moments at which the commands are ended; `make kills` has many."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import random_kills as kills

pytestmark = pytest.mark.skipif(os.name != "posix", reason="of POSIX's signals")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kills.make_inputs(tmp_path_factory.mktemp("kills") / "in")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with kills.host() as place:
        yield place


@pytest.mark.parametrize("name", ["animate", "run", "prepare", "train", "models"])
def test_a_command_that_is_ended_leaves_only_whole_results(
    inputs: Path, address: str, tmp_path: Path, name: str
) -> None:
    """Three moments, one for each signal, within the second that follows the first thing that it writes."""
    command = kills.COMMANDS[name]
    moments = random.Random(name)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for number in kills.SIGNALS:
            moment = moments.uniform(kills.STARTING, 1.0)
            place = kills.new(tmp_path, name)
            ended, problems = kills.attempt(command, inputs, place, address, kills.Course(1.0, 1.0), number, moment)
            assert problems == [], f"{ended}, moment {moment}"
    finally:
        signal.signal(signal.SIGINT, before)
