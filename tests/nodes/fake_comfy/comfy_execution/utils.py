"""Which node runs."""

from __future__ import annotations

from types import SimpleNamespace


def get_executing_context():
    return SimpleNamespace(node_id="17")
