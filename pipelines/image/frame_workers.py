"""Threads that each draw whole frames, instead of threads that share every small operation.

Drawing is thousands of operations of some microseconds. Divided among threads, each operation waits for the slowest
thread; on a machine with other load that costs ten times the work itself. Whole frames need no waiting.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from types import TracebackType
from typing import Any, TypeVar

import torch

from ..progress import interruptible, result_of

Item = TypeVar("Item")


class FrameWorkers:
    """As many workers as torch has threads here (one for a device other than the CPU), each with one thread.

    Use as a context manager; it waits for its workers when it is left. Work that was submitted stops at its next check
    where the run is interrupted, and where the block is left by an exception.
    """

    def __init__(self, device: torch.device) -> None:
        self.size = torch.get_num_threads() if device.type == "cpu" else 1
        self._pool = ThreadPoolExecutor(self.size, thread_name_prefix="frames")
        self._failed = False

    def __enter__(self) -> FrameWorkers:
        threads = torch.get_num_threads()
        present = threading.Barrier(self.size)

        def prepare() -> None:
            torch.set_num_threads(1)
            torch.get_num_threads()  # A thread takes over the number of all others when torch is first used in it.
            present.wait()

        for started in [self._pool.submit(prepare) for _ in range(self.size)]:
            started.result()
        # The call above also sets what threads that start later get; they are not ours to change.
        torch.set_num_threads(threads)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._failed = error is not None
        self._pool.shutdown(cancel_futures=True)

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Runs `work(*arguments)` on a worker, after the work submitted before it."""
        return self._pool.submit(copy_context().run, self._worked, work, *arguments)

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

    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        coming = pool.submit(copy_context().run, take)
        while (item := result_of(coming)) is not end:
            coming = pool.submit(copy_context().run, take)
            yield item
