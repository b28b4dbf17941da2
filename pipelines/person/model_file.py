"""The files of models that are trained for one person: tensors, and notes in JSON among the metadata."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ...models.checkpoints import State, check_kind, read_checkpoint
from ..errors import TalkingPortraitError, one_line, quoted

Model = TypeVar("Model")


@dataclass(frozen=True)
class ModelFormat:
    """The files of one system's models.

    `kind` is their kind of checkpoint, `name` the system's and `command` what trains it, for messages; `metadata` the
    key of the notes, which hold their `version`.
    """

    kind: str
    name: str
    command: str
    metadata: str
    version: int

    def read(self, path: str | Path, build: Callable[[State, Mapping[str, Any]], Model]) -> Model:
        """What `build` makes of a file's tensors and notes.

        Raises TalkingPortraitError for a file of another system, of another version, or that is damaged.
        """
        from safetensors import SafetensorError, safe_open

        state = read_checkpoint(path)
        check_kind(state, (self.kind,), f"a person's {self.name} model (as {self.command} writes it)", path)
        try:
            with safe_open(path, "pt") as file:
                text = (file.metadata() or {}).get(self.metadata, "")
            notes = json.loads(text)
            version = notes["version"]
        except (SafetensorError, ValueError, LookupError, TypeError, RecursionError, OSError):
            raise self.unfit(path, "it does not say how it was trained") from None
        if version != self.version:
            raise TalkingPortraitError(
                f"{Path(path).name} was trained by another version of this pack (format {quoted(version)}, but "
                f"{self.version} is expected); train the person again."
            )
        try:
            return build(state, notes)
        except TalkingPortraitError:
            raise
        except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
            raise self.unfit(path, f"its description lacks or misstates {one_line(str(error), 80)}") from None

    def unfit(self, path: str | Path, problem: str) -> TalkingPortraitError:
        """The error for a file of which something can't be used."""
        return TalkingPortraitError(
            f"{Path(path).name} is no person's {self.name} model that can be used: {problem}; train the person again."
        )
