"""What the training loop is given: a plan, and a trainer with its networks and their losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from ...errors import MOST, TalkingPortraitError, quoted
from .checkpoints import write_tensors

Batch = dict[str, torch.Tensor]
Precision = Literal["fp32", "bf16", "fp16"]
PRECISIONS: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MOST_STEPS = 99_999_999
"""Checkpoints have numbers of eight digits."""
MOST_SAMPLES = 1_000_000
"""In a batch, and batches in a step."""
MOST_WORKERS = 1000


@dataclass(frozen=True)
class Plan:
    """How to train.

    `steps` of the optimiser altogether; each takes `batch` samples, `accumulate` times, on every process.
    `rate` the learning rate, reached evenly over `warmup` steps; `decay` how it falls until the last step, to `floor`
    times the rate. `clip` the longest gradient. `precision` of the networks' arithmetic; weights and optimiser stay in
    float32. `betas`, `weight_decay`, `epsilon`: AdamW's; `muon_weight_decay`: Muon's. `average`: the decay of a moving
    average of the weights, which pictures and the finished networks are made with; 0 for none. A checkpoint every
    `save_every` steps, of which the last `keep` stay; a picture every `picture_every` steps, 0 for none. `workers` are
    processes that read samples ahead.

    Raises TalkingPortraitError for a number outside its range.
    """

    steps: int
    batch: int = 1
    accumulate: int = 1
    rate: float = 1e-5
    warmup: int = 0
    decay: Literal["none", "linear", "cosine"] = "none"
    floor: float = 0.0
    clip: float = 1.0
    precision: Precision = "fp32"
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-2
    epsilon: float = 1e-8
    muon_weight_decay: float = 1e-2
    average: float = 0.0
    save_every: int = 500
    keep: int = 2
    picture_every: int = 500
    workers: int = 0
    seed: int = 42

    def __post_init__(self) -> None:
        for name, least, most in (
            ("steps", 1, MOST_STEPS),
            ("batch", 1, MOST_SAMPLES),
            ("accumulate", 1, MOST_SAMPLES),
            ("save_every", 1, MOST),
            ("keep", 1, MOST),
            ("warmup", 0, MOST),
            ("picture_every", 0, MOST),
            ("workers", 0, MOST_WORKERS),
            ("seed", 0, MOST),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                wanted = f"at least {least}" if value < least else f"at most {most}"
                raise TalkingPortraitError(
                    f"Training with {name.replace('_', ' ')} {quoted(value)} was requested, but {wanted} is expected."
                )
        if not (0 < self.rate < math.inf and 0 < self.clip < math.inf):
            raise TalkingPortraitError(
                f"The learning rate is {self.rate} and the longest gradient {self.clip}, but both must be numbers "
                "above 0."
            )
        if not (0 <= self.floor <= 1 and 0 <= self.average < 1):
            raise TalkingPortraitError(
                f"The lowest share of the learning rate is {self.floor} and the moving average's decay {self.average}, "
                "but both must lie between 0 and 1."
            )

    def rate_at(self, step: int) -> float:
        """The learning rate of step 0, 1 ..."""
        part = min(step / self.steps, 1.0)
        falling = {"none": 1.0, "linear": 1 - part, "cosine": 0.5 + 0.5 * math.cos(math.pi * part)}[self.decay]
        share = self.floor + (1 - self.floor) * falling
        return self.rate * min((step + 1) / max(self.warmup, 1), 1.0) * share


@dataclass(frozen=True)
class Objective:
    """A loss that some parameters minimise. Networks that work against each other have an objective each.

    `parameters` by name; nothing else moves. `loss(batch, step)` is a scalar. `factors`: what the learning rate is
    multiplied by for parameters whose name begins so; the longest beginning counts. `muon`: names of the matrices that
    Muon moves (arXiv 2502.16982); AdamW moves all others.
    """

    parameters: Mapping[str, nn.Parameter]
    loss: Callable[[Batch, int], torch.Tensor]
    name: str = "loss"
    factors: Mapping[str, float] = field(default_factory=dict)
    muon: Collection[str] = ()

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

    def write(self, path: Path, tensors: dict[str, torch.Tensor]) -> None:
        """Writes one of the networks that `export` returns, with the trainer's title among the notes of the file."""
        write_tensors(path, tensors, {"trainer": self.title})

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
