"""A random moment at which each command is ended; `make kills` has many."""

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


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("models", "SIGINT"),
        *[
            pytest.param(name, signalled, marks=pytest.mark.slow)
            for name, signalled in (
                ("animate", "SIGKILL"),
                ("run", "SIGTERM"),
                ("prepare", "SIGKILL"),
                ("train", "SIGKILL"),
            )
        ],
    ],
)
def test_a_command_that_is_ended_leaves_only_whole_results(
    inputs: Path, address: str, tmp_path: Path, name: str, number: str
) -> None:
    """One moment within the second that follows the first thing that the command writes."""
    moment = random.Random(name).uniform(kills.STARTING, 1.0)
    place = kills.new(tmp_path, name)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        course = kills.Course(1.0, 1.0)
        signalled = getattr(signal, number)
        ended, problems = kills.attempt(kills.COMMANDS[name], inputs, place, address, course, signalled, moment)
    finally:
        signal.signal(signal.SIGINT, before)
    assert problems == [], f"{ended}, moment {moment}"
