"""The error class whose messages users read; it is defined in models, so that checkpoints can raise it too."""

from __future__ import annotations

from ..models.errors import TalkingPortraitError, quoted

__all__ = ["TalkingPortraitError", "is_out_of_memory", "quoted"]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether main memory was refused; torch has no class for that. The host handles graphics memory."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
