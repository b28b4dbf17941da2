"""How many steps of a training take so many minutes on this machine."""

from __future__ import annotations

import time
from copy import deepcopy
from typing import Any

import torch

from ...progress import check_interrupted
from .processes import Processes
from .trainer import PRECISIONS, Plan, Trainer


def steps_in(minutes: float, trainer: Trainer, dataset: Any, plan: Plan, timed: int = 4) -> int:
    """Steps that take about so many minutes here, measured on a copy of the trainer; at least one.

    `plan` says how many samples a step takes, and its precision; `timed` steps are made, of which the first does not
    count.
    """
    from torch.utils.data import default_collate

    with Processes() as processes:
        device = processes.device
    trial = deepcopy(trainer).to(device).train()
    optimiser = torch.optim.AdamW(trial.parameters())
    seconds = []
    for step in range(timed):
        check_interrupted()
        begun = time.monotonic()
        numbers = range(step * plan.batch, (step + 1) * plan.batch)
        batch = {k: v.to(device) for k, v in default_collate([dataset[number] for number in numbers]).items()}
        dtype = PRECISIONS[plan.precision]
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            for objective in trial.objectives():
                objective.loss(batch, step).backward()
        optimiser.step()
        optimiser.zero_grad()
        if device.type == "cuda":
            torch.accelerator.synchronize()
        seconds.append(time.monotonic() - begun)
    usual = sum(seconds[1:]) / (timed - 1)  # the first step also makes what later ones find
    return max(1, round(60 * minutes / usual))
