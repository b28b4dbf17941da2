"""Hidden folders for what is unfinished: each writer has one of its own, and what killed ones left is cleared."""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import TalkingPortraitError, reason_of

_MARK = "talking_portrait.lock"
"""The file in each of them that says whose it is; locked as long as its writer lives."""
_NAME = re.compile(r"\..{0,40}\.[a-z0-9_]{8}\.part", re.DOTALL)
_STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def scratch_folder(folder: Path, name: str) -> Iterator[Path]:
    """A hidden folder in `folder`, named after what is to become of it, that is gone with all in it after the block.

    Where a process was killed, its folder goes with the next one that is made in the same place. Raises OSError where
    none can be made.
    """
    clear_abandoned(folder)
    with ExitStack() as stack:
        with interruptions_held():
            place = _locked(folder, name, stack)
        yield place


@contextmanager
def temporary_folder(name: str, folder: Path | None = None) -> Iterator[Path]:
    """As `scratch_folder`, by default in the system's place for temporary files.

    Raises TalkingPortraitError where none can be made.
    """
    with ExitStack() as stack:
        try:
            place = stack.enter_context(scratch_folder(folder or Path(tempfile.gettempdir()), name))
        except OSError as error:
            raise TalkingPortraitError(
                f"There is no room for temporary files ({reason_of(error)}); free some space and try again."
            ) from None
        yield place


def _locked(folder: Path, name: str, stack: ExitStack) -> Path:
    """A new folder with its lock, both given to the stack."""
    from filelock import FileLock

    while True:
        place = Path(tempfile.mkdtemp(prefix=f".{name[-40:]}.", suffix=".part", dir=folder))
        stack.callback(_remove, place)
        lock = FileLock(place / _MARK)
        stack.callback(lock.release)
        stack.callback(_empty, place)
        with suppress(OSError, NotImplementedError):  # where files can't be locked, no other process removes it
            lock.acquire()
        if (place / _MARK).exists() or (place.is_dir() and not lock.is_locked):
            return place  # else somebody took it for a dead one's before it was locked


def _empty(place: Path) -> None:
    """Removes all but the mark, by which the folder is known when this process is killed meanwhile."""
    with interruptions_held(), suppress(OSError):
        for entry in list(os.scandir(place)):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            elif entry.name != _MARK:
                with suppress(OSError):
                    os.unlink(entry.path)


def _remove(place: Path) -> None:
    """Removes a folder that holds at most its mark; where a program still writes into it, the mark stays as well."""
    with interruptions_held(), suppress(OSError):
        if os.listdir(place) in ([], [_MARK]):
            (place / _MARK).unlink(missing_ok=True)
            place.rmdir()


def clear_abandoned(folder: Path) -> None:
    """Removes what killed processes left in `folder`; one that lives holds the lock of its own.

    A folder that is empty was left before it was locked or after all else in it was removed. Where its maker lives, it
    makes another one.
    """
    from filelock import FileLock

    try:
        names = [entry.name for entry in os.scandir(folder) if _NAME.fullmatch(entry.name)]
    except OSError:
        return  # whoever makes a folder there says why that fails
    for place in (folder / name for name in names):
        mark = place / _MARK
        if place.is_symlink() or mark.is_symlink():  # in /tmp others may have made links
            continue
        if not mark.is_file():
            with suppress(OSError):  # it is not empty, or another's
                place.rmdir()
            continue
        lock = FileLock(mark, timeout=0)
        with suppress(OSError, NotImplementedError):  # a lock that another process holds is a TimeoutError
            lock.acquire()
            try:
                _empty(place)
            finally:
                lock.release()
            _remove(place)


@contextmanager
def interruptions_held() -> Iterator[None]:
    """Lets SIGINT, SIGTERM and SIGHUP wait until the block is done, so that what it makes is known to who removes it.

    Only the main thread is ever interrupted; elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[tuple[int, Any]] = []
    before = {}
    try:
        for number in _STOPPING:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets SIGHUP
                before[number] = signal.signal(number, lambda *what: held.append(what))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for came, frame in held[:1]:
            handler = before[signal.Signals(came)]
            if callable(handler):
                handler(came, frame)
            else:
                os.kill(os.getpid(), came)
