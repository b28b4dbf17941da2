"""`python -m talking_portrait run`: a workflow file, here or on a ComfyUI server."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PureWindowsPath
from typing import Any

from ...pipelines.commands.shared.progress_bar import ProgressBar
from ...pipelines.commands.shared.terminal import last_words, note, on_one_line, say
from ...pipelines.errors import TalkingPortraitError
from ...pipelines.face.native_stderr import redirect_native_stderr
from ...pipelines.files.input_paths import existing_file, existing_folder, is_file
from ...pipelines.files.output_paths import check_output_folder
from ...pipelines.workflow import server as comfy_client
from ...pipelines.workflow.check import GraphRefusedError, describe
from ...pipelines.workflow.formats import (
    NodeInfo,
    Prompt,
    check_known,
    class_names,
    file_reference,
    load_workflow,
    to_prompt,
)
from ...pipelines.workflow.run import NodeFailedError, run_graph, set_input

OK, REFUSED, FAILED, NO_OUTPUTS = 0, 2, 3, 7
USUAL_TIMEOUT = 3600.0
"""Seconds that a run on a server may take."""
OWN_NODES = "TalkingPortrait"
"""How the names of this pack's node classes start."""

DESCRIPTION = """\
Runs a workflow in ComfyUI's API format or as the editor saves it. Without --server it runs right here, with this
pack's nodes, ComfyUI's loaders and savers of pictures, sound and video, and its nodes that hold a value; with
--server it runs in that ComfyUI, local files are uploaded and the results downloaded.
"""
EXIT_CODES = """\
exit status: 0 done, 2 the workflow was refused, 3 a node failed, 4 interrupted on the server, 5 took too long,
6 no server answers, 7 done but nothing was saved, 130 interrupted here
"""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `run` to the command line."""
    command = commands.add_parser(
        "run",
        help="run a ComfyUI workflow, here or on a server",
        description=DESCRIPTION,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("workflow", type=Path, metavar="WORKFLOW.json", help="API or UI format")
    command.add_argument(
        "--set",
        dest="assignments",
        action="append",
        default=[],
        metavar="NODE.INPUT=VALUE",
        help="change an input first; NODE is an id, a title or a class; for LoadImage and the like VALUE may be any "
        "file (repeatable)",
    )
    command.add_argument(
        "--input",
        type=Path,
        metavar="DIR",
        help="where the file names in the workflow are looked up (default: the current folder)",
    )
    command.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where results go (default: out)")
    command.add_argument("--server", metavar="URL", help="a running ComfyUI, e.g. http://127.0.0.1:8188")
    command.add_argument("--timeout", type=float, metavar="S", help="with --server: longest wait (default 3600)")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    try:
        workflow = load_workflow(options.workflow)
        check_output_folder(options.out)
        options.input = Path() if options.input is None else existing_folder(options.input, "input")
        return _run_here(options, workflow) if options.server is None else _run_on_server(options, workflow)
    except comfy_client.ServerError as error:
        return _complain(error, error.exit_code)
    except NodeFailedError as error:
        return _complain(error, FAILED)
    except TalkingPortraitError as error:
        return _complain(error, REFUSED)


def _complain(error: object, code: int) -> int:
    listed = isinstance(error, (GraphRefusedError, comfy_client.ServerRefusedError))  # one thing on each line
    last_words(f"error: {error if listed else on_one_line(str(error))}")
    return code


def _run_here(options: argparse.Namespace, workflow: Mapping[str, Any]) -> int:
    from . import node_api as standalone

    if options.timeout is not None:
        note("--timeout has no effect without --server.")
    nodes = registry()
    info = describe(nodes, class_names(workflow))
    prompt = to_prompt(workflow, info, note)
    files = _assign(prompt, options, info)
    started = time.monotonic()

    @contextmanager
    def around(node: str, title: str) -> Iterator[None]:
        current = standalone.Session(
            progress=ProgressBar(title, "steps", announce=True),
            input_folder=options.input,
            output_folder=options.out,
            files=files,
        )
        with standalone.use_session(current):
            yield

    with redirect_native_stderr(), around("", ""):
        result = run_graph(prompt, nodes, around=around)
    paths = [
        options.out / item["subfolder"] / item["filename"]
        for shown in result.ui.values()
        for items in shown.values()
        for item in items
    ]
    return _list(paths, started)


def _run_on_server(options: argparse.Namespace, workflow: Mapping[str, Any]) -> int:
    options.timeout = USUAL_TIMEOUT if options.timeout is None else options.timeout
    if not 0 < options.timeout < math.inf:
        raise TalkingPortraitError(f"The longest wait is {options.timeout:g} s, but a number above 0 is expected.")
    info = comfy_client.fetch_node_info(options.server, options.timeout)
    prompt = to_prompt(workflow, info, note, server=options.server)
    own = [entry["class_type"] for entry in prompt.values() if entry["class_type"].startswith(OWN_NODES)]
    check_known([kind for kind in own if kind not in info], options.server)
    _say_unknown_inputs(workflow, info, options.server)
    files = _assign(prompt, options, info)
    for _, _, value in comfy_client.upload_inputs(prompt, info):
        with suppress(TalkingPortraitError):  # a name that leads out of the folder is the server's to judge
            folder, inside = file_reference(value)
            path = options.input / inside
            if value not in files and folder == "input" and is_file(path):
                files[value] = path
    started = time.monotonic()
    lines: dict[str, ProgressBar] = {}

    def report(title: str, done: int, total: int) -> None:
        lines.setdefault(title, ProgressBar(title, "steps", announce=True))(done, total)

    run = comfy_client.run_on_server(
        options.server, prompt, info, files=files, out=options.out, timeout=options.timeout, report=report
    )
    for line in run.warnings:
        note(line)
    return _list(run.files, started)


def _say_unknown_inputs(workflow: Mapping[str, Any], info: NodeInfo, server: str) -> None:
    """Notes what a workflow sets in nodes of this pack that a server's older version of it does not have."""
    here = describe(registry(), {kind for kind in class_names(workflow) & info.keys() if kind.startswith(OWN_NODES)})
    for node, entry in to_prompt(workflow, {**info, **here}).items():
        if entry["class_type"] not in here:
            continue
        sections = info[entry["class_type"]]["input"]
        unknown = [name for name in entry["inputs"] if not any(name in inputs for inputs in sections.values())]
        if unknown:
            title = here[entry["class_type"]]["display_name"]
            note(
                f"{title} (node {node}) has no {', '.join(unknown)} in the ComfyUI at {server}, so what the workflow "
                "sets there is not used; update Talking Portrait in that ComfyUI."
            )


