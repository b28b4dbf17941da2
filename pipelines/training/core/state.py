"""What training changes, as the tensors of a checkpoint: weights and buffers, optimisers' states, the moving average.

weights/NAME                       parameters that move, and every buffer (gathered statistics)
optimiser/OBJECTIVE/NAME/KEY       what the optimiser keeps of a parameter; nothing before its first step
average/NAME                       the moving average of a parameter, where the plan has one
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from ...errors import TalkingPortraitError
from .checkpoints import damaged
from .optimiser import build_optimiser
from .trainer import Plan, Trainer

_ADAMW, _MUON = {"step", "exp_avg", "exp_avg_sq"}, {"momentum_buffer"}
_NEVER_NEGATIVE = ("/step", "/exp_avg_sq")


class TrainingState:
    """Objectives with their optimisers, and the moving average, of a trainer that is on its device already."""

    def __init__(self, trainer: Trainer, plan: Plan) -> None:
        self.trainer = trainer
        self.objectives = list(trainer.objectives())
        for objective in self.objectives:
            if not objective.parameters:
                raise ValueError(f"{trainer.title} has nothing to train for its {objective.name}")
        self.optimisers = [build_optimiser(objective, plan) for objective in self.objectives]
        self.average = MovingAverage(self._moving(), plan.average) if plan.average else None

    def _moving(self) -> dict[str, torch.Tensor]:
        moving = {id(weight) for objective in self.objectives for weight in objective.parameters.values()}
        return {name: weight for name, weight in self.trainer.named_parameters() if id(weight) in moving}

    def trained(self) -> dict[str, torch.Tensor]:
        """The weights of all objectives, and buffers, by their names in the trainer."""
        moving = self._moving()
        return {
            name: tensor
            for name, tensor in self.trainer.state_dict(keep_vars=True).items()
            if name in moving or not isinstance(tensor, nn.Parameter)
        }

    def tensors(self) -> dict[str, torch.Tensor]:
        """All of it, by the names in the checkpoint."""
        tensors = {f"weights/{name}": tensor for name, tensor in self.trained().items()}
        for objective, optimiser in zip(self.objectives, self.optimisers, strict=True):
            for name, weight in objective.parameters.items():
                for key, value in optimiser.state[weight].items():
                    tensors[f"optimiser/{objective.name}/{name}/{key}"] = torch.as_tensor(value)
        if self.average:
            tensors |= {f"average/{name}": tensor for name, tensor in self.average.tensors.items()}
        return tensors

    def restore(self, stored: Mapping[str, torch.Tensor], path: Path) -> None:
        """Takes over the tensors of the checkpoint `path`.

        Raises TalkingPortraitError, before anything is changed, unless they are those of this state and numbers all.
        """
        trained, kept = self.trained(), self._kept_by_optimisers(stored)
        expected = {f"weights/{name}": tensor for name, tensor in trained.items()}
        if self.average:
            expected |= {f"average/{name}": tensor for name, tensor in self.average.weights.items()}
        for _, weight, names in kept:
            expected |= {name: _STEPS if key == "step" else weight for key, name in names.items()}
        if {k: (v.shape, v.dtype) for k, v in expected.items()} != {k: (v.shape, v.dtype) for k, v in stored.items()}:
            raise TalkingPortraitError(
                f"{path} was written with other networks or another choice of what to train; go on with the options "
                "that the run began with."
            )
        if not all_numbers(stored.values()):
            raise damaged(path, "some of its values are no numbers")
        if any(bool((value < 0).any()) for name, value in stored.items() if name.endswith(_NEVER_NEGATIVE)):
            raise damaged(path, "the optimiser's state has values below 0 where none can be")
        with torch.no_grad():
            for name, tensor in trained.items():
                tensor.copy_(stored[f"weights/{name}"])
        for optimiser, weight, names in kept:
            # AdamW counts its steps on the CPU.
            optimiser.state[weight] = {
                key: stored[name] if key == "step" else stored[name].to(weight.device) for key, name in names.items()
            }
        if self.average:
            self.average.restore({name: stored[f"average/{name}"] for name in self.average.weights})

    def _kept_by_optimisers(
        self, stored: Mapping[str, torch.Tensor]
    ) -> list[tuple[torch.optim.Optimizer, nn.Parameter, dict[str, str]]]:
        """Each optimiser and parameter that have made a step, with the checkpoint's name for every key of its state."""
        kept = []
        for objective, optimiser in zip(self.objectives, self.optimisers, strict=True):
            for name, weight in objective.parameters.items():
                keys = _MUON if name in objective.muon else _ADAMW
                names = {key: f"optimiser/{objective.name}/{name}/{key}" for key in keys}
                if not stored.keys().isdisjoint(names.values()):
                    kept.append((optimiser, weight, names))
        return kept

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it the trainer's weights are their moving average, where there is one."""
        if self.average:
            self.average.swap()
        try:
            yield
        finally:
            if self.average:
                self.average.swap()


_STEPS = torch.zeros(())
"""The form of AdamW's count of steps."""


def all_numbers(tensors: Iterable[torch.Tensor]) -> bool:
    """False for infinity and for what is no number."""
    return all(bool(tensor.isfinite().all()) for tensor in tensors if tensor.is_floating_point())


class MovingAverage:
    """The exponential moving average of weights after each step; it begins as the weights after the first one."""

    def __init__(self, weights: Mapping[str, torch.Tensor], decay: float) -> None:
        self.weights, self.decay = dict(weights), decay
        self.tensors: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def update(self) -> None:
        if not self.tensors:
            self.tensors = {name: weight.detach().clone() for name, weight in self.weights.items()}
        for name, weight in self.weights.items():
            self.tensors[name].lerp_(weight, 1 - self.decay)

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.tensors = {name: tensor.to(self.weights[name].device) for name, tensor in tensors.items()}

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges the values of the weights and of their average."""
        for name, average in self.tensors.items():
            weight = self.weights[name].clone()
            self.weights[name].copy_(average)
            average.copy_(weight)
