"""Where results may be written: checked before the work begins, and replaced only by what is complete."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import TalkingPortraitError

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


def keep_inputs(target: Path, *inputs: Path | None) -> None:
    """Raises TalkingPortraitError when a result would be written over what it is made from."""
    for path in inputs:
        if path is not None and os.path.exists(path) and os.path.exists(target) and os.path.samefile(path, target):
            raise TalkingPortraitError(
                f"{path} is to be read and to be written over; give another name for the result."
            )


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
    return target.with_name(f".{target.stem[-40:]}.{os.getpid()}.part{ending or target.suffix}")


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """The hidden name to write to; it takes `target`'s place when the block is done, and goes when it fails."""
    partial = unfinished(target)
    try:
        yield partial
        rename_durably(partial, target)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def folder_for_results(folder: Path) -> Iterator[None]:
    """Makes a folder; when the block fails, the folders that were made for it go again, unless something is in them."""
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for place in made:
            with suppress(OSError):  # something else has been put there
                place.rmdir()
        raise


@contextmanager
def free_name(target: Path) -> Iterator[Path]:
    """A name that nothing has, held by an empty file until the block writes there; it goes when the block fails.

    It is `target` or, where something has that name, the next number in ComfyUI's way: talk_00002_.mp4 after
    talk_00001_.mp4, and face_00001_.png beside face.png. Raises OSError where no file can be made.
    """
    numbered = re.fullmatch(r"(.+)_(\d{5,})_", target.stem, re.DOTALL)
    start, number = (numbered[1], int(numbered[2])) if numbered else (target.stem, 0)
    place = target
    while not _make(place):
        number += 1
        place = target.with_name(f"{start}_{number:05}_{target.suffix}")
    try:
        yield place
    except BaseException:
        place.unlink(missing_ok=True)
        raise


def _make(place: Path) -> bool:
    """Makes an empty file, unless something has that name; of two that try at once only one succeeds."""
    try:
        with place.open("xb"):
            return True
    except FileExistsError:
        return False


def rename_durably(partial: Path, path: Path) -> None:
    """Gives a finished file its name once its bytes are on the disk, so that not even a power cut leaves a part."""
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    partial.replace(path)
    if os.name == "posix":  # elsewhere folders can't be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


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
