"""Progress of work in several parts, and stopping of work that has none to report.

That is work on single large pictures, layers of networks, and waits for other threads. A host opens `interruptible`
around a node's run. Long work below calls `check_interrupted` wherever it may stop; where no host runs it, that does
nothing, and an interruption is Python's own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, TypeVar, cast
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
PART = 200_000_000_000
"""Products of numbers in a convolution or an attention between two checks: two seconds on a CPU core. Every layer of
Stable Diffusion's VAE takes a picture of 512 x 512 whole, as to cut one costs a seventh more."""

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


def shared_out(progress: Progress, parts: Mapping[str, float]) -> dict[str, Progress]:
    """What each part of the work reports to, by name; `parts` are their shares in order, which add up to 1."""
    ends = list(accumulate(parts.values(), initial=0.0))
    return {name: share(progress, start, stop) for name, start, stop in zip(parts, ends[:-1], ends[1:], strict=True)}


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

    On a CPU one pass through a large network takes minutes, and so may one layer with large pictures, which then
    computes in parts; on another device layers are only queued, and a thousand checks would delay that. Other threads
    may be computing with a network, so only the thread of the outermost run changes one.
    """
    run = _run.get()
    if run is None or run.outer or run.thread != threading.get_ident() or not isinstance(network, torch.nn.Module):
        return
    first = next(network.parameters(), None)
    if first is not None and first.device.type == "cpu" and network not in run.networks:
        run.networks.add(network)
        layers = list(network.modules())
        run.hooks += [layer.register_forward_pre_hook(_before_layer) for layer in layers]
        run.hooks += [_InParts(layer) for layer in layers if isinstance(layer, torch.nn.Conv2d)]
        run.hooks += [_AttentionInParts(layer) for layer in layers if hasattr(layer, "optimized_attention")]


def _before_layer(layer: torch.nn.Module, inputs: Any) -> None:
    if not torch.compiler.is_compiling():  # what the compiler makes of a layer has no check
        check_interrupted()


class _InParts:
    """Has a convolution compute large pictures in parts and check between them; no number changes by that."""

    def __init__(self, layer: torch.nn.Conv2d) -> None:
        self.layer, self.whole, self.own = layer, layer.forward, vars(layer).get("forward")
        layer.forward = self.forward  # type: ignore[assignment, method-assign]

    def remove(self) -> None:
        del self.layer.forward
        if self.own is not None:
            self.layer.forward = self.own  # type: ignore[method-assign]

    def forward(self, x: torch.Tensor, *more: Any, **options: Any) -> torch.Tensor:
        """(B, C, H, W), cut by pictures, and a large picture by its lines, with as many more as the kernel reaches."""
        if torch.compiler.is_compiling() or more or options or x.ndim < 4 or not x.numel():
            return self.whole(x, *more, **options)
        layer = self.layer
        strides = layer.stride[0] * layer.stride[1]
        products = max(1, x[0, 0].numel() * layer.weight.numel() // strides)
        if len(x) > 1:
            return self._joined(x, 0, PART // products, 0)
        margins = [reach * (size - 1) // 2 for reach, size in zip(layer.dilation, layer.kernel_size, strict=True)]
        cuttable = layer.stride == (1, 1) and list(layer.padding) == margins and layer.padding_mode == "zeros"
        if products <= PART or not cuttable:
            return self.whole(x)
        return self._joined(x, 2, PART * x.shape[2] // products - 2 * margins[0], margins[0])

    def _joined(self, x: torch.Tensor, axis: int, length: int, margin: int) -> torch.Tensor:
        """The layer's results of parts of `length`, which overlap by `margin` on either side."""
        size, length = x.shape[axis], max(1, length)
        if length >= size:
            return self.whole(x)
        result = x.new_empty(0)
        for start in range(0, size, length):
            check_interrupted()
            first, stop = max(start - margin, 0), min(start + length, size)
            part = x.narrow(axis, first, min(stop + margin, size) - first)
            computed = self.forward(part) if axis == 0 else self.whole(part)
            if not start:
                result = computed.new_empty([*computed.shape[:axis], size, *computed.shape[axis + 1 :]])
            result.narrow(axis, start, stop - start).copy_(computed.narrow(axis, start - first, stop - start))
        return result


class _AttentionInParts:
    """Has the attention over all pixels of large pictures, that of a VAE in ComfyUI, computed in parts with checks
    between them; its numbers change by rounding."""

    def __init__(self, layer: Any) -> None:
        from ..models.diffusion.attention import DotProductAttention

        self.layer, self.whole = layer, layer.optimized_attention
        self.dot_product = DotProductAttention()
        self.dot_product.register_forward_pre_hook(_before_layer)
        layer.optimized_attention = self.attended

    def remove(self) -> None:
        self.layer.optimized_attention = self.whole

    def attended(self, *maps: torch.Tensor) -> torch.Tensor:
        """Of queries, keys and values (B, C, H, W)."""
        queries = maps[0]
        pixels = queries[0, 0].numel()
        if torch.compiler.is_compiling() or 2 * len(queries) * pixels**2 * queries.shape[1] <= PART:
            return cast(torch.Tensor, self.whole(*maps))
        tokens = (each.flatten(2).transpose(1, 2)[:, None] for each in maps)
        return cast(torch.Tensor, self.dot_product(*tokens)[:, 0].transpose(1, 2).reshape(queries.shape))


def result_of(future: Future[Result]) -> Result:
    """The result of another thread's work, which is waited for; raises its exception, and as `check_interrupted`."""
    while not wait([future], WAIT_SECONDS).done:
        check_interrupted()
    return future.result()
