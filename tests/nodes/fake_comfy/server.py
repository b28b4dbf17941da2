"""Where progress text goes."""

from __future__ import annotations

from types import SimpleNamespace

said = []
PromptServer = SimpleNamespace(
    instance=SimpleNamespace(send_progress_text=lambda text, node_id: said.append((node_id, text)))
)
