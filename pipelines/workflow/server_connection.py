"""Talking to a server: its answers are bounded in size and time, of the right types, and never from somewhere else."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import ssl
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from ..errors import TalkingPortraitError, one_line, quoted, reason_of
from ..packages import pip_install

Answer = TypeVar("Answer")

MAX_ANSWER = 64_000_000
"""Bytes of one JSON answer; the longest, /object_info, has some 10 MB with many packs."""
ANSWER_SECONDS = 60.0
"""Longest wait for one; the first /object_info after a start takes its time."""
SLOWEST, SLOW_SECONDS = 500, 60.0
"""Bytes a second, over so many seconds, below which a body counts as one that does not come."""
MAX_MESSAGE = 64_000_000
"""Bytes of one message; the longest carry preview pictures."""
SILENCE_SECONDS = 60.0


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


def run_connected(work: Coroutine[Any, Any, Answer], server: str) -> Answer:
    """Runs `work`; whatever goes wrong with the connection becomes one sentence."""
    try:
        import aiohttp
    except ImportError:
        work.close()
        raise TalkingPortraitError(
            f"Talking to a ComfyUI server needs aiohttp; run: {pip_install('aiohttp')}"
        ) from None
    shown = _shown(server)
    try:
        found = asyncio.run(_until_interrupted(work))
        if found:
            return found[0]
        raise KeyboardInterrupt
    except TalkingPortraitError:
        raise
    except aiohttp.InvalidURL:
        raise ServerUnreachableError(f"{shown} is no address; give one like http://127.0.0.1:8188.") from None
    except (asyncio.TimeoutError, aiohttp.ServerTimeoutError):
        raise ServerUnreachableError(
            f"No ComfyUI answers at {shown} in time; start it or correct the address."
        ) from None
    except (aiohttp.ClientConnectionError, OSError) as error:
        raise ServerUnreachableError(
            f"No ComfyUI answers at {shown} ({_reason(error)}); start it or correct the address."
        ) from None
    except aiohttp.ClientResponseError as error:
        where = one_line(error.request_info.url.path, 160)
        raise ServerUnreachableError(
            f"{shown} answered {where} with {error.status} {one_line(error.message, 160)}, but ComfyUI's API was "
            "expected; check the address."
        ) from None
    except (aiohttp.ClientError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        reason = one_line(f"{type(error).__name__}: {error}", 160)
        raise ServerUnreachableError(f"{shown} did not answer as ComfyUI does ({reason}); check the address.") from None


def _reason(error: Exception) -> str:
    """Why there is no connection, in the system's words: asyncio and aiohttp put the address in their place."""
    cause = getattr(error, "os_error", error)
    number = getattr(cause, "errno", None) or 0
    return os.strerror(number) if number > 0 and not isinstance(cause, ssl.SSLError) else reason_of(cause)


async def _until_interrupted(work: Coroutine[Any, Any, Answer]) -> list[Answer]:
    """What `work` returns, in a list; an empty one when a signal has ended it, which may clean up then.

    An exception of a signal handler would hit any task, and asyncio would print a traceback of it.
    """
    task, loop = asyncio.ensure_future(work), asyncio.get_running_loop()
    before: dict[int, Any] = {}
    asked: list[int] = []

    def stop() -> None:
        asked.append(1)
        task.cancel()

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and callable(handler := signal.getsignal(number)):
            with suppress(NotImplementedError, RuntimeError, ValueError):  # on Windows, and in other threads
                loop.add_signal_handler(number, stop)
                before[number] = handler
    try:
        return [await task]
    except asyncio.CancelledError:
        if asked:
            return []
        raise
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


def open_session(server: str) -> Any:
    """A session with the server. Its requests have no limit on their whole time, as videos take theirs; only on
    silence. None follows a redirect, which may lead to anywhere."""
    import aiohttp

    if not server.startswith(("http://", "https://")):
        raise ServerUnreachableError(f"{quoted(server)} is no address; give one like http://127.0.0.1:8188.")
    patience = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=SILENCE_SECONDS)
    trace = aiohttp.TraceConfig()

    async def refuse(session: Any, context: Any, request: Any) -> None:
        place = one_line(request.response.headers.get("Location", "nowhere"), 160)
        raise ServerUnreachableError(
            f"{_shown(server)} passes requests on to {place}; give the address that answers itself with --server."
        )

    trace.on_request_redirect.append(refuse)
    return aiohttp.ClientSession(
        server.split("?")[0].split("#")[0].rstrip("/") + "/",
        timeout=patience,
        trace_configs=[trace],
        headers={"Accept-Encoding": "identity"},
    )


async def get_json(http: Any, path: str, within: float = ANSWER_SECONDS) -> dict[str, Any]:
    """An answer of the API. Raises ServerUnreachableError for one that is none."""
    return await _json_of(http.get(path), within=within)


async def post_json(
    http: Any, path: str, *, allowed: tuple[int, ...] = (200,), within: float = ANSWER_SECONDS, **body: Any
) -> dict[str, Any]:
    """The answer to what is posted; `allowed` are the statuses of answers that say something."""
    return await _json_of(http.post(path, **body), allowed, within)


async def _json_of(request: Any, allowed: tuple[int, ...] = (200,), within: float = ANSWER_SECONDS) -> dict[str, Any]:
    async def read() -> dict[str, Any]:
        async with request as response:
            if response.status not in allowed:
                response.raise_for_status()
                raise _not_comfyui(response, f"its status is {response.status}")
            body = bytearray()
            async for block in response.content.iter_chunked(1 << 16):
                body += block
                if len(body) > MAX_ANSWER:
                    raise _not_comfyui(response, f"it has more than {MAX_ANSWER // 10**6} MB")
            content = parsed(body)
            if not isinstance(content, dict):
                raise _not_comfyui(response, "it is no JSON object")
            return content

    return await asyncio.wait_for(read(), within)


async def blocks_of(response: Any) -> AsyncIterator[bytes]:
    """The body in pieces; asyncio.TimeoutError where next to nothing comes."""
    began, arrived = time.monotonic(), 0
    async for block in response.content.iter_chunked(1 << 20):
        arrived += len(block)
        passed = time.monotonic() - began
        if passed > SLOW_SECONDS:
            if arrived < SLOWEST * passed:
                raise asyncio.TimeoutError
            began, arrived = time.monotonic(), 0
        yield block


def parsed(text: str | bytes | bytearray) -> Any:
    """JSON as values, or None for what is no JSON, or nested beyond measure."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def text_of(value: Any, default: str = "") -> str:
    """A value that should be text, or `default` where it is none."""
    return value if isinstance(value, str) else default


def table_of(value: Any) -> dict[str, Any]:
    """A value that should be a JSON object, or an empty one."""
    return value if isinstance(value, dict) else {}


def list_of(value: Any) -> list[Any]:
    """A value that should be a list, or an empty one."""
    return value if isinstance(value, list) else []


def _not_comfyui(response: Any, reason: str) -> ServerUnreachableError:
    return ServerUnreachableError(
        f"The answer to {one_line(response.url.path, 160)} is none of ComfyUI's ({reason}); check the address and the "
        "server's log."
    )


def _shown(server: str) -> str:
    """The address for a sentence: a password in it is left out."""
    return one_line(re.sub(r"//[^/@]*@", "//", server), 160)
