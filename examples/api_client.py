#!/usr/bin/env python3
"""Makes a talking video on a running ComfyUI through its HTTP API, with Python's standard library alone.

    python examples/api_client.py --image portrait.jpg --audio voice.wav --out videos
    python examples/api_client.py WORKFLOW.json --server http://127.0.0.1:8188 --set 4.seed=7 --out videos

WORKFLOW is a graph in API format; without one, the one of example_workflows/api that takes a picture and a voice. The
picture and the voice are uploaded and put into the graph's Load Image and Load Audio. To copy from: each step of the
API is one method of `ComfyUI`. `python -m talking_portrait run --server` does the same and more.
"""

from __future__ import annotations

import argparse
import http.client
import json
import mimetypes
import shutil
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

WORKFLOW = Path(__file__).resolve().parent.parent / "example_workflows" / "api" / "a_your_picture_and_voice.json"
LOADERS = {"image": ("LoadImage", "image"), "audio": ("LoadAudio", "audio")}
POLL_SECONDS = 0.5
Graph = dict[str, dict[str, Any]]


class ClientError(Exception):
    """What went wrong, in one sentence."""


class ComfyUI:
    """A server's API: upload, queue, progress, results."""

    def __init__(self, address: str, timeout: float = 60.0) -> None:
        self.address = address.rstrip("/")
        self.timeout = timeout
        if not self.address.startswith(("http://", "https://")):
            raise ClientError(f"The server is {address!r}, but an address such as http://127.0.0.1:8188 is expected.")

    def upload(self, path: Path) -> str:
        """Puts a file into the server's input folder; returns the name it has there. Sounds go the same way."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ClientError(f"{path} can't be read ({error.strerror}); give another file.") from None
        boundary = uuid.uuid4().hex
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        name = path.name.replace("\\", "_").replace('"', "%22").replace("\r", "_").replace("\n", "_")
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"'
        body = f"{head}\r\nContent-Type: {kind}\r\n\r\n".encode() + content + f"\r\n--{boundary}--\r\n".encode()
        stored = self._json("/upload/image", "name", body=body, kind=f"multipart/form-data; boundary={boundary}")
        return "/".join(part for part in (stored.get("subfolder"), stored["name"]) if part)

    def queue(self, graph: Graph) -> str:
        """Puts a graph at the end of the queue; returns the number of the run."""
        body = json.dumps({"prompt": graph, "client_id": uuid.uuid4().hex}).encode()
        return str(self._json("/prompt", "prompt_id", body=body, kind="application/json")["prompt_id"])

    def place_in_queue(self, run: str) -> int | None:
        """How many runs come before this one: 0 while it runs, None when it is not in the queue any more."""
        queue = self._json("/queue", "queue_running", "queue_pending")
        waiting = [*queue["queue_running"], *sorted(queue["queue_pending"], key=lambda entry: entry[0])]
        numbers = [entry[1] for entry in waiting]
        return numbers.index(run) if run in numbers else None

    def history(self, run: str) -> dict[str, Any] | None:
        """What became of a run; None while it waits or runs."""
        return self._json(f"/history/{run}").get(run)

    def wait(self, run: str, say: Callable[[str], None], timeout: float) -> dict[str, Any]:
        """Follows a run to its end; returns its outputs by node. Takes it off the queue if that takes too long."""
        end = time.monotonic() + timeout
        said = ""
        while (ended := self.history(run)) is None:
            place = self.place_in_queue(run)
            line = {None: said, 0: "running"}.get(place, f"waiting behind {place}")
            if line != said:
                say(line)
                said = line
            if time.monotonic() > end:
                self.withdraw(run)
                raise ClientError(f"The run took longer than {timeout:g} s and was stopped; allow more with --timeout.")
            time.sleep(POLL_SECONDS)
        raise_if_failed(ended["status"])
        return dict(ended["outputs"])

    def withdraw(self, run: str) -> None:
        """Takes a run off the queue, or interrupts it."""
        body = json.dumps({"delete": [run]}).encode()
        self._request("/queue", body, "application/json").close()
        body = json.dumps({"prompt_id": run}).encode()
        self._request("/interrupt", body, "application/json").close()

    def download(self, file: dict[str, str], folder: Path) -> Path:
        """Fetches one result into a folder, under a name that is not there yet; returns its path."""
        with self._request(f"/view?{urllib.parse.urlencode(file)}") as answer:
            out = new_file(folder, Path(file["filename"].replace("\\", "/")).name)
            target = Path(out.name)
            try:
                with out:
                    shutil.copyfileobj(answer, out)
            except (OSError, http.client.HTTPException) as error:
                target.unlink(missing_ok=True)
                raise ClientError(
                    f"{target} can't be fetched ({error}); see to space and network, and try again."
                ) from None
        return target

    def _json(self, path: str, *keys: str, body: bytes | None = None, kind: str = "") -> dict[str, Any]:
        """A JSON answer that has these keys."""
        with self._request(path, body, kind) as answer:
            try:
                found = json.load(answer)
            except (ValueError, OSError, http.client.HTTPException):
                found = None
        if not isinstance(found, dict) or not found.keys() >= set(keys):
            raise ClientError(f"{self.address}{path} is no ComfyUI's answer; correct the address.")
        return found

    def _request(self, path: str, body: bytes | None = None, kind: str = "") -> Any:
        headers = {"Content-Type": kind} if kind else {}
        try:
            request = urllib.request.Request(self.address + path, body, headers)
            return urllib.request.urlopen(request, timeout=self.timeout)
        except urllib.error.HTTPError as error:
            raise ClientError(refusal(error.code, error.read())) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = " ".join(str(getattr(error, "reason", None) or error or type(error).__name__).split())
            raise ClientError(f"No ComfyUI answers at {self.address} ({reason}); start it or correct it.") from None


def refusal(code: int, body: bytes) -> str:
    """Why the server refused a request, in a sentence; a refused graph names each node's first complaint."""
    try:
        told = json.loads(body)
        complaints = [
            f"{entry['class_type']} (node {node}): {entry['errors'][0]['message']}: {entry['errors'][0]['details']}"
            for node, entry in told.get("node_errors", {}).items()
        ]
        reason = "; ".join(complaints) or told["error"]["message"]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        reason = f"HTTP status {code}"
    return f"ComfyUI refused it ({' '.join(str(reason).split())}); correct the graph or its settings."


