"""Networks in the memory of a device, and what to do when it runs out: the same work in smaller pieces.

Also how freed memory gets back to the system, and how what is no longer used is closed.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

import torch

from .errors import TalkingPortraitError, is_out_of_memory, quoted
from .progress import check_between_layers

Result = TypeVar("Result")

SECONDS_TO_RETURN = 0.5
"""From the end of a run until what it freed is given back: its error still holds what it worked on."""


class HalvingBatches:
    """How many items are worked on at once: `size`, halved for good each time that memory runs out."""

    def __init__(self, size: int, item: str = "window") -> None:
        """`item` names one in the error."""
        if size < 1:
            raise TalkingPortraitError(f"{size} {item}s are to be computed at once, but at least 1 is expected.")
        self.size, self._item = size, item

    def each(self, count: int, work: Callable[[int, int], Result]) -> Iterator[Result]:
        """`work(start, end)` for consecutive ranges of at most `size`, until all `count` items are done.

        A range that did not fit is tried again at half its size, so `work` must leave nothing half done.
        Raises TalkingPortraitError when not even one item fits.
        """
        start = 0
        while start < count:
            end = min(start + self.size, count)
            fits = True
            try:
                result = work(start, end)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                fits = False
            # Outside the except clause: the error refers to the tensors of the failed work, which are to be freed.
            if not fits:
                self._halve(end - start)
                continue
            yield result
            del result
            start = end

    def _halve(self, tried: int) -> None:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if tried == 1:
            raise TalkingPortraitError(
                f"Memory does not suffice for even one {self._item} at a time; "
                "choose a smaller size or a shorter window, or close what else uses the device."
            ) from MemoryError()
        self.size = tried // 2


def usable_device(name: str) -> torch.device:
    """The device of that name. Raises TalkingPortraitError where torch has none."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, TypeError, ValueError, OverflowError):  # torch has no one error for it
        raise TalkingPortraitError(
            f"Frames can't be computed on {quoted(name)} here, but a device that torch supports is expected; leave the "
            "device out for the CPU."
        ) from None
    return device


class Managed(Protocol):
    """A network that a memory manager moves between devices."""

    @property
    def module(self) -> torch.nn.Module: ...

    def load(self, memory: int = 0) -> torch.device:
        """Brings the network, and room for `memory` bytes of work, to the device it is to run on; returns that."""


Network = TypeVar("Network", bound=torch.nn.Module)


def loaded(managed: Managed, kind: type[Network], memory: int = 0) -> tuple[Network, torch.device]:
    """The network, of the class `kind`, and the device that it is on now, with room for `memory` bytes of work.

    A memory manager may move a network out whenever another one is loaded, a host's VAE for instance. So this is
    called right before each run of a network, and its result is not kept from one run to the next.
    """
    device = managed.load(memory)
    check_between_layers(managed.module)
    if not isinstance(managed.module, kind):
        raise TypeError(f"a {kind.__name__} is expected, not a {type(managed.module).__name__}")
    return managed.module, device


class Resident:
    """`Managed` without a manager: the network goes to `device` at its first use and stays there."""

    def __init__(self, module: torch.nn.Module, device: torch.device | str = "cpu") -> None:
        self.module, self._device = module, torch.device(device)
        self._there = False

    def load(self, memory: int = 0) -> torch.device:
        if not self._there:  # visiting thousands of parameters takes time even where there is nothing to move
            self.module.to(self._device)
            self._there = True
        return self._device


def return_freed_memory() -> None:
    """Gives memory that was freed back to the system, in a moment and in a thread; does nothing where it can't.

    glibc keeps what threads freed in pieces of some megabytes, such as a cancelled run's frames: 1 GB and more.
    """
    if _trim() is None or not _returning.acquire(blocking=False):
        return
    timer = threading.Timer(SECONDS_TO_RETURN, _return_now)
    timer.daemon = True
    try:
        timer.start()
    except RuntimeError:  # no more threads, or the program ends
        _returning.release()


_returning = threading.Lock()
"""Held while one return is due: it serves all runs that end until then."""


def _return_now() -> None:
    _returning.release()
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Any:
    """glibc's function for it, or None in a program with another C library."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # without the function; without a library to ask; on Windows
        return None


def closed_with(owner: object, close: Callable[[], object]) -> Callable[[], None]:
    """Has `close` called once: by what is returned, after `owner` is gone, or when the program ends.

    Objects in a cycle go wherever Python happens to collect them, which may be where a lock is held that `close` takes:
    MediaPipe's tasks close by a thread of theirs, and Python holds such a lock while it starts one. So it is another
    thread that closes what belonged to an owner that was collected.
    """
    finalizer = weakref.finalize(owner, _close_soon, close)
    _closer()

    def close_now() -> None:
        if finalizer.detach() is not None:
            close()

    return close_now


_to_close: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
"""Its `put` may be called while another one is at work in the same thread."""
_collecting = threading.local()
"""`now`: whether Python is collecting cycles in this thread."""
_ending = threading.Event()
SECONDS_TO_END = 10
"""At most, for what is being closed when the program ends."""


def _close_soon(close: Callable[[], object]) -> None:
    if getattr(_collecting, "now", False) and not _ending.is_set():
        _to_close.put(close)
    else:
        close()


def _note_collection(phase: str, info: object) -> None:
    _collecting.now = phase == "start"


@cache
def _closer() -> threading.Thread:
    """The thread that closes; called after the first finalizer is there, so that it ends before those that are left."""
    thread = threading.Thread(target=_close_all, name="closer", daemon=True)
    thread.start()
    gc.callbacks.append(_note_collection)
    atexit.register(_end, thread)
    return thread


def _end(thread: threading.Thread) -> None:
    _ending.set()
    _to_close.put(None)
    thread.join(SECONDS_TO_END)


def _close_all() -> None:
    while close := _to_close.get():
        with suppress(Exception):  # its owner is gone, so nobody could act on it
            close()
        del close
