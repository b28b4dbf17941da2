"""Every golden, recomputed. A golden without a runner fails, so that missing runners stay listed."""

from __future__ import annotations

import pytest
import torch

from .goldens import Golden, find_runner

pytestmark = pytest.mark.parity


def test_golden(golden: Golden, record: dict[str, Golden], without_runner: list[str]) -> None:
    function = find_runner(golden)
    if function is None:
        without_runner.append(str(golden))
        pytest.fail(f"no runner yet: {golden}", pytrace=False)
    record[str(golden)] = golden
    with torch.no_grad():
        golden.run(function)
