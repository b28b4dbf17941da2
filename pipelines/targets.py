"""Where results may be written: looked at before the work begins, not after it."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from .errors import TalkingPortraitError

MAX_NAME_BYTES = 200
"""Common file systems take 255; marks for numbers and unfinished files are added."""


def file_to_write(path: str | Path) -> Path:
    """The absolute path of a file that can be written; a symbolic link is followed, so that its target is renewed.

    Raises TalkingPortraitError for a folder or device, a folder that is not there or refuses new files, and a name
    that no file can have.
    """
    path = Path(path)
    try:
        target = _resolved(path)
        other = target.exists() and not target.is_file()
        known = target.parent.is_dir()
    except (OSError, ValueError, RuntimeError) as error:  # an endless name, one with NUL, links in a circle
        raise TalkingPortraitError(
            f"The file {shortened(path)} can't be made ({_reason(error)}); give another name."
        ) from None
    if other:
        raise TalkingPortraitError(f"{shortened(path)} is no ordinary file and can't be written to; give another name.")
    if not known:
        raise TalkingPortraitError(f"The folder {shortened(target.parent)} does not exist; make it first.")
    if len(os.fsencode(target.name)) > MAX_NAME_BYTES:
        raise TalkingPortraitError(f"The file name {shortened(path)} is too long; give a shorter one.")
    _try_folder(target.parent)
    return target


def check_output_folder(folder: Path) -> None:
    """Raises TalkingPortraitError unless files can be put into `folder`, or into one that is made there; makes none."""
    try:
        place = _resolved(folder)
        while not place.exists() and place != place.parent:
            place = place.parent
        usable = place.is_dir()
    except (OSError, ValueError, RuntimeError) as error:
        raise TalkingPortraitError(
            f"The folder {shortened(folder)} can't be made ({_reason(error)}); name another with --out."
        ) from None
    if not usable:
        raise TalkingPortraitError(
            f"The folder {shortened(folder)} can't be made, as {shortened(place)} is a file; name another with --out."
        )
    _try_folder(place)


def unfinished(target: Path, ending: str = "") -> Path:
    """The hidden name beside `target` for what is not yet complete; each process has its own."""
    return target.with_name(f".{target.stem[:40]}.{os.getpid()}.part{ending or target.suffix}")


def shortened(path: Path) -> str:
    """A path for a sentence: whole unless it is absurdly long."""
    text = str(path)
    return text if len(text) <= 300 else f"{text[:300]} ..."


def _resolved(path: Path) -> Path:
    """Where a path leads; OSError or RuntimeError for links in a circle, which Python resolves from 3.13 on."""
    target = path.resolve()
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return target


def _try_folder(folder: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise TalkingPortraitError(
            f"The folder {shortened(folder)} can't be written to ({_reason(error)}); check its permissions and free "
            "space, or name another."
        ) from None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
