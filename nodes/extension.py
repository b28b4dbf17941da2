"""The list of this pack's nodes, as ComfyUI asks for it."""

from __future__ import annotations

from typing import Any

from . import host

NODES: tuple[Any, ...] = ()


class TalkingPortraitExtension(host.ComfyExtension):
    """All nodes of the pack."""

    def __init__(self) -> None:
        host.register_model_folders()

    async def get_node_list(self) -> list[type[Any]]:
        return list(NODES)
