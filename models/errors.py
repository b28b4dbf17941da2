"""The one kind of error that a user is meant to read."""

from __future__ import annotations


class TalkingPortraitError(ValueError):
    """A sentence that says what came, what was expected and what to do."""
