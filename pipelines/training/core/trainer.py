"""What the training loop is given: a plan, and a trainer with its networks and their losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from ...errors import TalkingPortraitError

Batch = dict[str, torch.Tensor]
Precision = Literal["fp32", "bf16", "fp16"]
PRECISIONS: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Plan:
    """How to train.

    `steps` of the optimiser altogether; each takes `batch` samples, `accumulate` times, on every process.
    `rate` the learning rate, reached evenly over `warmup` steps; `decay` what becomes of it until the last step.
    `clip` the longest gradient. `precision` of the networks' arithmetic; weights and optimiser stay in float32.
    `betas`, `weight_decay`, `epsilon`: AdamW's. A checkpoint every `save_every` steps, of which the last `keep` stay; a
    picture every `picture_every` steps, 0 for none. `workers` are processes that read samples ahead.
    """

    steps: int
    batch: int = 1
    accumulate: int = 1
    rate: float = 1e-5
    warmup: int = 0
    decay: Literal["none", "linear", "cosine"] = "none"
    clip: float = 1.0
    precision: Precision = "fp32"
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-2
    epsilon: float = 1e-8
    save_every: int = 500
    keep: int = 2
    picture_every: int = 500
    workers: int = 0
    seed: int = 42

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "save_every", "keep"):
            if getattr(self, name) < 1:
                raise TalkingPortraitError(
                    f"Training with {name.replace('_', ' ')} {getattr(self, name)} was asked for, but at least 1 is "
                    "expected."
                )
        if not (self.rate > 0 and self.clip > 0):
            raise TalkingPortraitError(
                f"The learning rate is {self.rate} and the longest gradient {self.clip}, but both must be above 0."
            )

    def rate_at(self, step: int) -> float:
        """The learning rate of step 0, 1 ..."""
        part = min(step / self.steps, 1.0)
        falling = {"none": 1.0, "linear": 1 - part, "cosine": 0.5 + 0.5 * math.cos(math.pi * part)}[self.decay]
        return self.rate * min((step + 1) / max(self.warmup, 1), 1.0) * falling


@dataclass(frozen=True)
class Objective:
    """A loss that some parameters minimise. Networks that work against each other have an objective each.

    `parameters` by name; nothing else moves. `loss(batch, step)` is a scalar. `factors`: what the learning rate is
    multiplied by for parameters whose name begins so; the longest beginning counts.
    """

    parameters: Mapping[str, nn.Parameter]
    loss: Callable[[Batch, int], torch.Tensor]
    name: str = "loss"
    factors: Mapping[str, float] = field(default_factory=dict)

    def factor(self, name: str) -> float:
        matching = [start for start in self.factors if name.startswith(start)]
        return self.factors[max(matching, key=len)] if matching else 1.0


class Trainer(nn.Module):
    """The networks of a system, as submodules, and what they learn. `title` names the trainer in checkpoints."""

    title = ""

    def objectives(self) -> Sequence[Objective]:
        """By default one, for every parameter that takes gradients."""
        return [Objective(trainable(self), self.loss)]

    def loss(self, batch: Batch, step: int) -> torch.Tensor:
        """A scalar."""
        raise NotImplementedError

    def picture(self, batch: Batch) -> torch.Tensor | None:
        """What the networks can do so far, (H, W, 3) in 0..1, for always the same batch."""
        return None

    def export(self) -> dict[str, dict[str, torch.Tensor]]:
        """File name without ending -> the published names of a network and their tensors."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Trainer:
        """As nn.Module's, but networks that do not learn stay in evaluation mode."""
        super().train(mode)
        for network in self.children():
            if not trainable(network):
                network.eval()
        return self


def trainable(network: nn.Module) -> dict[str, nn.Parameter]:
    return {name: weight for name, weight in network.named_parameters() if weight.requires_grad}


def freeze(network: nn.Module, but: Callable[[str], bool] = lambda name: False) -> None:
    """Turns gradients off for all parameters but those whose name `but` returns True for."""
    for name, weight in network.named_parameters():
        weight.requires_grad_(but(name))
