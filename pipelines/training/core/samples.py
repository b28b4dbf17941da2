"""Batches of a run: which samples each process takes, and how an error while reading one comes through."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from ...errors import TalkingPortraitError
from .processes import Processes
from .trainer import Batch, Plan


def batches(dataset: torch.utils.data.Dataset, plan: Plan, processes: Processes, position: int) -> Iterator[Batch]:
    """Endless batches for this process from sample `position` on; pinned for a GPU.

    Raises what the dataset raises: a TalkingPortraitError comes out of a reading process as it was.
    """
    from torch.utils.data import DataLoader

    def numbers() -> Iterator[list[int]]:
        start = position + processes.rank * plan.batch
        while True:
            yield list(range(start, start + plan.batch))
            start += processes.count * plan.batch

    # A generator of its own: DataLoader would otherwise draw from the one that the networks' noise comes from.
    loader: Any = DataLoader(
        _Samples(dataset),
        batch_sampler=numbers(),
        num_workers=plan.workers,
        collate_fn=_collate,
        generator=torch.Generator(),
        pin_memory=processes.device.type == "cuda",
    )
    for batch in loader:
        if isinstance(batch, TalkingPortraitError):
            raise batch
        yield batch


class _Samples(torch.utils.data.Dataset):
    """Returns errors that users can mend; DataLoader would put its traceback into the message of a raised one."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitem__(self, number: int) -> Any:
        try:
            return self.dataset[number]
        except TalkingPortraitError as error:
            return error


def _collate(samples: list[Any]) -> Batch | TalkingPortraitError:
    """One batch; an error instead where a sample is one, or where samples do not fit together."""
    from torch.utils.data import default_collate

    first = samples[0]
    for sample in samples:
        if isinstance(sample, TalkingPortraitError):
            return sample
        for name, tensor in sample.items():
            if tensor.shape != first[name].shape:
                one, other = tuple(first[name].shape), tuple(tensor.shape)
                return TalkingPortraitError(
                    f"Samples of one batch differ in size ({name} is {one} in one and {other} in another); prepare all "
                    "videos alike, or train with --batch 1."
                )
    return default_collate(samples)
