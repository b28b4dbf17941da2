"""Sends a workflow to a running ComfyUI: uploads its files, queues it, follows it, brings its results back.

Speaks the server's own HTTP and websocket API (`/object_info`, `/upload/image`, `/prompt`, `/ws`, `/history`,
`/view`, `/interrupt`, `/queue`). Needs aiohttp, which ComfyUI brings and the `standalone` extra names.
"""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import quote

from ..errors import one_line, reason_of
from ..files.output_paths import folder_for_results, new_file
from .check import MAX_ERROR
from .formats import NodeInfo, Prompt
from .server_connection import (
    ANSWER_SECONDS,
    MAX_MESSAGE,
    ServerError,
    ServerInterruptedError,
    ServerRefusedError,
    ServerTimeoutError,
    ServerUnreachableError,
    blocks_of,
    get_json,
    list_of,
    open_session,
    parsed,
    post_json,
    run_connected,
    table_of,
    text_of,
)
from .server_results import MAX_RESULT_BYTES, files_of, place_of, too_much

__all__ = [
    "ServerError",
    "ServerInterruptedError",
    "ServerRefusedError",
    "ServerRun",
    "ServerTimeoutError",
    "ServerUnreachableError",
    "fetch_node_info",
    "run_on_server",
    "upload_inputs",
]

Value = TypeVar("Value")

UPLOADS = ("image_upload", "audio_upload", "video_upload", "file_upload")
MAX_STEPS = 1_000_000_000
"""Of a progress that is shown."""
MAX_LINES = 40
"""Of complaints that are shown."""
SECONDS_TO_WITHDRAW = 10.0
SECONDS_TO_CLOSE = 1.0


@dataclass(frozen=True)
class ServerRun:
    """What came back: downloaded `files`, and `warnings` about outputs that the server left out."""

    files: list[Path] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def upload_inputs(prompt: Prompt, node_info: NodeInfo) -> Iterator[tuple[str, str, str]]:
    """(node id, input, value) of every input that names a file in the server's input folder, as LoadImage's does."""
    for node, entry in prompt.items():
        sections = node_info.get(entry["class_type"], {}).get("input", {})
        for name, value in entry["inputs"].items():
            spec = sections.get("required", {}).get(name) or sections.get("optional", {}).get(name) or []
            if isinstance(value, str) and len(spec) > 1 and any(spec[1].get(kind) for kind in UPLOADS):
                yield node, name, value


Report = Callable[[str, int, int], None]
"""Called with a node's title, steps done and steps in all."""


def fetch_node_info(server: str, timeout: float = ANSWER_SECONDS) -> dict[str, Any]:
    """`/object_info` of a server, as far as it is of the right types. Raises ServerUnreachableError."""

    async def fetch() -> dict[str, Any]:
        async with open_session(server) as http:
            return await get_json(http, "object_info", min(timeout, ANSWER_SECONDS))

    found = run_connected(fetch(), server)
    return {name: _node_info(entry) for name, entry in found.items() if isinstance(entry, dict)}


def _node_info(entry: dict[str, Any]) -> dict[str, Any]:
    """A class of `/object_info` with inputs of the form [type, options] and nothing else."""
    sections = {
        section: {
            name: [spec[0], table_of(spec[1] if len(spec) > 1 else None)]
            for name, spec in table_of(table_of(entry.get("input")).get(section)).items()
            if isinstance(spec, list) and spec
        }
        for section in ("required", "optional")
    }
    order = {
        section: [name for name in names if isinstance(name, str) and name in sections[section]]
        for section, names in table_of(entry.get("input_order")).items()
        if section in sections and isinstance(names, list)
    }
    return {**entry, "input": sections, "input_order": order, "display_name": text_of(entry.get("display_name"))}


def run_on_server(
    server: str,
    prompt: Prompt,
    node_info: NodeInfo,
    *,
    files: Mapping[str, Path] | None = None,
    out: Path,
    timeout: float = 3600.0,
    report: Report = lambda title, done, total: None,
) -> ServerRun:
    """Runs a prompt to its end and downloads its outputs into `out`, beside what is there.

    `files` maps values of upload inputs (the names in LoadImage and its like) to local files, which are uploaded
    first. Raises a ServerError whose `exit_code` says how it ended; an interrupted caller (KeyboardInterrupt) and a
    timeout take the run off the server's queue before they are passed on.
    """
    return run_connected(_Client(server, node_info, out, timeout, report).run(prompt, files or {}), server)


