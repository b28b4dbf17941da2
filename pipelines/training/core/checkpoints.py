"""A training run on disk: all it needs to go on in one safetensors file, which is there whole or not at all."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ....models.weight_files import save_tensors
from ...errors import TalkingPortraitError, reason_of
from ...files.output_paths import whole_file, writing

_NAME = re.compile(r"step-(\d{8})\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """`step` steps are done; `tensors` by name; `notes` are values that JSON can hold, by name."""

    step: int
    tensors: dict[str, torch.Tensor]
    notes: dict[str, Any]


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, Any] | None = None) -> None:
    """Writes a .safetensors file that no crash can leave half written: beside it first, to the disk, then renamed.

    Raises TalkingPortraitError when the disk refuses it.
    """
    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with whole_file(path) as partial:
        save_tensors(flat, partial, {"notes": json.dumps(notes)} if notes else None)


def notes_of(path: Path) -> dict[str, Any]:
    """The notes that `write_tensors` put into a file; empty for a file without any, or of another kind."""
    try:
        return _read(path, tensors=False)[0]
    except ValueError:
        return {}


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Writes one and removes the oldest beyond `keep`, of those that it has written itself."""
    path = folder / f"step-{checkpoint.step:08d}.safetensors"
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(path, checkpoint.tensors, checkpoint.notes)
        for old in [own for own in _checkpoints(folder) if notes_of(own)][:-keep]:
            old.unlink()
    return path


def newest_checkpoint(folder: Path) -> Path | None:
    """The one of the most steps, None where there is none."""
    return next(reversed(_checkpoints(folder)), None)


def read_training_checkpoint(path: Path) -> Checkpoint:
    """Raises TalkingPortraitError for a file that `save_checkpoint` did not write, or that is damaged."""
    if not os.access(path, os.R_OK):
        raise TalkingPortraitError(f"{path} can't be read; check its permissions.")
    try:
        notes, tensors = _read(path, tensors=True)
    except ValueError as error:
        raise damaged(path, str(error)) from None
    found = _NAME.fullmatch(path.name)
    if not found:
        raise damaged(path, "its name does not say after which step it was written")
    return Checkpoint(int(found[1]), tensors, notes)


def damaged(path: Path, reason: str) -> TalkingPortraitError:
    return TalkingPortraitError(
        f"{path} is no checkpoint that training can continue from ({reason}); remove it to use the one before."
    )


def _read(path: Path, *, tensors: bool) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Notes and, if wanted, tensors of a file that `write_tensors` wrote; ValueError for any other."""
    from safetensors import SafetensorError, safe_open

    try:
        if not path.is_file():  # opening a pipe would wait for somebody to write into it
            raise ValueError("it is no ordinary file")
        with safe_open(path, framework="pt") as file:
            notes = json.loads((file.metadata() or {}).get("notes", "null"))
            if not isinstance(notes, dict):
                raise ValueError("it has no notes by the training loop")
            return notes, {name: file.get_tensor(name) for name in file.keys()} if tensors else {}  # noqa: SIM118
    except json.JSONDecodeError:
        raise ValueError("its notes are no JSON") from None
    except (OSError, SafetensorError, RecursionError, RuntimeError, AttributeError, KeyError) as error:
        raise ValueError(reason_of(error)) from None


def _checkpoints(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name)) if folder.is_dir() else []
    except OSError as error:
        raise TalkingPortraitError(
            f"The training folder {folder} can't be read ({reason_of(error)}); check its permissions, or give "
            "another one."
        ) from None
