"""Training on several devices: a process for each, the same weights in all, their gradients averaged.

torchrun and `accelerate launch` both start such processes and tell them of each other by the same variables.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from types import TracebackType

import torch

from ...errors import TalkingPortraitError, quoted

_BUCKET = 2**24
"""Values that are sent together: sending each tensor alone would mostly be waiting."""
_START = (
    "start training by torchrun or `accelerate launch`, which set the variables, or unset WORLD_SIZE for one process."
)


class Processes:
    """This process among `count` of them; `rank` 0 is the `first`, which alone writes files. Use with `with`."""

    def __init__(self) -> None:
        """Raises TalkingPortraitError for variables that can't be those of one process among several."""
        self.count = _variable("WORLD_SIZE", 1, least=1)
        self.rank = _variable("RANK", None, most=self.count - 1) if self.count > 1 else 0
        self.device = self._device()

    @property
    def first(self) -> bool:
        return self.rank == 0

    def _device(self) -> torch.device:
        found = torch.accelerator.current_accelerator(check_available=True)
        if found is None:
            return torch.device("cpu")
        return torch.device(found.type, _variable("LOCAL_RANK", 0, most=torch.accelerator.device_count() - 1))

    def __enter__(self) -> Processes:
        if self.device.type == "cuda":
            torch.accelerator.set_device_index(self.device.index)
        if self.count > 1:
            try:
                torch.distributed.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
            except (ValueError, RuntimeError) as error:  # no address, or nobody there
                raise TalkingPortraitError(
                    f"The {self.count} processes of WORLD_SIZE can't reach each other ({_first_line(error)}); {_START}"
                ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.count > 1:
            torch.distributed.destroy_process_group()

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.count > 1:
            torch.distributed.barrier()

    def broadcast(self, tensors: Iterable[torch.Tensor]) -> None:
        """Gives all processes the first one's values."""
        if self.count > 1:
            for tensor in tensors:
                torch.distributed.broadcast(tensor.data, 0)

    def average(self, weights: Sequence[torch.Tensor]) -> None:
        """Replaces every gradient by the mean over all processes; one that a process lacks counts as zeros."""
        if self.count == 1:
            return
        bucket: list[torch.Tensor] = []
        values = 0
        for weight in weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            bucket.append(weight.grad)
            values += weight.numel()
            if values >= _BUCKET or weight is weights[-1]:
                self._average(bucket)
                bucket, values = [], 0

    def _average(self, tensors: Sequence[torch.Tensor]) -> None:
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        torch.distributed.all_reduce(flat)
        flat /= self.count
        for tensor, values in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(values.view_as(tensor))

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The mean of a scalar over all processes."""
        if self.count > 1:
            self._average([value])
        return value


def _variable(name: str, default: int | None, *, least: int = 0, most: int | None = None) -> int:
    """A whole number from the environment; where it is not set or empty, `default`, or an error without one."""
    text = os.environ.get(name, "").strip()
    if not text and default is not None:
        return default
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least or (most is not None and value > most):
        wanted = f"a whole number from {least} on" if most is None else f"a whole number from {least} to {most}"
        is_what = f"is {quoted(text)}" if text else "is not set"
        raise TalkingPortraitError(f"The variable {name} {is_what}, but {wanted} is expected; {_START}")
    return value


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]
