"""The command line: python -m talking_portrait animate, motion, run, models, prepare, train, person ..."""

from __future__ import annotations

import os
import signal

# Read by GNU's OpenMP when torch is loaded. Threads that spin for long while they wait keep the cores of a busy machine
# from those that work: networks take ten times as long. A short one is as good where cores are free.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def _on_request(handler: Any) -> None:
    """Sets what a request to end does: one from the keyboard or the system, or that the terminal goes."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores the last
            signal.signal(number, handler)


def _end_at_once(number: int, frame: object) -> None:
    """Until a command begins there is nothing to clean up, and a library that is just loading would fail in its way."""
    os.write(2, b"\ninterrupted\n")
    os._exit(130)


if __name__ == "__main__":
    _on_request(_end_at_once)

# What takes time is imported once an interruption is no traceback.
import argparse  # noqa: E402
import getpass  # noqa: E402
import importlib  # noqa: E402
import importlib.util  # noqa: E402
import runpy  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from contextlib import suppress  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, NoReturn  # noqa: E402

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

from .pipelines.commands.shared import terminal  # noqa: E402
from .pipelines.errors import TalkingPortraitError, check_seed, check_whole_numbers, is_out_of_memory, refusal  # noqa: E402
from .pipelines.packages import VERSION, missing_package  # noqa: E402

COMMANDS = {
    ".pipelines.commands.animate": ("animate",),
    ".pipelines.commands.motion": ("motion",),
    ".nodes.standalone.command": ("run",),
    ".pipelines.commands.models": ("models",),
    ".pipelines.commands.train": ("prepare", "train"),
    ".pipelines.commands.person": ("person",),
    ".pipelines.commands.syncanimation": ("live",),
    ".pipelines.commands.batch": ("batch",),
    ".pipelines.commands.evaluate": ("evaluate",),
    ".pipelines.commands.provenance": ("detect", "sign"),
    ".pipelines.commands.doctor": ("doctor",),
}
"""The commands that each module adds, in the order in which --help lists them."""
LESS_MEMORY = {
    "animate": "choose a smaller --size or shorter audio",
    "live": "close other programs, or train the person on smaller pictures",
    "motion": "choose shorter audio",
    "run": "take smaller pictures or fewer frames at once, which --set can change",
    "models": "close other programs",
    "batch": "give the rows a smaller longest_side in their settings",
    "evaluate": "give a video of fewer pixels",
    "detect": "give a video of fewer pixels",
    "doctor": "close other programs",
    "sign": "close other programs",
    "person": "give a shorter video, or one of fewer pixels",
    "prepare": "choose a smaller --size, or a smaller --longest for the clips",
    "train": "choose a smaller --batch, with more --accumulate in its place",
}
"""What helps a command that needs more memory than there is."""
SECONDS_TO_CLEAN_UP = 2.0
"""For so long after a request to end another one, as an impatient user's, does not break into the cleaning up."""


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns 0, 2 for input that can't be used, 130 when interrupted, 141 when nobody reads what it
    prints any more, or the command's own code."""
    terminal.make_usable()
    asked: list[float] = []
    command = ""
    try:
        _check_current_folder()
        given = sys.argv[1:] if arguments is None else arguments
        options = _parser(given[0] if given else "").parse_args(given)
        command = options.command
        check_whole_numbers({name.replace("_", "-"): value for name, value in vars(options).items()}, "--{}")
        if command != "train" and getattr(options, "seed", None) is not None:  # trainers check their plans
            check_seed(options.seed)
        if command != "models":
            importlib.import_module("torch")  # before an interruption is an error, which what it imports may pass over
        _on_request(_interrupting(asked))
        code = options.run(options) or 0
        terminal.flush()
        return code
    except (Exception, KeyboardInterrupt) as error:
        return _tell(error, command, interrupted=bool(asked))
    finally:
        _remove_empty_cache()


def _tell(error: BaseException, command: str, *, interrupted: bool) -> int:
    """Says in one line how a command ended, and returns its code; a fault of the program itself is raised again."""
    # An interruption may come out as any other error, when it hits a library that was just being loaded.
    if interrupted or isinstance(error, KeyboardInterrupt):
        said, code = "\ninterrupted", 130
    elif isinstance(error, BrokenPipeError):
        said, code = "", 141
    elif is_out_of_memory(error):
        said, code = (
            f"error: This needs more memory than there is; {LESS_MEMORY.get(command, 'close other programs')}.",
            2,
        )
    elif isinstance(error, TalkingPortraitError):
        said, code = f"error: {terminal.on_one_line(str(error))}", 2
    elif isinstance(error, ModuleNotFoundError) and (sentence := missing_package(error)):
        said, code = f"error: {sentence}", 2
    elif isinstance(error, OSError):
        said, code = f"error: {terminal.on_one_line(refusal(error))}", 2
    else:
        raise error
    try:
        terminal.flush()
    except OSError as unprinted:
        if unprinted is not error and not isinstance(unprinted, BrokenPipeError):
            said = said or f"error: {refusal(unprinted)}"
    if said:
        terminal.last_words(said)
    return code


def _remove_empty_cache() -> None:
    """The folder for compiled code that torch makes as soon as an optimiser takes a step, unless something is in it."""
    if "torch._inductor" in sys.modules:
        with suppress(OSError, KeyError):  # not empty, or not there; a user without a name
            os.rmdir(Path(tempfile.gettempdir(), f"torchinductor_{getpass.getuser()}"))


def _check_current_folder() -> None:
    """Native libraries end the process in their own way where there is none."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise TalkingPortraitError(
            "The current folder has been removed; change to another one and run it again."
        ) from None


def _interrupting(asked: list[float]) -> Callable[[int, object], None]:
    """A handler that makes a request to end an interruption, so that what was begun is cleaned up.

    `asked` is filled with the times at which requests come.
    """

    def interrupt(number: int, frame: object) -> None:
        asked.append(time.monotonic())
        if hasattr(signal, "SIGCHLD"):  # DataLoader's raises an error for readers that the same request has ended
            signal.signal(signal.SIGCHLD, lambda number, frame: None)
        if len(asked) == 1 or asked[-1] - asked[0] > SECONDS_TO_CLEAN_UP:
            raise KeyboardInterrupt

    return interrupt


class _Parser(argparse.ArgumentParser):
    """One whose errors are one line without control characters: names of files come from shell patterns too."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        if "" in (sys.argv[1:] if args is None else args):  # a path would take it for the current folder
            self.error("an argument is empty, as that of a variable that is not set; write it or leave its option out")
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        dash = "; write a name that begins with a dash as ./-name" if message.endswith("expected one argument") else ""
        said = terminal.on_one_line(f"{self.prog}: {message}{dash}; --help lists what it takes.")
        self.exit(2, f"error: {said}\n")


def _parser(first: str = "") -> argparse.ArgumentParser:
    """The parser of all commands, or of the one that `first` names alone: some load torch, which takes a second."""
    parser = _Parser(prog="talking_portrait", description="One portrait, one voice, one talking video.")
    parser.add_argument("--version", action="version", version=f"Talking Portrait {VERSION}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", dest="command")
    if first != "--version":
        for module in [module for module, names in COMMANDS.items() if first in names] or COMMANDS:
            importlib.import_module(module, __package__).add_commands(commands)
    return parser


if __name__ == "__main__":
    code = main()
    _on_request(signal.SIG_IGN)  # what the interpreter does at its end takes a moment and changes no result
    sys.exit(code)
