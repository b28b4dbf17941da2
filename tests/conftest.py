"""Makes the suite independent of the machine's speed, and lets it run as on another machine (see tests/anywhere.py)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings

from .toy_nodes import toy_info, toy_nodes  # noqa: F401 (fixtures)

THREADS = torch.get_num_threads()

settings.register_profile("at any speed", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("at any speed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--without-onednn", action="store_true", help="compute with torch's own kernels alone")


def pytest_configure(config: pytest.Config) -> None:
    torch.backends.mkldnn.set_flags(not config.getoption("--without-onednn"))


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """Commands set the number of torch's threads; a later test with two on a busy machine takes ten times as long."""
    yield
    torch.set_num_threads(THREADS)
