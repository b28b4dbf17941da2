"""Opening an address: https only, redirects held to the same rule, every refusal one sentence."""

from __future__ import annotations

import base64
import errno
import os
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.client import HTTPException
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from ..errors import TalkingPortraitError, quoted

TIMEOUT = 30
"""Seconds of silence."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class NotFetchedError(TalkingPortraitError):
    """One file does not come, because of its host or of what lies in its place; others may still be fetched."""


@contextmanager
def opened(url: str, headers: dict[str, str], allow_http_on_loopback: bool) -> Iterator[Any]:
    """The answer to a request for an address, its body not yet read; `announced_sha256` is what a redirect named.

    Raises NotFetchedError where no connection comes about, urllib's HTTPError for an answer that is no success, and
    TalkingPortraitError for an address, or one that a redirect leads to, which is not https.
    """
    check_address(url, allow_http_on_loopback)
    address = urlsplit(url)
    if address.username:
        secret = f"{unquote(address.username)}:{unquote(address.password or '')}"
        headers = {**headers, "Authorization": "Basic " + base64.b64encode(secret.encode()).decode()}
        url = urlunsplit(address._replace(netloc=address.netloc.rsplit("@", 1)[1]))
    redirects = _Redirects(allow_http_on_loopback)
    opener = urllib.request.build_opener(redirects, urllib.request.HTTPSHandler(context=_certificates()))
    try:
        request = urllib.request.Request(
            url, headers={"User-Agent": "talking-portrait", "Accept-Encoding": "identity", **headers}
        )
        answer = opener.open(request, timeout=TIMEOUT)
    except (urllib.error.HTTPError, TalkingPortraitError):
        raise
    # The last three: letters or numbers that no address has, in the one given or in one that a redirect leads to.
    except (OSError, HTTPException, ValueError, OverflowError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, OSError) and reason.errno == errno.ENOSPC:
            raise reason from error
        raise NotFetchedError(
            f"{host_of(url)} can't be reached ({_in_one_line(reason)}); check the connection or the proxy, or fetch "
            "the file elsewhere and put it where `models check` looks for it."
        ) from error
    with answer:
        answer.announced_sha256 = redirects.announced
        yield answer


def _certificates() -> ssl.SSLContext:
    """The usual certificates, and those of the user's company; they are read, for 0.1 s, when their files change."""
    own = tuple((variable, os.environ.get(variable, "")) for variable in ("PIP_CERT", "REQUESTS_CA_BUNDLE"))
    usual = ssl.get_default_verify_paths()
    places = (usual.cafile, usual.capath, *(place for _, place in own))
    changed = tuple((place, os.path.getmtime(place)) for place in places if place and os.path.exists(place))
    return _certificates_of(own, changed)


@cache
def _certificates_of(own: tuple[tuple[str, str], ...], changed: tuple[tuple[str, float], ...]) -> ssl.SSLContext:
    """Of `own` by their environment variables; `changed` says when these files, and the usual ones, last did."""
    context = ssl.create_default_context()
    for variable, place in own:
        if os.path.isfile(place):
            try:
                context.load_verify_locations(place)
            except OSError as error:  # ssl's own among them
                raise TalkingPortraitError(
                    f"The certificates in {place}, which {variable} names, can't be read ({_in_one_line(error)}); "
                    "correct that environment variable, or remove it."
                ) from None
    return context


def check_address(url: str, allow_http_on_loopback: bool) -> None:
    """Raises TalkingPortraitError for what is no https address; http counts on this machine, where it is allowed."""
    try:
        address = urlsplit(url)
        address.port  # noqa: B018 (raises for what is no number)
    except ValueError:
        raise TalkingPortraitError(
            f"{without_secret(url)} is no address that can be reached; try again later, or check the address of the "
            "mirror if one is set."
        ) from None
    if address.scheme == "https" and address.hostname:
        return
    if address.scheme == "http" and address.hostname in LOOPBACK and allow_http_on_loopback:
        return
    where = quoted(f"{address.scheme}://{address.hostname or ''}", 100)
    raise TalkingPortraitError(f"The address {where} was refused: files are fetched over https only.")


def host_of(url: str) -> str:
    """The host's name, for a sentence."""
    return urlsplit(url).hostname or "the server"


def without_secret(url: str) -> str:
    """An address for a sentence: a password in it is left out."""
    return quoted(re.sub(r"//[^/@]*@", "//", url), 100)


def refusal(url: str, code: int, reason: str) -> NotFetchedError:
    """What an answer without the file means."""
    if code in (401, 403):
        return NotFetchedError(
            f"{host_of(url)} does not give the file out ({code}); it may need an account or an accepted licence: "
            "open its page in a browser, fetch it there, and put it where `models check` looks for it."
        )
    if code == 404:
        return NotFetchedError(f"{host_of(url)} does not have the file (404); look at its page for where it is now.")
    if 300 <= code < 400:
        return NotFetchedError(
            f"{host_of(url)} passes the request on ({code}), but to nowhere or in a circle; try again later, or check "
            "the address of the mirror if one is set."
        )
    said = f"{code} ({_in_one_line(reason)})" if reason else str(code)
    return NotFetchedError(f"{host_of(url)} answered {said} and not with the file; try again later.")


def _in_one_line(reason: object) -> str:
    """What a server or library said, as text of one short line."""
    return quoted(str(reason) or type(reason).__name__, 160)[1:-1]


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https only, and remembers the checksum that Hugging Face announces on the way."""

    def __init__(self, allow_http_on_loopback: bool) -> None:
        self.announced: str | None = None
        self._allow = allow_http_on_loopback

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        check_address(newurl, self._allow)
        tag = str(headers.get("X-Linked-ETag") or "").strip('"')
        if re.fullmatch(r"[0-9a-f]{64}", tag):
            self.announced = tag
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and urlsplit(newurl).netloc != urlsplit(req.full_url).netloc:
            request.headers.pop("Authorization", None)
        return request
