"""A training run on disk: all it needs to go on in one safetensors file, which is there whole or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...errors import TalkingPortraitError
from ...files.output_paths import replacing

_NAME = re.compile(r"step-(\d{8})\.safetensors")
_UNFINISHED = re.compile(r"\.step-\d{8}\.\d+\.part\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """`step` steps are done; `tensors` by name; `notes` is anything that JSON can say."""

    step: int
    tensors: dict[str, torch.Tensor]
    notes: dict[str, Any]


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, Any] | None = None) -> None:
    """Writes a .safetensors file that no crash can leave half written: beside it first, to the disk, then renamed.

    Raises TalkingPortraitError when the disk refuses it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        with replacing(path) as partial:
            save_file(flat, partial, {"notes": json.dumps(notes)} if notes else None)
    except (OSError, SafetensorError) as error:
        raise TalkingPortraitError(
            f"{path} can't be written ({error}); check that its folder exists, may be written to and has room."
        ) from None


def notes_of(path: Path) -> dict[str, Any]:
    """The notes that `write_tensors` put into a file; empty for a file without any, or of another kind."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return dict(json.loads((file.metadata() or {})["notes"]))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return {}


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Writes one and removes the oldest beyond `keep`, of those that it has written itself."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{checkpoint.step:08d}.safetensors"
    write_tensors(path, checkpoint.tensors, checkpoint.notes)
    for old in [own for own in _checkpoints(folder) if notes_of(own)][:-keep]:
        old.unlink()
    for part in folder.iterdir():  # what a killed run was writing
        if _UNFINISHED.fullmatch(part.name):
            part.unlink()
    return path


def newest_checkpoint(folder: Path) -> Path | None:
    """The one of the most steps, None where there is none."""
    return next(reversed(_checkpoints(folder)), None)


def read_training_checkpoint(path: Path) -> Checkpoint:
    """Raises TalkingPortraitError for a file that `save_checkpoint` did not write, or that is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            notes = json.loads((file.metadata() or {})["notes"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise TalkingPortraitError(
            f"{path} is no checkpoint that training can go on from ({error}); remove it to go on from the one before."
        ) from None
    found = _NAME.fullmatch(path.name)
    return Checkpoint(int(found[1]) if found else int(notes["step"]), tensors, notes)


def _checkpoints(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))
