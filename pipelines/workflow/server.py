"""Sends a workflow to a running ComfyUI: uploads its files, queues it, follows it, brings its results back.

Speaks the server's own HTTP and websocket API (`/object_info`, `/upload/image`, `/prompt`, `/ws`, `/history`,
`/view`, `/interrupt`, `/queue`). Needs aiohttp, which ComfyUI brings and the `standalone` extra names.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import TalkingPortraitError, quoted
from ..files.output_paths import folder_for_results, free_name, replacing
from .formats import NodeInfo, Prompt

UPLOADS = ("image_upload", "audio_upload", "video_upload", "file_upload")


class ServerError(TalkingPortraitError):
    """A run on a server that did not succeed; `exit_code` is what a command line should end with."""

    exit_code = 3


class ServerRefusedError(ServerError):
    """The server's validation refused the workflow."""

    exit_code = 2


class ServerInterruptedError(ServerError):
    """The run was interrupted."""

    exit_code = 4


class ServerTimeoutError(ServerError):
    """The run took longer than it was given."""

    exit_code = 5


class ServerUnreachableError(ServerError):
    """No ComfyUI answers at the address."""

    exit_code = 6


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


def fetch_node_info(server: str) -> dict[str, Any]:
    """`/object_info` of a server. Raises ServerUnreachableError."""

    async def fetch() -> dict[str, Any]:
        async with _session(server) as http:
            return await _get_json(http, "/object_info")

    return _run(fetch(), server)


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
    return _run(_Client(server, node_info, out, timeout, report).run(prompt, files or {}), server)


def _run(work: Any, server: str) -> Any:
    try:
        import aiohttp
    except ImportError:
        work.close()
        raise TalkingPortraitError("Talking to a ComfyUI server needs aiohttp; run: pip install aiohttp") from None
    try:
        return asyncio.run(work)
    except aiohttp.InvalidURL:
        raise ServerUnreachableError(f"{server} is no address; give one like http://127.0.0.1:8188.") from None
    except (aiohttp.ClientConnectionError, asyncio.TimeoutError) as error:
        raise ServerUnreachableError(
            f"No ComfyUI answers at {server} ({error or type(error).__name__}); start it or correct the address."
        ) from None
    except TalkingPortraitError:
        raise
    except (aiohttp.ClientPayloadError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ServerUnreachableError(
            f"{server} did not answer as ComfyUI does ({type(error).__name__}: {error}); check the address."
        ) from None
    except aiohttp.ClientResponseError as error:
        raise ServerUnreachableError(
            f"{error.request_info.url} answered {error.status} {error.message}, but ComfyUI's API was expected; "
            "check the address."
        ) from None


def _session(server: str) -> Any:
    import aiohttp

    if not server.startswith(("http://", "https://")):
        raise ServerUnreachableError(f"{quoted(server)} is no address; give one like http://127.0.0.1:8188.")
    # No limit on the whole of a request, as videos take their time; only on silence.
    patience = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=120)
    return aiohttp.ClientSession(server.rstrip("/") + "/", timeout=patience)


async def _get_json(http: Any, path: str) -> Any:
    async with http.get(path.lstrip("/")) as response:
        response.raise_for_status()
        return await response.json()


