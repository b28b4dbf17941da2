"""Talking Portrait: one portrait, one voice, one talking video."""

from __future__ import annotations

from typing import Any

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> Any:
    """ComfyUI's way in. It prints only the message of an error that escapes, so the traceback is logged here."""
    try:
        from .nodes.extension import TalkingPortraitExtension

        return TalkingPortraitExtension()
    except Exception:
        import logging

        logging.exception("Talking Portrait could not be loaded")
        raise
