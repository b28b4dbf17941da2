"""The error class whose messages users read."""

from __future__ import annotations


class TalkingPortraitError(ValueError):
    """Its message says what came, what was expected and what to do."""


def quoted(value: object, limit: int = 60) -> str:
    """A value for an error text: its `repr` in one line of at most `limit` characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= limit else f"{text[: limit - 4]} ..."
