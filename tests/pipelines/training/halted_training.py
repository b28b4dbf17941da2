"""`talking_portrait ARGS`, which halts at a moment of its training and waits to be killed there.

    python halted_training.py step 3 train ...          before step 3 is logged, after its weights have moved
    python halted_training.py checkpoint 2 train ...    when the second checkpoint is written but has not got its name

It prints HALTED when it has come there, and ends when nobody holds the other end of its input any more.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from talking_portrait.__main__ import main
from talking_portrait.pipelines.files import output_paths as targets
from talking_portrait.pipelines.training.core import loop

HALTED = "halted"
MOMENTS = {"step": (loop, "_append"), "checkpoint": (targets, "rename_durably")}


def halt_at(moment: str, number: int) -> None:
    """Makes the `number`th call that belongs to a moment the last one."""
    module, name = MOMENTS[moment]
    original: Callable[..., Any] = getattr(module, name)
    calls = 0

    def counted(*arguments: Any) -> Any:
        nonlocal calls
        calls += moment != "checkpoint" or arguments[1].name.startswith("step-")
        if calls == number:
            print(HALTED, flush=True)
            sys.stdin.read()
            raise SystemExit("nobody killed this process")
        return original(*arguments)

    setattr(module, name, counted)


if __name__ == "__main__":
    halt_at(sys.argv[1], int(sys.argv[2]))
    sys.exit(main(sys.argv[3:]))
