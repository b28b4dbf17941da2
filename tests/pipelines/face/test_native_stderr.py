"""What native code writes to stderr does not reach the terminal, and what Python writes does."""

from __future__ import annotations

import subprocess
import sys

TALKING_TRACK = """
import os, sys
from talking_portrait.pipelines.face.native_stderr import redirect_native_stderr
try:
    with redirect_native_stderr():
        os.write(2, b"greetings from native code")
        print("progress", file=sys.stderr)
        raise RuntimeError
except RuntimeError:
    print("afterwards", file=sys.stderr)
os.write(2, b"native again")
"""


def test_only_python_writes_to_the_terminal_inside_and_native_code_again_afterwards():
    done = subprocess.run([sys.executable, "-c", TALKING_TRACK], capture_output=True, text=True, check=True)
    assert done.stderr.split() == ["progress", "afterwards", "native", "again"]
