"""Progress of work in several parts, and stopping of work that has none to report.

That is work on single large pictures, layers of networks, and waits for other threads. A host opens `interruptible`
around a node's run. Long work below calls `check_interrupted` wherever it may stop; where no host runs it, that does
nothing, and an interruption is Python's own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakSet

import torch

from .errors import TalkingPortraitError, quoted
from .types import Progress, no_progress

if hasattr(os, "register_at_fork"):
    # GNU's OpenMP, among whose threads torch divides operations, waits forever in a process that was forked from one
    # in which it has been used, for threads that a fork does not bring along.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))

PERCENT = 100
WAIT_SECONDS = 0.2
"""Time between two checks while another thread works."""

Result = TypeVar("Result")


def given_progress(progress: Progress | None) -> Progress:
    """What a user of the Python API gave, none where that is None. Raises TalkingPortraitError for no function."""
    if progress is not None and not callable(progress):
        raise TalkingPortraitError(
            f"The progress is {quoted(progress)}, but a function is expected, called with what is done and what there "
            "is to do."
        )
    return no_progress if progress is None else progress


def share(progress: Progress, start: float, stop: float) -> Progress:
    """What a part of the work reports to: its own units become the percents from `start` to `stop`, both in 0..1."""

    def report(done: int, total: int, preview: torch.Tensor | None = None) -> None:
        part = done / total if total else 1.0
        progress(round(PERCENT * (start + (stop - start) * part)), PERCENT, preview)

    return report


@dataclass
class _Run:
    """What is running: its check, what it is a part of, and the networks whose layers check."""

    check: Callable[[], None]
    outer: _Run | None
    thread: int = field(default_factory=threading.get_ident)
    networks: WeakSet[torch.nn.Module] = field(default_factory=WeakSet)
    hooks: list[Any] = field(default_factory=list)


_run: ContextVar[_Run | None] = ContextVar("run", default=None)


@contextmanager
def interruptible(check: Callable[[], None]) -> Iterator[None]:
    """Within it `check_interrupted` calls `check`, which raises the host's exception once the user has cancelled.

    Threads that take the context along, as `FrameWorkers` do, call it too. Where one lies within another, both count.
    """
    run = _Run(check, _run.get())
    token = _run.set(run)
    try:
        yield
    finally:
        _run.reset(token)
        for hook in run.hooks:
            hook.remove()


def check_interrupted() -> None:
    """Raises the host's exception where the user has cancelled the run around it."""
    run = _run.get()
    while run is not None:
        run.check()
        run = run.outer


def check_between_layers(network: Any) -> None:
    """Has each layer of a network check before it computes, until the run around it ends; no network is left alone.

    On a CPU one pass through a large network takes minutes; on another device layers are only queued, and a thousand
    checks would delay that. Other threads may be computing with a network, so only the thread of the outermost run
    changes one.
    """
    run = _run.get()
    if run is None or run.outer or run.thread != threading.get_ident() or not isinstance(network, torch.nn.Module):
        return
    first = next(network.parameters(), None)
    if first is not None and first.device.type == "cpu" and network not in run.networks:
        run.networks.add(network)
        run.hooks += [layer.register_forward_pre_hook(_before_layer) for layer in network.modules()]


def _before_layer(layer: torch.nn.Module, inputs: Any) -> None:
    if not torch.compiler.is_compiling():  # what the compiler makes of a layer has no check
        check_interrupted()


def result_of(future: Future[Result]) -> Result:
    """The result of another thread's work, which is waited for; raises its exception, and as `check_interrupted`."""
    while not wait([future], WAIT_SECONDS).done:
        check_interrupted()
    return future.result()