def _assign(prompt: Prompt, options: argparse.Namespace, info: NodeInfo) -> dict[str, Path]:
    """Carries out --set; returns the local files that it named, by the value that now stands in the prompt.

    A relative path that is no file here may be one in the input folder. Raises TalkingPortraitError for other paths.
    """
    assigned = {set_input(prompt, assignment, info) for assignment in options.assignments}
    named = {
        value: Path(value) for node, name, value in comfy_client.upload_inputs(prompt, info) if (node, name) in assigned
    }
    return {
        value: existing_file(path, "input")
        for value, path in named.items()
        if is_file(path) or path.is_absolute() or ".." in path.parts or PureWindowsPath(path).drive
    }


def registry() -> dict[str, Any]:
    """Every node that a workflow may use here: this pack's, and stand-ins for ComfyUI's nodes of files and values."""
    from ..extension import NODES
    from .core_nodes import STAND_INS
    from .value_nodes import VALUE_NODES

    return {**STAND_INS, **VALUE_NODES, **{node.GET_SCHEMA().node_id: node for node in NODES}}


def _list(paths: list[Path], started: float) -> int:
    for path in paths:
        say(str(path))
    note(f"{len(paths)} {'file' if len(paths) == 1 else 'files'} in {time.monotonic() - started:.1f} s")
    return OK if paths else NO_OUTPUTS
