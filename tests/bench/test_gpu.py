"""The benchmark for graphics cards runs from a plain checkout, on a Python without what only the nodes need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    "aniportrait_exact",
    "aniportrait_fast",
    "apasco",
    "apasco_fast",
    "anitalker_render",
    "anitalker_restored",
    "gfpgan",
    "anitalker_motion",
    "syncanimation_march",
    "syncanimation_step",
    "audiodvp",
    "instant",
]
UNCOUNTED = {"instant"}
BARE = """
import runpy, sys
sys.path.insert(0, {root!r})
for name in ("diffusers", "mediapipe", "av", "insightface", "PIL", "cv2", *{without!r}):
    sys.modules[name] = None
sys.argv = ["gpu", "--out", {out!r}, "--tiny", "--only", *{rows!r}]
runpy.run_module("tests.bench.gpu", run_name="__main__")
"""


def measured(out: Path, rows: list[str], *without: str) -> dict[str, Any]:
    code = BARE.format(root=str(ROOT), out=str(out), rows=rows, without=without)
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300, capture_output=True)
    assert (out / "gpu.md").read_text()
    return json.loads((out / "gpu.json").read_text())


@pytest.mark.slow
def test_every_row_is_measured_on_a_bare_python(tmp_path):
    found = measured(tmp_path, ROWS)
    assert [row["name"] for row in found["rows"]] == ROWS
    assert all(row["frames_a_second"] > 0 for row in found["rows"]), found["rows"]
    counted = [row for row in found["rows"] if row["name"] not in UNCOUNTED]
    assert all(row["tflop"] > 0 and row["tb"] > 0 and row["copy_share"] > 0 for row in counted), counted
    assert found["matmul_tflops"] > 0
    errors = found["relative_errors_against_the_cpu"]
    assert len(errors) == 4
    for of_network in errors.values():
        assert of_network["float32"] < 1e-5
        assert max(of_network.values()) < 0.3


@pytest.mark.slow
def test_a_row_that_cannot_be_measured_says_why_and_costs_no_other(tmp_path):
    *others, instant = measured(tmp_path, ["gfpgan", "instant"], "scipy")["rows"]
    assert instant["note"] == "left out: scipy is missing"
    assert len(others) == 1
    assert all(row["frames_a_second"] > 0 and row["tflop"] > 0 for row in others), others