def raise_if_failed(status: dict[str, Any]) -> None:
    """Raises ClientError for a run that failed or was interrupted."""
    reasons = []
    for entry in status.get("messages") or []:
        kind, message = entry if isinstance(entry, list) and len(entry) == 2 else ("", entry)
        if kind == "execution_error":
            said = " ".join(str(message["exception_message"]).split())
            raise ClientError(f"The run failed at {message['node_type']} (node {message['node_id']}): {said}")
        if kind == "execution_interrupted":
            raise ClientError("The run was interrupted on the server; queue it again.")
        if isinstance(entry, str):  # a server that hands its runs on to others says in a text what came of it
            reasons.append(" ".join(entry.split()))
    if status.get("status_str") == "error":
        raise ClientError(f"The run failed: {'; '.join(reasons) or 'no reason was given'}; look at the server's log.")


def read_graph(path: Path) -> Graph:
    """A graph in API format."""
    try:
        graph = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ClientError(f"{path} can't be read ({error.strerror}); give a graph in API format.") from None
    except ValueError:
        raise ClientError(f"{path} is no JSON; give a graph in API format.") from None
    if not isinstance(graph, dict) or not all(isinstance(e, dict) and "class_type" in e for e in graph.values()):
        raise ClientError(f"{path} is no graph in API format; save it with Workflow, Export (API).")
    return graph


def set_value(graph: Graph, setting: str) -> None:
    """Sets an input by NODE.INPUT=VALUE; a value that is JSON is taken as such, and else as text."""
    place, equals, text = setting.partition("=")
    node, dot, name = place.partition(".")
    if not equals or not dot:
        raise ClientError(f"--set is {setting!r}, but NODE.INPUT=VALUE is expected, such as 4.seed=7.")
    if name not in graph.get(node, {}).get("inputs", {}):
        raise ClientError(f"The graph has no input {place}; its nodes are {', '.join(graph)}.")
    try:
        graph[node]["inputs"][name] = json.loads(text)
    except ValueError:
        graph[node]["inputs"][name] = text


def loaders(graph: Graph, kind: str) -> list[dict[str, Any]]:
    """The inputs of every node that loads a file of this kind."""
    loader, _ = LOADERS[kind]
    found = [entry["inputs"] for entry in graph.values() if entry["class_type"] == loader]
    if not found:
        raise ClientError(f"The graph has no {loader}, so --{kind} has no place; leave it out or give another graph.")
    return found


def results(outputs: dict[str, Any]) -> list[dict[str, str]]:
    """The files that a run saved, as `ComfyUI.download` takes them."""
    entries = [entry for node in outputs.values() for part in node.values() if isinstance(part, list) for entry in part]
    files = [entry for entry in entries if isinstance(entry, dict) and entry.get("type") == "output"]
    return [{key: str(entry.get(key, "")) for key in ("filename", "subfolder", "type")} for entry in files]


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ClientError(f"The folder {folder} can't be made ({error.strerror}); give another with --out.") from None


def new_file(folder: Path, name: str) -> BinaryIO:
    """A file in a folder that was not there yet, open for writing, whatever else puts files there meanwhile."""
    path, number = folder / (name or "result"), 1
    while True:
        try:
            return path.open("xb")
        except FileExistsError:
            number += 1
            path = folder / f"{Path(name).stem}_{number}{Path(name).suffix}"
        except OSError as error:
            raise ClientError(f"{path} can't be written ({error.strerror}); give another folder with --out.") from None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workflow", nargs="?", type=Path, default=WORKFLOW, help="a graph in API format")
    parser.add_argument("--image", type=Path, help="the portrait")
    parser.add_argument("--audio", type=Path, help="the voice")
    parser.add_argument("--set", action="append", default=[], metavar="NODE.INPUT=VALUE", help="may be given often")
    parser.add_argument("--server", default="http://127.0.0.1:8188")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the results")
    parser.add_argument("--timeout", type=float, default=3600.0, help="seconds that the run may take")
    options = parser.parse_args(arguments)
    try:
        server = ComfyUI(options.server)
        graph = read_graph(options.workflow)
        for setting in options.set:
            set_value(graph, setting)
        make_folder(options.out)
        for kind, path in (("image", options.image), ("audio", options.audio)):
            for inputs in loaders(graph, kind) if path else ():
                inputs[LOADERS[kind][1]] = server.upload(path)
        outputs = server.wait(server.queue(graph), lambda line: print(line, file=sys.stderr), options.timeout)
        for file in results(outputs):
            print(server.download(file, options.out))
    except ClientError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
