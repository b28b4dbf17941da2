"""The command line: python -m talking_portrait animate | motion | run | models | prepare | train."""

from __future__ import annotations

import argparse
import importlib.util
import os
import runpy
import signal
import sys
from pathlib import Path

if __package__ in (None, ""):
    # Run as `python path/to/this/folder`, for example from ComfyUI's custom_nodes: give the folder its package name.
    _folder = Path(__file__).absolute().parent  # not where a link leads: what lies around it says whose it is
    _spec = importlib.util.spec_from_file_location(
        "talking_portrait", _folder / "__init__.py", submodule_search_locations=[str(_folder)]
    )
    assert _spec is not None
    assert _spec.loader is not None
    sys.modules["talking_portrait"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["talking_portrait"])
    runpy.run_module("talking_portrait", run_name="__main__", alter_sys=True)
    sys.exit()

from .pipelines.errors import TalkingPortraitError, is_out_of_memory


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns 0, 2 for input that can't be used, 130 when interrupted, 141 when nobody reads what it
    prints any more, or the command's own code."""
    asked = _end_cleanly_when_asked()
    try:
        options = _parser().parse_args(arguments)
        code = options.run(options) or 0
        sys.stdout.flush()
        return code
    except (Exception, KeyboardInterrupt) as error:
        return _tell(error, interrupted=bool(asked))


def _tell(error: BaseException, *, interrupted: bool) -> int:
    """Says in one line how a command ended, and returns its code; a fault of the program itself is raised again."""
    # An interruption may come out as any other error, when it hits a library that was just being loaded.
    if interrupted or isinstance(error, KeyboardInterrupt):
        print("\ninterrupted", file=sys.stderr)
        return 130
    if isinstance(error, BrokenPipeError):
        # Else the interpreter would complain at its end of what it could not flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    if is_out_of_memory(error):
        print("error: This needs more memory than there is; choose a smaller --size or shorter audio.", file=sys.stderr)
        return 2
    if isinstance(error, (TalkingPortraitError, OSError)):
        print(f"error: {error}", file=sys.stderr)
        return 2
    raise error


def _end_cleanly_when_asked() -> list[int]:
    """Makes a polite request to end, or the end of the terminal, an interruption, so that what was begun is cleaned up.

    Returns a list that is filled with the signals that come.
    """
    asked: list[int] = []

    def interrupt(number: int, frame: object) -> None:
        asked.append(number)
        raise KeyboardInterrupt

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores the last
            signal.signal(number, interrupt)
    return asked


def _parser() -> argparse.ArgumentParser:
    from .nodes.standalone import command as run
    from .pipelines.commands import animate, models, motion, train

    parser = argparse.ArgumentParser(prog="talking_portrait", description="One portrait, one voice, one talking video.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (animate, motion, run, models, train):
        command.add_commands(commands)
    return parser


if __name__ == "__main__":
    code = main()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # there is nothing left to clean up, and nobody to catch it
    sys.exit(code)
