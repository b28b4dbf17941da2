"""Arrays that grow with a video lie in a temporary file."""

from __future__ import annotations

import mmap
import tempfile
from pathlib import Path

import numpy as np
import pytest
from talking_portrait.pipelines import large_arrays
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.large_arrays import give_memory_back, large_array


def test_values_stay_when_memory_is_given_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(large_arrays, "IN_MEMORY", 1000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    values = np.arange(60_000, dtype=np.float32).reshape(20, 1000, 3)
    array = large_array(values.shape)
    array[:] = values
    part = array[3:9]
    give_memory_back(array, values)
    give_memory_back(part)
    np.testing.assert_array_equal(part, values[3:9])
    np.testing.assert_array_equal(array, values)
    del array, part
    assert not list(tmp_path.iterdir())
    assert large_array((8, 8)).base is None


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not say what is in memory")
def test_memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def megabytes() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE / 1e6

    monkeypatch.setattr(large_arrays, "IN_MEMORY", 0)
    array = large_array((10_000, 1000))
    array[:] = 1
    full = megabytes()
    give_memory_back(array[100:])
    assert full - megabytes() > 35, "of 40"


def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(large_arrays, "IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(TalkingPortraitError, match=r"There is no room for a temporary file of 8 MB \(No space left"):
        large_array((2_000_000,))
