"""A minimal ComfyUI server for its real front end: our nodes, our files, and a list of received prompts."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

PACK = "talking-portrait"
"""The folder name under which the pack is installed in ComfyUI."""


@dataclass
class StubServer:
    """Serves the front end in `static` with the nodes of `object_info` and the pack's own files below `root`."""

    static: Path
    root: Path
    object_info: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    prompts: list[dict[str, Any]] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    address: str = ""

    def __enter__(self) -> StubServer:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _start(self) -> None:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.address = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path.removeprefix("/api")
        if path == "/ws":
            return await self._websocket(request)
        if request.method == "POST":
            return await self._posted(request, path)
        known = self._known(path)
        if known is not None:
            return web.json_response(known)
        file = self._file(path)
        if file is not None:
            return web.FileResponse(file)
        self.missed.append(f"{request.method} {path}")
        return web.Response(status=404)

    async def _posted(self, request: web.Request, path: str) -> web.Response:
        if path == "/prompt":
            self.prompts.append(await request.json())
            return web.json_response({"prompt_id": f"prompt-{len(self.prompts)}", "number": 0, "node_errors": {}})
        return web.json_response({})

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        status = {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "stub"}
        await socket.send_json({"type": "status", "data": status})
        async for _ in socket:
            pass
        return socket

    def _known(self, path: str) -> Any:
        answers: dict[str, Any] = {
            "/object_info": self.object_info,
            "/users": {"storage": "server", "migrated": True},
            "/settings": {"Comfy.TutorialCompleted": True, "Comfy.Validation.Workflows": True, **self.settings},
            "/system_stats": {
                "system": {"os": "posix", "comfyui_version": "stub", "python_version": "3", "pytorch_version": "2"}
                | {"embedded_python": False, "argv": [], "ram_total": 1, "ram_free": 1},
                "devices": [],
            },
            "/queue": {"queue_running": [], "queue_pending": []},
            "/jobs": {"jobs": [], "pagination": {"offset": 0, "limit": 200, "total": 0, "has_more": False}},
            "/workflow_templates": {PACK: [path.stem for path in self._examples()]},
            "/i18n": self._translations(),
            "/global_subgraphs": {
                path.stem: {"source": "custom_node", "name": path.stem, "info": {"node_pack": f"custom_nodes.{PACK}"}}
                for path in sorted((self.root / "subgraphs").glob("*.json"))
            },
            "/extensions": [],
        }
        empty_lists = ("/embeddings", "/models", "/experiment/models", "/userdata", "/v2/userdata")
        empty_maps = ("/features", "/history", "/node_replacements", "/prompt")
        if path.startswith("/global_subgraphs/"):
            file = self.root / "subgraphs" / f"{path.rsplit('/', 1)[1]}.json"
            return {"source": "custom_node", "name": file.stem, "info": {}, "data": file.read_text(encoding="utf-8")}
        return answers.get(path, [] if path in empty_lists else {} if path in empty_maps else None)

    def _examples(self) -> list[Path]:
        return sorted((self.root / "example_workflows").glob("*.json"))

    def _translations(self) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for file in (self.root / "locales").glob("*/*.json"):
            content = json.loads(file.read_text(encoding="utf-8"))
            language = merged.setdefault(file.parent.name, {})
            language.update(content if file.stem == "main" else {file.stem: content})
        return merged

    def _file(self, path: str) -> Path | None:
        for prefix, folder in (
            (f"/workflow_templates/{PACK}/", self.root / "example_workflows"),
            (f"/extensions/{PACK}/", self.root / "web"),
            ("/", self.static),
        ):
            if path.startswith(prefix):
                file = folder / (path.removeprefix(prefix) or "index.html")
                if file.is_file() and folder.resolve() in file.resolve().parents:
                    return file
        return None
