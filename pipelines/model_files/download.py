"""Fetching one file: resumable, checked against its checksum, put in place only when it is whole."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import re
import shutil
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from ..errors import TalkingPortraitError
from ..types import Progress, no_progress

CHUNK = 1 << 20
TIMEOUT = 30
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class UnreachableError(TalkingPortraitError):
    """The host could not be reached at all, so files of other hosts may still be fetched."""


def download(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    progress: Progress = no_progress,
    allow_http_on_loopback: bool = False,
) -> Path:
    """Fetches `url` to `target` and returns it.

    What has arrived is kept in `.<target>.part`, so that a broken or cancelled download goes on where it stopped.
    Nothing else is touched: a file that has the target's name already is not ours, and refused.
    `progress` counts bytes (total 0 when unknown). The file is refused and deleted when its SHA-256 is not `sha256`;
    without one, the checksum that Hugging Face announces is used, if there is one.
    Raises TalkingPortraitError for a target that is there, an address that is not https, an unreachable host
    (UnreachableError), a refusal by the server, a short body, a full disk, or a wrong checksum.
    """
    _check_address(url, allow_http_on_loopback)
    if os.path.lexists(target):
        raise TalkingPortraitError(
            f"{target} is there, but is not the file that is offered for download; move it elsewhere, or remove it, "
            "and run this again."
        )
    part = _part_of(target)
    with _disk_errors(target):
        announced = _fetch(url, part, size, bool(sha256), progress, allow_http_on_loopback)
        expected = sha256 or announced
        actual = file_sha256(part) if expected else ""
        if actual != (expected or ""):
            _forget(part)
            raise TalkingPortraitError(
                f"The file from {_host(url)} has the SHA-256 {actual}, but {expected} is expected, so it was deleted; "
                "try again, and if it stays so, don't use that source."
            )
        os.replace(part, target)
        _forget(part)
    return target


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def _fetch(
    url: str, part: Path, size: int | None, pinned: bool, progress: Progress, allow_http_on_loopback: bool
) -> str | None:
    """Fills `part`; returns the SHA-256 that the host announced, if any."""
    tag_file = part.with_name(part.name + ".tag")
    have = part.stat().st_size if part.exists() else 0
    headers = {}
    if have:
        tag = tag_file.read_text() if tag_file.exists() else ""
        if tag:
            headers = {"Range": f"bytes={have}-", "If-Range": tag}
        elif pinned:  # a part of another version would be found out by the checksum
            headers = {"Range": f"bytes={have}-"}
    try:
        with _open(url, headers, allow_http_on_loopback) as answer:
            resumed = answer.status == 206 and str(answer.headers.get("Content-Range", "")).startswith(f"bytes {have}-")
            have = have if resumed else 0
            total = have + int(answer.headers.get("Content-Length") or 0)
            total = total if total > have else (size or 0)
            part.parent.mkdir(parents=True, exist_ok=True)
            _check_room(part, total - have)
            tag = answer.headers.get("ETag") or ""
            tag_file.write_text("" if tag.startswith("W/") else tag)
            with part.open("ab" if resumed else "wb") as file:
                while block := answer.read(CHUNK):
                    file.write(block)
                    have += len(block)
                    progress(have, max(total, have) if total else 0)
            announced = answer.announced_sha256
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:
            # Nothing is left to send: the part is whole, or it is of something else and its checksum says so.
            return None
        raise _refusal(url, error) from error
    except (HTTPException, TimeoutError, ConnectionError) as error:
        raise _broken_off(url, part) from error
    if total and have < total:
        raise _broken_off(url, part)
    return announced


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https only, and remembers the checksum that Hugging Face announces on the way."""

    def __init__(self, allow_http_on_loopback: bool) -> None:
        self.announced: str | None = None
        self._allow = allow_http_on_loopback

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        _check_address(newurl, self._allow)
        tag = str(headers.get("X-Linked-ETag") or "").strip('"')
        if re.fullmatch(r"[0-9a-f]{64}", tag):
            self.announced = tag
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and urlsplit(newurl).netloc != urlsplit(req.full_url).netloc:
            request.headers.pop("Authorization", None)
        return request


@contextmanager
def _open(url: str, headers: dict[str, str], allow_http_on_loopback: bool) -> Iterator[Any]:
    address = urlsplit(url)
    if address.username:
        secret = f"{unquote(address.username)}:{unquote(address.password or '')}"
        headers = {**headers, "Authorization": "Basic " + base64.b64encode(secret.encode()).decode()}
        url = urlunsplit(address._replace(netloc=address.netloc.rsplit("@", 1)[1]))
    redirects = _Redirects(allow_http_on_loopback)
    context = ssl.create_default_context()
    for variable in ("PIP_CERT", "REQUESTS_CA_BUNDLE"):
        if os.path.isfile(os.environ.get(variable, "")):
            context.load_verify_locations(os.environ[variable])
    opener = urllib.request.build_opener(redirects, urllib.request.HTTPSHandler(context=context))
    request = urllib.request.Request(url, headers={"User-Agent": "talking-portrait", **headers})
    try:
        answer = opener.open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError:
        raise
    except (urllib.error.URLError, TimeoutError, ConnectionError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, OSError) and reason.errno == errno.ENOSPC:
            raise reason from error
        raise UnreachableError(
            f"{_host(url)} can't be reached ({reason}); check the connection or the proxy, or fetch the file elsewhere "
            "and put it into the model folder."
        ) from error
    with answer:
        answer.announced_sha256 = redirects.announced
        yield answer


def _check_address(url: str, allow_http_on_loopback: bool) -> None:
    address = urlsplit(url)
    if address.scheme == "https" and address.hostname:
        return
    if address.scheme == "http" and address.hostname in LOOPBACK and allow_http_on_loopback:
        return
    raise TalkingPortraitError(
        f"The address {address.scheme}://{address.hostname or ''} was refused: files are fetched over https only."
    )


def _check_room(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed} bytes are needed and {free} are free")


@contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    """Raises one sentence on why a file could not be written; a full disk gets its part download back."""
    try:
        yield
    except OSError as error:
        if isinstance(error, (urllib.error.URLError, TimeoutError, ConnectionError)):
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _forget(_part_of(target))
            raise TalkingPortraitError(
                f"The disk that holds {target.parent} is full ({error.strerror}); make room and run it again."
            ) from error
        raise TalkingPortraitError(
            f"{target} can't be written ({error.strerror or error}); check the folder's permissions, "
            "or choose another with TALKING_PORTRAIT_MODELS."
        ) from error


def _refusal(url: str, error: urllib.error.HTTPError) -> TalkingPortraitError:
    if error.code in (401, 403):
        return TalkingPortraitError(
            f"{_host(url)} does not give the file out ({error.code}); it may need an account or an accepted licence: "
            "open its page in a browser, fetch it there, and put it into the model folder."
        )
    if error.code == 404:
        return TalkingPortraitError(f"{_host(url)} does not have the file (404); look at its page for where it is now.")
    return TalkingPortraitError(f"{_host(url)} answered {error.code} ({error.reason}); try again later.")


def _broken_off(url: str, part: Path) -> TalkingPortraitError:
    size = part.stat().st_size if part.exists() else 0
    return TalkingPortraitError(
        f"The download from {_host(url)} broke off after {size} bytes; run it again, and it goes on from there."
    )


def _part_of(target: Path) -> Path:
    """Hidden, as what browsers and other programs have begun to fetch is called `<target>.part` too."""
    return target.with_name(f".{target.name}.part")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_name(part.name + ".tag").unlink(missing_ok=True)


def _host(url: str) -> str:
    return urlsplit(url).hostname or "the server"