class _Client:
    def __init__(self, server: str, node_info: NodeInfo, out: Path, timeout: float, report: Report) -> None:
        self.server, self.node_info, self.out, self.report = server, node_info, out, report
        self.timeout = timeout
        self.client_id = uuid.uuid4().hex
        self.warnings: list[str] = []
        self.titles: dict[str, str] = {}

    async def run(self, prompt: Prompt, files: Mapping[str, Path]) -> ServerRun:
        for node, entry in prompt.items():
            kind = entry["class_type"]
            named = entry.get("_meta", {}).get("title") or self.node_info.get(kind, {}).get("display_name")
            self.titles[node] = one_line(named or kind)
        async with open_session(self.server) as http:
            outputs = await self._in_time(
                self._work(http, prompt, files), "The run took longer than {} and was interrupted"
            )
            # Pictures that a node shows on the way to the results are none.
            shown = {
                node
                for node, entry in prompt.items()
                if self.node_info.get(entry["class_type"], {}).get("has_intermediate_output")
            }
            results = {node: values for node, values in table_of(outputs).items() if node not in shown}
            fetching = self._fetch(http, files_of(results))
            return ServerRun(await self._in_time(fetching, "The results took longer than {} to come"), self.warnings)

    async def _in_time(self, work: Awaitable[Value], complaint: str) -> Value:
        try:
            return await asyncio.wait_for(_timeouts_named(work), self.timeout)
        except asyncio.TimeoutError:
            raise ServerTimeoutError(f"{complaint.format(f'{self.timeout:g} s')}; allow more with --timeout.") from None

    async def _work(self, http: Any, prompt: Prompt, files: Mapping[str, Path]) -> Any:
        """Runs the prompt to its end; returns its outputs."""
        import aiohttp

        prompt = await self._with_uploads(http, prompt, files)
        patience = aiohttp.ClientWSTimeout(ws_close=SECONDS_TO_CLOSE)
        params = {"clientId": self.client_id}
        async with http.ws_connect("ws", params=params, max_msg_size=MAX_MESSAGE, timeout=patience) as socket:
            number = await self._queue(http, prompt)
            try:
                await self._follow(http, socket, number)
            except asyncio.CancelledError:
                await self._withdraw(http, number)
                raise
        return await self._outputs(http, number)

    async def _with_uploads(self, http: Any, prompt: Prompt, files: Mapping[str, Path]) -> Prompt:
        import aiohttp

        result = {node: {**entry, "inputs": dict(entry["inputs"])} for node, entry in prompt.items()}
        names: dict[str, str] = {}
        for node, name, value in upload_inputs(prompt, self.node_info):
            if value not in files:
                continue
            if value not in names:
                form = aiohttp.FormData(quote_fields=False)
                with open(files[value], "rb") as content:
                    form.add_field("image", content, filename=files[value].name)
                    stored = await post_json(http, "upload/image", data=form, within=self.timeout)
                if not text_of(stored.get("name")):
                    raise ServerUnreachableError(
                        f"ComfyUI does not say under which name it has put {files[value].name}; look at its log."
                    )
                names[value] = str(PurePosixPath(text_of(stored.get("subfolder")), stored["name"]))
            result[node]["inputs"][name] = names[value]
        return result

    async def _queue(self, http: Any, prompt: Prompt) -> str:
        body = {"prompt": prompt, "client_id": self.client_id}
        answer = await post_json(http, "prompt", allowed=(200, 400), json=body)
        lines = self._error_lines(table_of(answer.get("node_errors")))
        number = answer.get("prompt_id")
        if not isinstance(number, (str, int)) or not number:
            error = answer.get("error")
            summary = one_line(table_of(error).get("message") or error or "it does not say why", 500)
            if not lines and table_of(error).get("details"):
                lines = [f"  {one_line(table_of(error)['details'], 500)}"]
            raise ServerRefusedError("\n".join([f"ComfyUI refused the workflow: {summary}", *lines]))
        if lines:
            self.warnings = ["ComfyUI left out a part of the workflow:", *lines]
        return str(number)

    async def _follow(self, http: Any, socket: Any, number: str) -> None:
        """Returns when the run has succeeded; raises when it ends in any other way."""
        import aiohttp

        while True:
            try:
                message = await socket.receive(timeout=30)
            except asyncio.TimeoutError:
                # Silence is normal in a long queue; a run whose end message was missed is in the history.
                if await self._finished(http, number):
                    return
                continue
            if message.type == aiohttp.WSMsgType.TEXT:
                if self._handle(parsed(message.data), number):
                    return
            elif message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR):
                if await self._finished(http, number):
                    return
                raise ServerUnreachableError(f"{self.server} closed the connection while it worked; look at its log.")

    def _handle(self, message: Any, number: str) -> bool:
        """Handles one message; True when the run has succeeded. Packs send messages of their own, of any form."""
        kind, data = table_of(message).get("type"), table_of(table_of(message).get("data"))
        if str(data.get("prompt_id", number)) != number:
            return False
        if kind == "executing" and data.get("node") is not None:
            self.report(self._title(data["node"]), 0, 0)
        elif kind == "progress" and data.get("node") is not None:
            total = _steps(data.get("max"))
            self.report(self._title(data["node"]), min(_steps(data.get("value")), total), total)
        elif kind == "execution_error":
            raise ServerError(self._failure(data))
        elif kind == "execution_interrupted":
            raise ServerInterruptedError(f"The run was interrupted at {self._title(data.get('node_id'))}.")
        return kind == "execution_success"

    async def _history(self, http: Any, number: str) -> dict[str, Any] | None:
        """What the server keeps of the run, None before its end."""
        entry = (await get_json(http, f"history/{quote(number, safe='')}")).get(number)
        return entry if isinstance(entry, dict) else None

    async def _finished(self, http: Any, number: str) -> bool:
        entry = await self._history(http, number)
        if entry is None:
            return False
        self._raise_if_failed(entry, number)
        return True

    def _raise_if_failed(self, entry: Mapping[str, Any], number: str) -> None:
        """Raises what the history's entry of the run says of a failure."""
        status = table_of(entry.get("status"))
        if status.get("status_str") != "error":
            return
        messages = list_of(status.get("messages"))
        for wanted in ("execution_interrupted", "execution_error"):
            for kind, data in (pair for pair in messages if len(list_of(pair)) == 2):
                if kind == wanted:
                    self._handle({"type": kind, "data": data}, number)
        # A server that hands its runs on to others says in a text what came of it.
        reasons = "; ".join(one_line(entry, 500) for entry in messages if isinstance(entry, str))
        if reasons:
            raise ServerError(f"The run failed: {reasons}; look at ComfyUI's log.")
        raise ServerError("The run failed, but ComfyUI's history does not say why; look at its log.")

    async def _withdraw(self, http: Any, number: str) -> None:
        for path, body in (("queue", {"delete": [number]}), ("interrupt", {"prompt_id": number})):
            with suppress(Exception):
                await asyncio.wait_for(post_json(http, path, json=body), SECONDS_TO_WITHDRAW)

    async def _outputs(self, http: Any, number: str) -> Any:
        # The success message is sent just before the history is written.
        for _ in range(200):
            entry = await self._history(http, number)
            if entry is not None:
                # Where another machine made it, the run can still fail on the way back.
                self._raise_if_failed(entry, number)
                return entry.get("outputs")
            await asyncio.sleep(0.05)
        raise ServerError("ComfyUI reports success but keeps no history of the run; look at its log.")

    async def _fetch(self, http: Any, entries: list[dict[str, str]]) -> list[Path]:
        """Downloads results; together they have at most MAX_RESULT_BYTES."""
        places, left = [], MAX_RESULT_BYTES
        for entry in entries:
            place = await self._download(http, entry, left)
            left -= place.stat().st_size
            places.append(place)
        return places

    async def _download(self, http: Any, entry: Mapping[str, str], most: int) -> Path:
        import aiohttp

        target = place_of(entry, self.out)
        try:
            with folder_for_results(target.parent), new_file(target) as result:
                async with http.get("view", params=dict(entry)) as response:
                    response.raise_for_status()
                    with result.partial.open("wb") as file:
                        async for block in blocks_of(response):
                            most -= len(block)
                            if most < 0:
                                raise too_much()
                            file.write(block)
            return result.path
        except (aiohttp.ClientError, asyncio.TimeoutError):
            raise
        except OSError as error:
            raise ServerError(
                f"{target} can't be written ({reason_of(error)}); free some space or name another folder with --out."
            ) from None

    def _title(self, node: Any) -> str:
        return self.titles.get(str(node), f"node {one_line(node)}")

    def _failure(self, data: Mapping[str, Any]) -> str:
        title = self._title(data.get("node_id"))
        message = one_line(data.get("exception_message") or "no reason was given", 1000)
        kind = one_line(text_of(data.get("exception_type")).rpartition(".")[2])
        if message.startswith(title):
            return message
        return f"{title}: {message}" if kind in ("", "TalkingPortraitError") else f"{title}: {kind}: {message}"

    def _error_lines(self, node_errors: Mapping[str, Any]) -> list[str]:
        """One line for each thing that validation found."""
        lines = [
            f"  {self._title(node)} (node {one_line(node)}): {one_line(message, 200)}"
            + (f": {one_line(details, MAX_ERROR)}" if details else "")
            for node, found in node_errors.items()
            for message, details in _distinct(list_of(table_of(found).get("errors")))
        ]
        return lines if len(lines) <= MAX_LINES else [*lines[:MAX_LINES], f"  and {len(lines) - MAX_LINES} more"]


def _distinct(errors: list[Any]) -> list[tuple[str, str]]:
    """Message and details of each error. ComfyUI repeats what a node's own check says for every input that it names;
    such become one, whose details begin with all of the inputs' names."""
    names: dict[tuple[str, str], list[str]] = {}
    for error in errors:
        if isinstance(error, dict):
            message, details = str(error.get("message", "")), str(error.get("details") or "")
            name, dash, said = details.partition(" - ")
            key = (message, said) if dash and error.get("type") == "custom_validation_failed" else (message, "")
            names.setdefault(key, []).append(name if key[1] else details)
    return [
        (message, detail)
        for (message, said), found in names.items()
        for detail in ([f"{', '.join(found)} - {said}"] if said else found)
    ]


async def _timeouts_named(work: Awaitable[Value]) -> Value:
    """Keeps a timeout of a single request apart from that of the whole."""
    try:
        return await work
    except asyncio.TimeoutError:
        raise ServerUnreachableError("ComfyUI does not answer any more; look at its log.") from None


def _steps(value: Any) -> int:
    """A count of steps as it can be shown."""
    if not isinstance(value, (int, float)) or math.isnan(value := min(value, MAX_STEPS)):
        return 0
    return int(max(0, value))
