"""The one kind of error that a user is meant to read."""

from __future__ import annotations


class TalkingPortraitError(ValueError):
    """A sentence that says what came, what was expected and what to do."""


def quoted(value: object, limit: int = 60) -> str:
    """A value as a sentence may quote it: as code would write it, in one line of at most `limit` characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= limit else f"{text[: limit - 4]} ..."
