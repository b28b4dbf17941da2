"""The optimisers that move an objective's parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from ...errors import TalkingPortraitError
from .trainer import Objective, Plan


def build_optimiser(objective: Objective, plan: Plan) -> torch.optim.Optimizer:
    """AdamW; for the matrices that the objective names Muon, as one optimiser with the rest.

    Raises TalkingPortraitError where this PyTorch has no Muon.
    """
    matrices = {name: weight for name, weight in objective.parameters.items() if name in objective.muon}
    others = {name: weight for name, weight in objective.parameters.items() if name not in objective.muon}
    built: list[torch.optim.Optimizer] = []
    if others:
        groups = _groups(objective, others)
        built.append(
            torch.optim.AdamW(groups, lr=plan.rate, betas=plan.betas, weight_decay=plan.weight_decay, eps=plan.epsilon)
        )
    if matrices:
        if not hasattr(torch.optim, "Muon"):
            raise TalkingPortraitError(
                f"Muon came with PyTorch 2.9, but this is {torch.__version__}; install a newer one to train this "
                "network."
            )
        groups = _groups(objective, matrices)
        built.append(torch.optim.Muon(groups, lr=plan.rate, weight_decay=plan.muon_weight_decay))
    return built[0] if len(built) == 1 else _Together(built)


def _groups(objective: Objective, parameters: Mapping[str, nn.Parameter]) -> list[dict[str, Any]]:
    """Parameter groups, one for each factor of the learning rate."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, weight in parameters.items():
        groups.setdefault(objective.factor(name), []).append(weight)
    return [{"params": weights, "factor": factor} for factor, weights in groups.items()]


class _Together(torch.optim.Optimizer):
    """Several optimisers as one, so that a gradient which overflows makes all of them leave the step out."""

    def __init__(self, optimisers: list[torch.optim.Optimizer]) -> None:
        super().__init__([group for optimiser in optimisers for group in optimiser.param_groups], {})
        self.optimisers = optimisers
        for optimiser in optimisers:
            optimiser.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for optimiser in self.optimisers:
            optimiser.step()
