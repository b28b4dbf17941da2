"""Names and shapes of the tensors in the systems' published files, of which no number is here.

`data/published_tensors.json.xz` holds them by system and file: {"anitalker/stage1": {name: shape}}. They come from the
published programs' own classes; for the systems that are trained for each person, with their published settings.
"""

from __future__ import annotations

import json
import lzma
from functools import cache
from pathlib import Path

import torch

_TABLE = Path(__file__).with_name("data") / "published_tensors.json.xz"


@cache
def _table() -> dict[str, dict[str, list[int]]]:
    return json.loads(lzma.decompress(_TABLE.read_bytes()))


def published_files() -> set[str]:
    return set(_table())


def published_tensors(file: str) -> dict[str, torch.Tensor]:
    """Tensors without values, on the meta device."""
    return {name: torch.empty(shape, device="meta") for name, shape in _table()[file].items()}
