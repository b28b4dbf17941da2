"""The training loop that all trainers share.

    train(trainer, dataset, Plan(steps=30000, batch=2), folder, resume=True, progress=progress)

A trainer brings networks and their losses; the loop brings precision, accumulation, clipping, the learning
rate's course, checkpoints, a log and pictures on the way. A run that is killed at any moment continues from its last
checkpoint as if nothing had been: every random choice, of samples as of noise, follows from the
seed and the number of the step alone, so there is no state of a random generator to lose.

Several GPUs: start one process for each with torchrun or `accelerate launch`; gradients are averaged over them.
"""

from __future__ import annotations

import json
import math
import random
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ...errors import TalkingPortraitError, quoted, reason_of
from ...files.images import write_image
from ...files.output_paths import whole_file, writing
from ...files.scratch import clear_abandoned
from ...types import Progress, no_progress
from .checkpoints import (
    Checkpoint,
    damaged,
    newest_checkpoint,
    notes_of,
    read_training_checkpoint,
    save_checkpoint,
)
from .processes import Processes
from .samples import batches
from .state import TrainingState, all_numbers
from .trainer import PRECISIONS, Batch, Objective, Plan, Trainer

CHECKPOINTS, PICTURES, LOG = "checkpoints", "pictures", "log.jsonl"
_PICTURE = re.compile(r"step-\d{8}\.png")
_MOST_SAMPLES = 2**62
_OTHER_WAYS = "continue from the last checkpoint with a lower rate, or in bf16 or fp32."


def train(
    trainer: Trainer,
    dataset: torch.utils.data.Dataset,
    plan: Plan,
    folder: str | Path,
    *,
    resume: bool = False,
    progress: Progress = no_progress,
) -> dict[str, Path]:
    """Trains to the plan's last step and writes the networks; returns the files.

    Args:
        dataset: a mapping from 0, 1, 2 ... without end to tensors by name, always the same for the same number.
        folder: gets checkpoints/, pictures/, log.jsonl (a line for each step) and the finished networks.
        resume: continue from the newest checkpoint there, or begin where there is none. A run that has all its steps is
            only written out.
        progress: called after each step, with a picture when there is one; may raise to stop.

    Raises TalkingPortraitError for a folder that holds a run already, unless it is to go on, or files of those names
    that no run wrote; for a checkpoint of another trainer; and when losses or gradients stop being numbers.
    """
    with Processes() as processes:
        run = _Run(trainer, dataset, plan, Path(folder), processes, resume)
        return run.finish(progress if processes.first else no_progress)


