"""The benchmark for graphics cards runs from a plain checkout, on a Python without what only the nodes need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROWS = ["aniportrait_exact", "aniportrait_fast", "apasco", "anitalker_render", "gfpgan", "anitalker_motion"]
BARE = """
import runpy, sys
sys.path.insert(0, {root!r})
for name in ("diffusers", "mediapipe", "av", "insightface"):
    sys.modules[name] = None
sys.argv = ["gpu", "--out", {out!r}, "--tiny", "--only", *{rows!r}]
runpy.run_module("tests.bench.gpu", run_name="__main__")
"""


def test_every_row_is_measured_on_a_bare_python(tmp_path):
    code = BARE.format(root=str(ROOT), out=str(tmp_path), rows=ROWS)
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300, capture_output=True)
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert [row["name"] for row in found["rows"]] == ROWS
    assert all(row["frames_a_second"] > 0 and row["tflop"] > 0 for row in found["rows"]), found["rows"]
    assert found["relative_errors_against_the_cpu"]
    assert found["matmul_tflops"] > 0
    for errors in found["relative_errors_against_the_cpu"].values():
        assert max(errors.values()) < 0.1
    assert "AniPortrait" in (tmp_path / "gpu.md").read_text()
