"""Fetching one file: resumable, bounded, checked against what is known of it, put in place only when it is whole."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import time
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from ..errors import TalkingPortraitError, reason_of
from ..files.output_paths import folder_for_results
from ..types import Progress, no_progress
from .connection import NotFetchedError, check_address, host_of, opened, refusal
from .contents import fault_of, head_fault

CHUNK = 1 << 20
MAX_BYTES = 10_000_000_000
"""Of a file of which nothing is known."""
SLOWEST, SLOW_SECONDS = 500, 60
"""Bytes a second, over so many seconds, below which a download counts as broken off."""
MAX_TAG = 200


def no_words(line: str) -> None:
    """The default: nobody reads what is said."""


@dataclass(frozen=True)
class Expected:
    """What is known of a file: its exact `size` in bytes, or `about` how large it is, and its `sha256`."""

    name: str
    size: int | None = None
    about: int | None = None
    sha256: str | None = None

    @property
    def most(self) -> int:
        """What it has at most: an approximate size is never off by half."""
        return self.size or (2 * self.about if self.about else MAX_BYTES)

    def fault_of_size(self, size: int) -> str:
        """Why a file of this size is not the one, "" where it may be."""
        if self.size is not None:
            return "" if size == self.size else f"it has {size} bytes and not {self.size}"
        if self.about is not None and not self.about // 2 <= size <= self.most:
            return f"it has {size} bytes and not about {self.about}"
        return "" if size <= self.most else f"it has {size} bytes, more than {self.most}"

    def fault_of(self, path: Path) -> str:
        """Why a whole file is not the one, by all but its checksum, which says more than a look at the content."""
        fault = self.fault_of_size(path.stat().st_size)
        return fault or ("" if self.sha256 else fault_of(path, self.name))


def download(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    about: int | None = None,
    sha256: str | None = None,
    progress: Progress = no_progress,
    say: Callable[[str], None] = no_words,
    allow_http_on_loopback: bool = False,
) -> Path:
    """Fetches `url` to `target` and returns it.

    What has arrived is kept in `.<target>.part`, so that a broken or cancelled download goes on where it stopped; of
    two processes that fetch the same file one waits for the other, of which `say` gets a line.
    Nothing else is touched: a file that has the target's name already is not ours, and refused.
    `progress` counts bytes (total 0 when unknown). The file is refused and deleted when it has another `size` in
    bytes, is far from `about`, or has another SHA-256; without one, the checksum that Hugging Face announces is used,
    if there is one, and else its first bytes have to fit the name's ending.
    Raises NotFetchedError for a target that is there, an unreachable host, a refusal by the server, a body that is too
    short or too long, or a wrong file; TalkingPortraitError for an address that is not https, or a full disk.
    """
    check_address(url, allow_http_on_loopback)
    expected = Expected(target.name, size, about, sha256)
    part = _part_of(target)
    with _disk_errors(target), folder_for_results(target.parent), _only_writer(part, target, say) as waited:
        if os.path.lexists(target):
            if (waited or sha256) and target.is_file() and not _wrong_file(target, expected, None):
                return target  # which another process has fetched
            raise NotFetchedError(
                f"{target} is there, but is not the file that is offered for download; move it elsewhere, or remove "
                "it, and run this again."
            )
        announced = _fetch(url, part, expected, progress, allow_http_on_loopback)
        fault = _wrong_file(part, expected, announced)
        if fault:
            _forget(part)
            raise NotFetchedError(
                f"The file from {host_of(url)} is not {target.name}: {fault}, so it was deleted; try again, and if it "
                "stays so, don't use that source."
            )
        _tag_of(part).unlink(missing_ok=True)  # first, as nothing looks for it once the file is there
        os.replace(part, target)
    return target


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def _wrong_file(path: Path, expected: Expected, announced: str | None) -> str:
    """Why a whole file is not the expected one, "" where it is."""
    fault = expected.fault_of(path)
    checksum = expected.sha256 or announced
    if fault or not checksum:
        return fault
    actual = file_sha256(path)
    return "" if actual == checksum else f"it has the SHA-256 {actual}, but {checksum} is expected"


def _fetch(url: str, part: Path, expected: Expected, progress: Progress, allow_http_on_loopback: bool) -> str | None:
    """Fills `part`; returns the SHA-256 that the host announced, if any."""
    have = part.stat().st_size if part.exists() else 0
    if have > expected.most:
        _forget(part)
        have = 0
    if have and have == expected.size:
        return None
    tag = _stored_tag(part)
    headers = {}
    if have and (tag or expected.sha256):  # a part of another version would be found out by the checksum
        headers = {"Range": f"bytes={have}-", **({"If-Range": tag} if tag else {})}
    try:
        with opened(url, headers, allow_http_on_loopback) as answer:
            span = _span(url, answer, have if headers else 0, expected)
            if span is None:
                raise _OtherPartError
            start, total = span
            _check_room(part, total - start)
            _store_tag(part, str(answer.headers.get("ETag") or ""))
            done, fault = start, ""
            with part.open("ab" if start else "wb") as file:
                for block in _blocks(answer):
                    if done + len(block) > expected.most:
                        fault = f"more comes than the {expected.most} bytes that the file can have"
                    elif not done and not expected.sha256:
                        fault = head_fault(block, expected.name)
                    if fault:
                        break
                    file.write(block)
                    done += len(block)
                    progress(done, max(total, done) if total else 0)
            announced = answer.announced_sha256
    except (urllib.error.HTTPError, _OtherPartError) as error:
        code = error.code if isinstance(error, urllib.error.HTTPError) else 206
        if code not in (206, 416) or not headers:
            raise refusal(url, code, str(getattr(error, "reason", "another part of it"))) from error
        if code == 416 and expected.sha256:  # the part is whole, or of something else, as its checksum says
            return None
        _forget(part)
        return _fetch(url, part, expected, progress, allow_http_on_loopback)
    except (HTTPException, TimeoutError, ConnectionError) as error:
        raise _broken_off(url, part) from error
    if fault:
        _forget(part)
        raise NotFetchedError(
            f"The download of {expected.name} from {host_of(url)} was stopped, as {fault}; try again, and if it stays "
            "so, don't use that source."
        )
    if done < max(total, expected.size or 0):
        raise _broken_off(url, part)
    return announced


class _OtherPartError(Exception):
    """An answer with another part of the file than was requested."""


def _span(url: str, answer: Any, have: int, expected: Expected) -> tuple[int, int] | None:
    """From which byte on an answer has the file, and the file's length, 0 where it is not known; None for another part
    than the one after the `have` bytes that are here.

    Raises NotFetchedError for an answer that has no file, or one of another length.
    """
    if answer.status not in (200, 206):
        raise refusal(url, answer.status, str(answer.reason))
    if (answer.headers.get("Content-Encoding") or "identity").lower() != "identity":
        raise NotFetchedError(f"{host_of(url)} sends the file packed, which was not requested; use another source.")
    length = answer.headers.get("Content-Length")
    if length is not None and not re.fullmatch(r"\d{1,18}", length.strip()):
        raise NotFetchedError(
            f"{host_of(url)} does not say rightly how long the file is (Content-Length); try again later, or use "
            "another source."
        )
    start = have if answer.status == 206 else 0
    totals = {start + int(length)} if length is not None else set()
    if answer.status == 206:
        stated = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", answer.headers.get("Content-Range") or "")
        if not have or not stated or int(stated[1]) != have:
            return None
        totals |= {int(stated[2]) + 1, *(() if stated[3] == "*" else (int(stated[3]),))}
        if len(totals) > 1:
            return None
    for total in totals:
        if fault := expected.fault_of_size(total):
            raise NotFetchedError(
                f"What {host_of(url)} offers is not {expected.name}, as {fault}; try again, and if it stays so, don't "
                "use that source."
            )
    return start, max(totals, default=expected.size or 0)


def _blocks(answer: Any) -> Iterator[bytes]:
    """The body in pieces, as large as come in about a second; TimeoutError where next to nothing comes."""
    began = time.monotonic()
    arrived = 0
    while True:
        block = bytearray()
        until = time.monotonic() + 1
        while len(block) < CHUNK and time.monotonic() < until:
            try:
                piece = answer.read1(CHUNK - len(block))
            except OSError as error:  # of the network, not of the disk
                raise ConnectionError from error
            if not piece:
                if block:
                    yield bytes(block)
                return
            block += piece
        arrived += len(block)
        now = time.monotonic()
        if now - began > SLOW_SECONDS:
            if arrived < SLOWEST * (now - began):
                raise TimeoutError
            began, arrived = now, 0
        yield bytes(block)


def _stored_tag(part: Path) -> str:
    """The version that a part is of, "" where none is stored that can be sent."""
    with suppress(OSError, ValueError), _tag_of(part).open("rb") as file:
        return _sendable(file.read(MAX_TAG + 1).decode("ascii"))
    return ""


def _store_tag(part: Path, tag: str) -> None:
    _tag_of(part).write_text(_sendable(tag))


def _sendable(tag: str) -> str:
    """A strong ETag as it is, anything else as ""."""
    return tag if len(tag) <= MAX_TAG and re.fullmatch(r'"[!#-~]*"', tag) else ""


@contextmanager
def _only_writer(part: Path, target: Path, say: Callable[[str], None]) -> Iterator[bool]:
    """Keeps other processes that fetch the same file waiting; gives whether this one had to.

    Each try opens the lock's file anew, as the one before removes it. A killed process holds no lock.
    """
    from filelock import FileLock, Timeout

    place = _lock_of(part)
    waited = False
    while True:
        lock = FileLock(place, timeout=0)
        try:
            lock.acquire()
            break
        except Timeout:
            if not waited:
                say(f"Another process is fetching {target.name}; waiting for it.")
            waited = True
            time.sleep(0.2)
        except (NotImplementedError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _WITHOUT_LOCKS:
                raise
            break
    try:
        yield waited
    finally:
        _remove_lock(lock, place)


def clear_lock(target: Path) -> None:
    """Removes the lock of a process that was killed when it had just put `target` in its place."""
    from filelock import FileLock

    place = _lock_of(_part_of(target))
    if place.is_file():
        lock = FileLock(place, timeout=0)
        with suppress(OSError, NotImplementedError):  # another process holds it, or the folder takes no changes
            lock.acquire()
            _remove_lock(lock, place)


def _remove_lock(lock: Any, place: Path) -> None:
    if os.name == "posix":  # elsewhere an open file can't be removed
        place.unlink(missing_ok=True)
    lock.release()
    if os.name != "posix":
        with suppress(OSError):  # another process has it open
            place.unlink()


_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What some network drives answer, which have no locks."""


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
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _forget(_part_of(target))
            raise TalkingPortraitError(
                f"The disk that holds {target.parent} is full ({reason_of(error)}); make room and run it again."
            ) from error
        raise TalkingPortraitError(
            f"{target} can't be written ({reason_of(error)}); check the folder's permissions, "
            "or choose another with TALKING_PORTRAIT_MODELS."
        ) from error


def _broken_off(url: str, part: Path) -> NotFetchedError:
    size = part.stat().st_size if part.exists() else 0
    return NotFetchedError(
        f"The download from {host_of(url)} broke off after {size} bytes; run it again, and it continues from there."
    )


def _part_of(target: Path) -> Path:
    """Hidden, as what browsers and other programs have begun to fetch is called `<target>.part` too."""
    return target.with_name(f".{target.name}.part")


def _tag_of(part: Path) -> Path:
    return part.with_name(part.name + ".tag")


def _lock_of(part: Path) -> Path:
    return part.with_name(part.name + ".lock")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag_of(part).unlink(missing_ok=True)