class _Run:
    def __init__(
        self,
        trainer: Trainer,
        dataset: torch.utils.data.Dataset,
        plan: Plan,
        folder: Path,
        processes: Processes,
        resume: bool,
    ) -> None:
        self.trainer, self.dataset, self.plan, self.folder = trainer, dataset, plan, folder
        self.processes = processes
        self.device = processes.device
        trainer.to(self.device).train()
        self.state = TrainingState(trainer, plan)
        half = plan.precision == "fp16"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half)
        self.step = self.position = 0
        self._begin(resume)

    # --- where the run stands ---

    def _begin(self, resume: bool) -> None:
        newest = newest_checkpoint(self.folder / CHECKPOINTS)
        if newest and not resume:
            raise TalkingPortraitError(
                f"{self.folder} holds a training run of {int(newest.stem[5:])} steps already; go on with it by "
                "--resume, or give another folder."
            )
        if newest:
            self._restore(read_training_checkpoint(newest), newest)
        self.processes.broadcast([*self.state.trained().values()])
        if self.processes.first:
            self._check_foreign_files(begun=newest is not None)
            self._make_folders()
            _drop_lines_after(self.folder / LOG, self.step)

    def _check_foreign_files(self, *, begun: bool) -> None:
        """Raises for a file that the run would write over, but that is none of a run's."""
        log = self.folder / LOG
        others = [path for path in self._exports().values() if path.exists() and "trainer" not in notes_of(path)]
        if log.exists() and not _is_log(log):
            others.append(log)
        if not begun and not log.exists() and (self.folder / PICTURES).is_dir():
            others += [path for path in (self.folder / PICTURES).iterdir() if _PICTURE.fullmatch(path.name)]
        if others:
            raise TalkingPortraitError(
                f"{others[0]} would be written over, but no training run wrote it; move it elsewhere or give another "
                "folder for the run."
            )

    def _exports(self) -> dict[str, Path]:
        """The files of the finished networks."""
        return {name: self.folder / f"{name}.safetensors" for name in self.trainer.export()}

    def _make_folders(self) -> None:
        try:
            for name in (CHECKPOINTS, PICTURES):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
                clear_abandoned(self.folder / name)  # a run that has all its steps writes nothing there
        except OSError as error:
            raise TalkingPortraitError(
                f"The training folder {self.folder} can't be made ({reason_of(error)}); give another one."
            ) from None

    def _save(self) -> None:
        tensors = self.state.tensors()
        if not all_numbers(tensors.values()):
            raise TalkingPortraitError(
                f"After step {self.step} some weights are infinite or no numbers, so no checkpoint was written; "
                f"{_OTHER_WAYS}"
            )
        notes = {"trainer": self.trainer.title, "position": self.position, "scaler": self.scaler.state_dict()}
        save_checkpoint(self.folder / CHECKPOINTS, Checkpoint(self.step, tensors, notes), self.plan.keep)

    def _restore(self, checkpoint: Checkpoint, path: Path) -> None:
        title, position, scaler = (checkpoint.notes.get(name) for name in ("trainer", "position", "scaler"))
        if not isinstance(title, str):
            raise damaged(path, "its notes name no trainer")
        if title != self.trainer.title:
            raise TalkingPortraitError(
                f"{path} is a checkpoint of {' '.join(title.split())[:60]}, but {self.trainer.title} is to go on; "
                "give the folder of its own run."
            )
        if type(position) is not int or not 0 <= position < _MOST_SAMPLES:
            raise damaged(path, f"{quoted(position)} is no count of samples")
        if scaler and not _is_scaler(scaler):
            raise damaged(path, f"{quoted(scaler)} is no state of a loss scaler")
        self.state.restore(checkpoint.tensors, path)
        if scaler:
            self.scaler.load_state_dict(scaler)
        self.step, self.position = checkpoint.step, position

    # --- training ---

    def finish(self, progress: Progress) -> dict[str, Path]:
        pieces = batches(self.dataset, self.plan, self.processes, self.position)
        while self.step < self.plan.steps:
            begun = time.monotonic()
            line = self._advance(pieces)
            line["seconds"] = round(time.monotonic() - begun, 3)
            last = self.step == self.plan.steps
            picture = None
            if self.processes.first:
                _append(self.folder / LOG, line)
                if self.plan.picture_every and (last or self.step % self.plan.picture_every == 0):
                    picture = self._picture()
                if last or self.step % self.plan.save_every == 0:
                    self._save()
            progress(self.step, self.plan.steps, picture)
        files = self._export() if self.processes.first else {}
        self.processes.wait()  # else another process could look for checkpoints that are not written yet
        return files

    def _advance(self, batches: Iterator[Batch]) -> dict[str, Any]:
        """One step of every optimiser; what to log about it."""
        seed_everything(self.plan.seed, self.step, self.processes.rank)
        pieces = [self._on_device(next(batches)) for _ in range(self.plan.accumulate)]
        rate = self.plan.rate_at(self.step)
        line: dict[str, Any] = {"step": self.step + 1, "rate": rate}
        for objective, optimiser in zip(self.state.objectives, self.state.optimisers, strict=True):
            line |= self._optimise(objective, optimiser, pieces, rate)
        self.scaler.update()
        if self.state.average:
            self.state.average.update()
        self.step += 1
        self.position += self.plan.accumulate * self.plan.batch * self.processes.count
        return line

    def _on_device(self, batch: Batch) -> Batch:
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}

    def _optimise(
        self, objective: Objective, optimiser: torch.optim.Optimizer, pieces: list[Batch], rate: float
    ) -> dict[str, Any]:
        self._enable_gradients(objective)
        weights = list(objective.parameters.values())
        total = torch.zeros((), device=self.device)
        for piece in pieces:
            with self._precision():
                loss = objective.loss(piece, self.step) / len(pieces)
            self.scaler.scale(loss).backward()
            total += loss.detach()
        self.processes.average(weights)
        self.scaler.unscale_(optimiser)
        norm = float(nn.utils.clip_grad_norm_(weights, self.plan.clip))
        loss_value = float(self.processes.mean(total))
        self._check(objective, loss_value, norm)
        for group in optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        self.scaler.step(optimiser)
        optimiser.zero_grad(set_to_none=True)
        return {objective.name: loss_value, f"{objective.name} gradient": norm}

    def _enable_gradients(self, objective: Objective) -> None:
        """Turns gradients off for what other objectives train, so that they neither cost nor gather anything."""
        if len(self.state.objectives) > 1:
            for other in self.state.objectives:
                for weight in other.parameters.values():
                    weight.requires_grad_(False)
            for weight in objective.parameters.values():
                weight.requires_grad_(True)

    def _precision(self) -> torch.autocast:
        dtype = PRECISIONS[self.plan.precision]
        return torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)

    def _check(self, objective: Objective, loss: float, norm: float) -> None:
        # In half precision a gradient that overflows is expected now and then: the scaler leaves that step out.
        overflow = self.scaler.is_enabled() and math.isfinite(loss) and self.scaler.get_scale() >= 1
        if not math.isfinite(loss) or not (math.isfinite(norm) or overflow):
            raise TalkingPortraitError(
                f"At step {self.step + 1} the {objective.name} is {loss} and its gradient {norm}, so the networks can "
                f"learn no more; {_OTHER_WAYS}"
            )

    def _picture(self) -> torch.Tensor | None:
        from torch.utils.data import default_collate

        batch = self._on_device(default_collate([self.dataset[0]]))
        self.trainer.eval()
        with torch.no_grad(), self._precision(), self.state.averaged():
            seed_everything(self.plan.seed, 0, 0)
            picture = self.trainer.picture(batch)
        self.trainer.train()
        if picture is not None:
            picture = picture.float().cpu()
            path = self.folder / PICTURES / f"step-{self.step:08d}.png"
            with whole_file(path) as partial:
                write_image(partial, picture)
        return picture

    def _export(self) -> dict[str, Path]:
        files = self._exports()
        with self.state.averaged():
            for name, tensors in self.trainer.export().items():
                self.trainer.write(files[name], tensors)
        return files


