"""Talking Portrait: one portrait, one voice, one talking video.

import talking_portrait as tp
tp.animate("me.png", "voice.wav", "out.mp4")

me = tp.prepare_person("me.mp4", "me")
tp.drive_person(tp.train_person(me, "me_run", minutes=20), "voice.wav", "out.mp4", head=me)
"""

from __future__ import annotations

# Imported here because it can't be once a program's main thread has ended, and torch and others do so when they are
# loaded, which may be in another thread that still runs then.
import concurrent.futures.thread  # noqa: F401
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .pipelines.errors import TalkingPortraitError
    from .pipelines.person_api import drive_person, open_person, prepare_person, train_person
    from .pipelines.python_api import animate, drive, render

__all__ = [
    "TalkingPortraitError",
    "animate",
    "comfy_entrypoint",
    "drive",
    "drive_person",
    "open_person",
    "prepare_person",
    "render",
    "train_person",
]

WEB_DIRECTORY = "./web"


def __getattr__(name: str) -> Any:
    """The Python API, loaded when it is first used, so that ComfyUI starts without it."""
    if name in ("animate", "drive", "render"):
        from .pipelines import python_api

        return getattr(python_api, name)
    if name in ("prepare_person", "open_person", "train_person", "drive_person"):
        from .pipelines import person_api

        return getattr(person_api, name)
    if name == "TalkingPortraitError":
        from .pipelines import errors

        return errors.TalkingPortraitError
    if name == "__version__":
        from .pipelines import packages

        return packages.VERSION
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


async def comfy_entrypoint() -> Any:
    """ComfyUI's way in. It prints only the message of an error that escapes, so the traceback is logged here."""
    try:
        from .nodes.extension import TalkingPortraitExtension

        return TalkingPortraitExtension()
    except Exception:
        import logging

        logging.exception("Talking Portrait could not be loaded")
        raise