class _Client:
    def __init__(self, server: str, node_info: NodeInfo, out: Path, timeout: float, report: Report) -> None:
        self.server, self.node_info, self.out, self.report = server, node_info, out, report
        self.deadline = time.monotonic() + timeout
        self.timeout = timeout
        self.client_id = uuid.uuid4().hex
        self.warnings: list[str] = []
        self.titles: dict[str, str] = {}

    async def run(self, prompt: Prompt, files: Mapping[str, Path]) -> ServerRun:
        for node, entry in prompt.items():
            kind = entry["class_type"]
            named = entry.get("_meta", {}).get("title") or self.node_info.get(kind, {}).get("display_name")
            self.titles[node] = str(named or kind)
        async with _session(self.server) as http:
            prompt = await self._with_uploads(http, prompt, files)
            async with http.ws_connect("ws", params={"clientId": self.client_id}, max_msg_size=0) as socket:
                number = await self._queue(http, prompt)
                try:
                    await self._follow(http, socket, number)
                except (asyncio.CancelledError, ServerTimeoutError):
                    await self._withdraw(http, number)
                    raise
            outputs = await self._outputs(http, number)
            found = [await self._download(http, entry) for entry in _files_of(outputs)]
            return ServerRun(found, self.warnings)

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
                    async with http.post("upload/image", data=form) as response:
                        response.raise_for_status()
                        stored = await response.json()
                names[value] = str(PurePosixPath(stored.get("subfolder") or "", stored["name"]))
            result[node]["inputs"][name] = names[value]
        return result

    async def _queue(self, http: Any, prompt: Prompt) -> str:
        async with http.post("prompt", json={"prompt": prompt, "client_id": self.client_id}) as response:
            if response.status not in (200, 400):
                response.raise_for_status()
            answer = await response.json()
        lines = self._error_lines(answer.get("node_errors") or {})
        if "prompt_id" not in answer:
            error = answer.get("error") or {}
            summary = error.get("message", str(error)) if isinstance(error, dict) else str(error)
            if not lines and isinstance(error, dict) and error.get("details"):
                lines = [f"  {error['details']}"]
            raise ServerRefusedError("\n".join([f"ComfyUI refused the workflow: {summary}", *lines]))
        if lines:
            self.warnings = ["ComfyUI left out a part of the workflow:", *lines]
        return answer["prompt_id"]

    async def _follow(self, http: Any, socket: Any, number: str) -> None:
        """Returns when the run has succeeded; raises when it ends in any other way."""
        import aiohttp

        while True:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise ServerTimeoutError(
                    f"The run took longer than {self.timeout:g} s and was interrupted; allow more with --timeout."
                )
            try:
                message = await socket.receive(timeout=min(left, 30))
            except asyncio.TimeoutError:
                # Silence is normal in a long queue; a run whose end message was missed is in the history.
                if await self._finished(http, number):
                    return
                continue
            if message.type == aiohttp.WSMsgType.TEXT:
                if self._handle(json.loads(message.data), number):
                    return
            elif message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR):
                if await self._finished(http, number):
                    return
                raise ServerUnreachableError(f"{self.server} closed the connection while it worked; look at its log.")

    def _handle(self, message: Mapping[str, Any], number: str) -> bool:
        """Handles one message; True when the run has succeeded."""
        kind, data = message.get("type"), message.get("data") or {}
        if data.get("prompt_id") not in (None, number):
            return False
        if kind == "executing" and data.get("node") is not None:
            self.report(self._title(data["node"]), 0, 0)
        elif kind == "progress" and data.get("node") is not None:
            self.report(self._title(data["node"]), int(data["value"]), int(data["max"]))
        elif kind == "execution_error":
            raise ServerError(self._failure(data))
        elif kind == "execution_interrupted":
            raise ServerInterruptedError(f"The run was interrupted at {self._title(data.get('node_id'))}.")
        return kind == "execution_success"

    async def _finished(self, http: Any, number: str) -> bool:
        entry = (await _get_json(http, f"/history/{number}")).get(number)
        if entry is None:
            return False
        status = entry.get("status") or {}
        if status.get("status_str") == "error":
            messages: dict[str, Any] = dict(status.get("messages", []))
            for kind in ("execution_interrupted", "execution_error"):
                if kind in messages:
                    self._handle({"type": kind, "data": messages[kind]}, number)
            raise ServerError("The run failed, but ComfyUI's history does not say why; look at its log.")
        return True

    async def _withdraw(self, http: Any, number: str) -> None:
        for path, body in (("queue", {"delete": [number]}), ("interrupt", {"prompt_id": number})):
            with suppress(Exception):
                async with http.post(path, json=body):
                    pass

    async def _outputs(self, http: Any, number: str) -> dict[str, Any]:
        # The success message is sent just before the history is written.
        for _ in range(200):
            entry = (await _get_json(http, f"/history/{number}")).get(number)
            if entry is not None:
                return entry.get("outputs") or {}
            await asyncio.sleep(0.05)
        raise ServerError("ComfyUI reports success but keeps no history of the run; look at its log.")

    async def _download(self, http: Any, entry: Mapping[str, str]) -> Path:
        import aiohttp

        named = PurePosixPath(entry["subfolder"].replace("\\", "/"), entry["filename"].replace("\\", "/"))
        parts = [part for part in named.parts if part != ".." and not {"/", ":"} & set(part)]
        target = self.out.joinpath(*(parts or ["result"]))
        try:
            with folder_for_results(target.parent), free_name(target) as place, replacing(place) as partial:
                async with http.get("view", params=dict(entry)) as response:
                    response.raise_for_status()
                    with partial.open("wb") as file:
                        async for block in response.content.iter_chunked(1 << 20):
                            file.write(block)
            return place
        except aiohttp.ClientError:
            raise
        except OSError as error:
            raise ServerError(
                f"{target} can't be written ({error.strerror}); free some space or name another folder with --out."
            ) from None

    def _title(self, node: Any) -> str:
        return self.titles.get(str(node), f"node {node}")

    def _failure(self, data: Mapping[str, Any]) -> str:
        title = self._title(data.get("node_id"))
        message = str(data.get("exception_message") or "no reason was given").strip()
        kind = str(data.get("exception_type") or "").rpartition(".")[2]
        if message.startswith(title):
            return message
        return f"{title}: {message}" if kind in ("", "TalkingPortraitError") else f"{title}: {kind}: {message}"

    def _error_lines(self, node_errors: Mapping[str, Any]) -> list[str]:
        """One line for each thing that validation found."""
        return [
            f"  {self._title(node)} (node {node}): {error.get('message', '')}"
            + (f": {error['details']}" if error.get("details") else "")
            for node, found in node_errors.items()
            for error in found.get("errors", [])
        ]


def _files_of(outputs: Mapping[str, Any]) -> list[dict[str, str]]:
    """Files that a run saved; previews only when it saved nothing."""
    entries = [
        {"filename": item["filename"], "subfolder": item.get("subfolder") or "", "type": item.get("type") or "output"}
        for values in outputs.values()
        for items in values.values()
        if isinstance(items, list)
        for item in items
        if isinstance(item, dict) and item.get("filename")
    ]
    return [entry for entry in entries if entry["type"] == "output"] or entries
