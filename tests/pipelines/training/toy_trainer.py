"""A trainer small enough to be run many times, and in several processes: `python toy_trainer.py FOLDER STEPS`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from talking_portrait.pipelines.training.core.loop import train
from talking_portrait.pipelines.training.core.trainer import Batch, Objective, Plan, Trainer
from torch import nn

PLAN = {"batch": 4, "accumulate": 2, "rate": 1e-2, "save_every": 5, "picture_every": 0}


class Sums(torch.utils.data.Dataset):
    """Four numbers, and their sum."""

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        x = torch.randn(4, generator=torch.Generator().manual_seed(number))
        return {"x": x, "y": x.sum(0, keepdim=True), "number": torch.tensor(number)}


class Adder(Trainer):
    """Learns to add, with all that has a state: dropout, gathered statistics, noise.

    No bias before the batch norm: its gradient is nothing but rounding, which AdamW makes into steps of full length.
    """

    title = "adder"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        first = nn.Linear(4, 16, bias=False)
        self.network = nn.Sequential(first, nn.BatchNorm1d(16), nn.Dropout(0.1), nn.Linear(16, 1))
        self.frozen = nn.Sequential(nn.BatchNorm1d(4)).requires_grad_(False)
        self.batch_numbers: list[int] = []

    def loss(self, batch: Batch, step: int) -> torch.Tensor:
        self.batch_numbers += batch["number"].tolist()
        noisy = self.frozen(batch["x"]) + 0.01 * torch.randn_like(batch["x"])
        return (self.network(noisy) - batch["y"]).square().mean()

    def picture(self, batch: Batch) -> torch.Tensor:
        assert not self.network.training
        return torch.full((8, 8, 3), 0.5)

    def export(self) -> dict[str, dict[str, torch.Tensor]]:
        return {"adder": self.network.state_dict()}


class Plain(Adder):
    """Without statistics, dropout and noise."""

    def loss(self, batch: Batch, step: int) -> torch.Tensor:
        return (self.network[3](self.network[0](batch["x"])) - batch["y"]).square().mean()


class Rivals(Trainer):
    """Two weights with opposite objectives: one reduces their distance, the other increases it."""

    title = "rivals"

    def __init__(self) -> None:
        super().__init__()
        self.hunter, self.hare = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.hunter.weight, 0.0)
        nn.init.constant_(self.hare.weight, 1.0)

    def objectives(self) -> list[Objective]:
        def distance(batch: Batch, step: int) -> torch.Tensor:
            return (self.hunter.weight - self.hare.weight).square().sum()

        def closeness(batch: Batch, step: int) -> torch.Tensor:
            assert not self.hunter.weight.requires_grad
            return -distance(batch, step)

        return [
            Objective({"hunter.weight": self.hunter.weight}, distance, "hunt"),
            Objective({"hare.weight": self.hare.weight}, closeness, "flight", {"": 2.0, "hare": 0.5}),
        ]

    def export(self) -> dict[str, dict[str, torch.Tensor]]:
        return {"rivals": self.state_dict()}


def run(folder: Path, steps: int, trainer: Trainer | None = None, **options: Any) -> Trainer:
    resume = options.pop("resume", True)
    progress = options.pop("progress", lambda *_: None)
    trainer = trainer or Adder()
    train(trainer, Sums(), Plan(steps=steps, **PLAN | options), folder, resume=resume, progress=progress)
    return trainer


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), int(sys.argv[2]), Plain(), batch=2)
