"""Where results may be written: checked before the work begins, and replaced only by what is complete."""

from __future__ import annotations

import errno
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import TalkingPortraitError, quoted, reason_of
from .scratch import scratch_folder

MAX_NAME_BYTES = 200
"""Of a name that is chosen; common file systems take 255."""
ADDRESS = re.compile("(https?|ftp|s3|rtsp):/", re.IGNORECASE)
"""Of a path, which has one slash where two were."""
NUMBER_BYTES = 20
"""What a number and an ending may add to it."""


def file_to_write(path: str | Path) -> Path:
    """The absolute path of a file that can be written; a symbolic link is followed, so that its target is renewed.

    Raises TalkingPortraitError for a folder or device, a folder that is not there or refuses new files, and a name
    that no file can have.
    """
    path = as_path(path, "file to write")
    try:
        target = _resolved(path)
        other = target.exists() and not target.is_file()
        known = target.parent.is_dir()
    except (OSError, ValueError, RuntimeError) as error:  # an endless name, one with NUL, links in a circle
        raise TalkingPortraitError(
            f"The file {shortened(path)} can't be made ({reason_of(error)}); give another name."
        ) from None
    if other:
        raise TalkingPortraitError(f"{shortened(path)} is no ordinary file and can't be written to; give another name.")
    if not known:
        wrong = "is a file; name a folder" if target.parent.exists() else "does not exist; make it first"
        raise TalkingPortraitError(f"The folder {shortened(target.parent)} {wrong}.")
    if target.exists() and not target.stat().st_mode & 0o222:
        raise TalkingPortraitError(
            f"The file {shortened(path)} is write-protected, so it is not replaced; give another name, or remove it."
        )
    if len(os.fsencode(target.name)) > MAX_NAME_BYTES + NUMBER_BYTES:
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


def keep_apart(out: Path, *searched: Path) -> None:
    """Raises TalkingPortraitError when results would go into a folder that is searched for what they are made from."""
    for folder in searched:
        if folder.is_dir() and out.resolve().is_relative_to(folder.resolve()):
            raise TalkingPortraitError(
                f"The results are to go into {shortened(out)}, which is searched with all of {shortened(folder)}; name "
                "a folder outside of it with --out."
            )


def check_output_folder(folder: Path) -> None:
    """Raises TalkingPortraitError unless files can be put into `folder`, or into one that is made there; makes none."""
    if ADDRESS.match(str(folder)):
        raise TalkingPortraitError(
            f"{shortened(folder)} is an address, but a folder of this machine is expected; name one with --out."
        )
    try:
        place = _resolved(folder)
        while not place.exists() and place != place.parent:
            place = place.parent
        usable = place.is_dir()
    except (OSError, ValueError, RuntimeError) as error:
        raise TalkingPortraitError(
            f"The folder {shortened(folder)} can't be made ({reason_of(error)}); name another with --out."
        ) from None
    if not usable:
        raise TalkingPortraitError(
            f"The folder {shortened(folder)} can't be made, as {shortened(place)} is a file; name another with --out."
        )
    _try_folder(place)


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """The name to write to, which nobody else has; it takes `target`'s place when the block is done."""
    with scratch_folder(target.parent, target.stem) as scratch:
        partial = scratch / target.name
        yield partial
        rename_durably(partial, target)


def put_in_place(made: Path, place: Path, own: re.Pattern[str]) -> None:
    """Gives a finished folder its name; of one that has it, files of `own` names go, and what others put there stays.

    Raises OSError where the system refuses it.
    """
    remove_own(place, own)
    if not os.path.lexists(place):
        made.replace(place)
        return
    for path in sorted(made.iterdir()):
        path.replace(place / path.name)


def remove_own(folder: Path, own: re.Pattern[str]) -> None:
    """Removes the files of `own` names in a folder, and the folder where nothing else is in it; no link is followed."""
    if folder.is_symlink() or not folder.is_dir():
        return
    for path in list(folder.iterdir()):
        if own.fullmatch(path.name) and (path.is_symlink() or path.is_file()):
            path.unlink()
    with suppress(OSError):  # something else is in it
        folder.rmdir()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns errors of the disk into a TalkingPortraitError while `path` is written."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise TalkingPortraitError(
            f"{path} can't be written ({reason_of(error)}); check that its folder exists, may be written to and "
            "has room."
        ) from None


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """As `replacing`, with errors of the disk as `writing` has them."""
    with writing(path), replacing(path) as partial:
        yield partial


@contextmanager
def folder_for_results(folder: Path) -> Iterator[None]:
    """Makes a folder; after the block, the folders that were made for it go again, unless something is in them."""
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for place in made:
            with suppress(OSError):  # something has been put there
                place.rmdir()


@dataclass
class NewFile:
    """A file that overwrites none: `partial` is where to write it, `path` its name once it is written."""

    partial: Path
    path: Path


@contextmanager
def new_file(target: Path) -> Iterator[NewFile]:
    """A file that gets its name when the block is done: `target` or, where something has that name, the next number.

    Numbers are ComfyUI's: talk_00002_.mp4 after talk_00001_.mp4, and face_00001_.png beside face.png. Of several that
    are written at once each gets a name of its own. Raises OSError where no file can be made.
    """
    numbered = re.fullmatch(r"(.+)_(\d{5,})_", target.stem, re.DOTALL)
    start, number = (numbered[1], int(numbered[2])) if numbered else (target.stem, 0)
    with scratch_folder(target.parent, target.stem) as scratch:
        file = NewFile(scratch / target.name, target)
        yield file
        _to_disk(file.partial)
        name, taken = target.name, set(os.listdir(target.parent))
        while name in taken or not _give_name(file.partial, target.with_name(name)):
            number += 1
            name = f"{start}_{number:05}_{target.suffix}"
        file.path = target.with_name(name)
        _to_disk(target.parent)


def _give_name(partial: Path, path: Path) -> bool:
    """Gives a file a name that nothing has; False where something has it."""
    try:
        os.link(partial, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        try:
            path.open("xb").close()
        except FileExistsError:
            return False
        partial.replace(path)
    return True


def rename_durably(partial: Path, path: Path) -> None:
    """Gives a finished file its name once its bytes are on the disk, so that not even a power cut leaves a part."""
    _to_disk(partial)
    partial.replace(path)
    _to_disk(path.parent)


def _to_disk(path: Path) -> None:
    """Waits until a file or a folder is on the disk."""
    if path.is_dir() and os.name != "posix":  # elsewhere folders can't be opened
        return
    opened = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def cut_to_bytes(name: str, most: int) -> str:
    """The start of a name that has at most so many bytes on the disk, without half of a letter.

    Letters that names of files can't have here, where the locale is C, are left out.
    """
    encoding = sys.getfilesystemencoding()
    return name.encode(encoding, "ignore")[:most].decode(encoding, "ignore")


def as_path(value: object, what: str) -> Path:
    """The path that was given for `what`; else TalkingPortraitError."""
    if not isinstance(value, str | os.PathLike):
        raise TalkingPortraitError(f"The {what} is {quoted(value)}, but a path is expected; give it as text.")
    return Path(value)


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
            f"The folder {shortened(folder)} can't be written to ({reason_of(error)}); check its permissions and free "
            "space, or name another."
        ) from None
