"""Threads that each draw whole frames, instead of threads that share every small operation.

Drawing is thousands of operations of some microseconds. Divided among threads, each operation waits for the slowest
thread; on a machine with other load that costs ten times the work itself. Whole frames need no waiting.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import closing, contextmanager, suppress
from contextvars import copy_context
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, TypeVar

import torch

from ..memory import closed_with
from ..progress import interruptible, result_of

Item = TypeVar("Item")
_Work = tuple[Future[Any], Callable[[], Any]]


class WorkerThreads:
    """Threads that do what is submitted to them, in its order, until `close`, which drops what has not begun.

    `concurrent.futures` has a pool that does the same, but it refuses all work once a program's main thread has ended,
    though Python goes on for as long as other threads of the program run.
    """

    def __init__(self, size: int, name: str) -> None:
        self._submitted: SimpleQueue[_Work | None] = SimpleQueue()
        threads: list[threading.Thread] = []
        self.close = closed_with(self, partial(_end, self._submitted, threads))
        for number in range(size):
            thread = threading.Thread(target=_work, args=(self._submitted,), name=f"{name}_{number}", daemon=True)
            thread.start()
            threads.append(thread)

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Runs `work(*arguments)` in one of the threads, with the context variables of this one."""
        future: Future[Any] = Future()
        self._submitted.put((future, partial(copy_context().run, work, *arguments)))
        return future


def _work(submitted: SimpleQueue[_Work | None]) -> None:
    """What each thread does. It refers to nothing of what it has done while it waits."""
    while (item := submitted.get()) is not None:
        future, work = item
        if future.set_running_or_notify_cancel():
            try:
                result = work()
            except BaseException as error:  # also an interruption is for who waits for the result
                future.set_exception(error)
            else:
                future.set_result(result)
                del result
        del item, future, work


def _end(submitted: SimpleQueue[_Work | None], threads: list[threading.Thread]) -> None:
    with suppress(Empty):
        while True:
            item = submitted.get_nowait()
            if item is not None and item[0].cancel():
                item[0].set_running_or_notify_cancel()  # also who waits for it is to go on
    for _ in threads:
        submitted.put(None)
    for thread in threads:
        if thread is not threading.current_thread():  # which may be the one that dropped the last reference
            thread.join()


class FrameWorkers:
    """As many workers as torch has threads here (one for a device other than the CPU), each with one thread.

    Use as a context manager; it waits for its workers when it is left. Work that was submitted stops at its next check
    where the run is interrupted, and where the block is left by an exception.
    """

    def __init__(self, device: torch.device) -> None:
        self.size = torch.get_num_threads() if device.type == "cpu" else 1
        self._failed = False
        self._threads = WorkerThreads(self.size, "frames")

    def __enter__(self) -> FrameWorkers:
        threads = torch.get_num_threads()
        present = threading.Barrier(self.size)

        def prepare() -> None:
            torch.set_num_threads(1)
            torch.get_num_threads()  # A thread takes over the number of all others when torch is first used in it.
            present.wait()

        try:
            for started in [self._threads.submit(prepare) for _ in range(self.size)]:
                started.result()
        except BaseException:
            present.abort()  # those that have come would wait for the others, and their end for them
            raise
        # The call above also sets what threads that start later get; they are not ours to change.
        torch.set_num_threads(threads)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._failed = error is not None
        self._threads.close()

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Runs `work(*arguments)` on a worker, after the work submitted before it."""
        return self._threads.submit(self._worked, work, *arguments)

    def map(self, work: Callable[..., None], *pieces: Iterable[Any]) -> None:
        """Runs `work` on each set of arguments, several at once; raises the first exception."""
        for future in [self.submit(work, *arguments) for arguments in zip(*pieces, strict=False)]:
            result_of(future)

    def _worked(self, work: Callable[..., Any], *arguments: Any) -> Any:
        with interruptible(self._check), torch.inference_mode():
            return work(*arguments)

    def _check(self) -> None:
        if self._failed:
            raise CancelledError


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it torch's operations in this thread are not divided: small ones take longer for two threads than for one.

    A thread that begins to use torch in that time is limited too.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def read_ahead(items: Iterator[Item]) -> Generator[Item, None, None]:
    """The same items; while one is used, a thread makes the next one.

    Close it where it may be left early: an error keeps it, its thread and what it reads from as long as it lives.
    """
    end: Any = object()

    def take() -> Any:
        return next(items, end)

    with closing(WorkerThreads(1, "ahead")) as threads:
        coming = threads.submit(take)
        while (item := result_of(coming)) is not end:
            coming = threads.submit(take)
            yield item
