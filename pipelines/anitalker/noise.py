"""The noise that motion starts from."""

from __future__ import annotations

import re

import torch

from ...models.anitalker.stage2 import Stage2
from ..errors import check_seed

_NEVER_DRAWN = re.compile(r"weights$|.*\.norm(_\w+)?\.")
"""Parameters that begin as ones or zeros."""
_ALSO_DRAWN = (32, 3, 256, 256)
"""A buffer of the published program that nothing reads."""
_PIECE = 1 << 22


def seeded_noise(frames: int, motion: int, seed: int) -> torch.Tensor:
    """(1, frames, motion), the same on every machine. Raises TalkingPortraitError for a seed out of range."""
    check_seed(seed)
    return torch.randn(1, frames, motion, generator=torch.Generator().manual_seed(seed))


def published_noise(stage2: Stage2, frames: int, seed: int) -> torch.Tensor:
    """What the published program draws for a seed when features were computed before, to repeat its results.

    It seeds one generator, draws the weights of a network that it then overwrites, and the noise after them. Equal on
    the CPU with torch 2.13; the program's HuBERT, when it computes features in the same run, may draw in between.
    """
    check_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    drawn = sum(value.numel() for name, value in stage2.named_parameters() if not _NEVER_DRAWN.match(name))
    for start in range(0, drawn, _PIECE):
        torch.rand(min(_PIECE, drawn - start), generator=generator)
    torch.randn(_ALSO_DRAWN, generator=generator)
    return torch.randn(1, frames, stage2.config.motion, generator=generator)