def seed_everything(seed: int, step: int, rank: int = 0) -> None:
    """Random numbers that depend on these three alone, from torch, NumPy and Python."""
    torch_seed, numpy_seed, python_seed = np.random.SeedSequence([seed, step, rank]).generate_state(3).tolist()
    torch.manual_seed(torch_seed)
    np.random.seed(numpy_seed)
    random.seed(python_seed)


def _append(path: Path, line: Mapping[str, Any]) -> None:
    with writing(path), path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def _drop_lines_after(path: Path, step: int) -> None:
    """Leaves those lines of the log out that a resumed run is about to write again, and one that was cut short."""
    if not path.is_file():
        return
    with whole_file(path) as partial:
        lines = [text + "\n" for text in path.read_text().splitlines() if 0 < _step_of(text) <= step]
        partial.write_text("".join(lines))


def _is_log(path: Path) -> bool:
    """Whether every line is one that `_append` writes, but for a last one that was cut short."""
    if not path.is_file():  # reading a pipe or a device need not end
        return False
    try:
        *lines, last = path.read_text().split("\n")
    except (OSError, ValueError):
        return False
    begun = '{"step": '
    return last[: len(begun)] == begun[: len(last)] and all(map(_step_of, lines))


def _step_of(line: str) -> int:
    """The step of a line of the log, 0 for any other line."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return 0
    step = values.get("step") if isinstance(values, dict) and "rate" in values else None
    return step if type(step) is int and step > 0 else 0


def _is_scaler(state: Any) -> bool:
    """Whether a GradScaler can go on with this state."""
    known = torch.amp.GradScaler("cpu").state_dict()
    if not isinstance(state, dict) or state.keys() != known.keys():
        return False
    right = all(
        type(value) is type(known[name]) and 0 <= value < 2**31 for name, value in state.items() if name != "scale"
    )
    return right and type(state["scale"]) is float and 0 < state["scale"] < torch.finfo(torch.float32).max
