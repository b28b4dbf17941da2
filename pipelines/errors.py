"""The one kind of error that a user is meant to read; it lives below, so that checkpoints can raise it too."""

from __future__ import annotations

from ..models.errors import TalkingPortraitError, shown

__all__ = ["TalkingPortraitError", "shown"]
