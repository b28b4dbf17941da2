"""Networks in the memory of a device, and what to do when it runs out: the same work in smaller pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

import torch

from .errors import TalkingPortraitError, is_out_of_memory, quoted

Result = TypeVar("Result")


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
