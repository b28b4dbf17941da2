"""Files that are read: whether they are there, are ordinary files and may be opened."""

from __future__ import annotations

import re
import stat
from pathlib import Path

from ..errors import TalkingPortraitError, reason_of
from .output_paths import ADDRESS, as_path, shortened

SEARCHED = 1 << 20
"""Bytes at either end of a file, at one of which an MP4 describes its tracks."""
PATTERN = re.compile(r"%0?\d*d|[*?]")
"""Of a file's name: how ffmpeg numbers pictures, or what a shell fills in."""
WEB_PAGES = (b"<!doctype html", b"<html")
MAX_HEADER = 100_000_000
"""Bytes of the description at the beginning of a .safetensors file, by its specification."""
_OTHER_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def existing_file(path: str | Path, kind: str) -> Path:
    """The path of an ordinary file that can be opened; else TalkingPortraitError, which names its `kind` and why not.

    Pipes and devices are never opened, as reading them need not end.
    """
    path = as_path(path, kind)
    what = f"The {kind} file {shortened(path)}"
    try:
        mode = path.stat().st_mode
        other = next((name for is_other, name in _OTHER_KINDS if is_other(mode)), None)
        if other is None:
            with path.open("rb"):
                return path
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise TalkingPortraitError(
                f"{what} is a link to {shortened(path.readlink())}, which does not exist; name the file itself."
            ) from None
        if str(path) == "-":
            raise TalkingPortraitError(
                f"{what} stands for what a pipe gives, but an ordinary file is expected; save it into one first."
            ) from None
        if ADDRESS.match(str(path)):
            raise TalkingPortraitError(
                f"{what} is an address, but a file of this machine is expected; download it first."
            ) from None
        if PATTERN.search(path.name):
            raise TalkingPortraitError(
                f"{what} does not exist, and a single file is expected in place of a pattern for several; name it, or "
                "make a video of all of them first."
            ) from None
        raise TalkingPortraitError(f"{what} does not exist; check its name and folder.") from None
    except PermissionError as error:
        raise TalkingPortraitError(
            f"{what} may not be read ({reason_of(error)}); check its permissions and those of its folder."
        ) from None
    except (OSError, ValueError, RuntimeError) as error:  # links in a circle, names that no file can have
        raise TalkingPortraitError(f"{what} can't be opened ({reason_of(error)}); check its name and folder.") from None
    raise TalkingPortraitError(f"{what} is {other}, but an ordinary file is expected; name one.")


def existing_folder(path: str | Path, kind: str) -> Path:
    """The path of a folder; else TalkingPortraitError, which names its `kind` and says what is there."""
    path = as_path(path, f"{kind} folder")
    if path.is_dir():
        return path
    what = "is a file, but a folder is expected; name one" if path.exists() else "does not exist; check its name"
    raise TalkingPortraitError(f"The {kind} folder {shortened(path)} {what}.")


def kind_of(head: bytes) -> str:
    """What a file that begins so is, where it is neither a picture, sound nor video; empty where that is not known."""
    if head.startswith(b"PK\x03\x04"):
        name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
        return "it holds arrays, as a motion does" if name.endswith(b".npy") else "it is an archive"
    if head[8:10] == b'{"' and 0 < int.from_bytes(head[:8], "little") < MAX_HEADER:
        return "it holds the weights of a network"
    if head.startswith(b"version https://git-lfs"):
        return "it is a git-lfs pointer and not the file itself, which git lfs pull fetches"
    text = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if text.startswith(WEB_PAGES):
        return "it is a web page, so download the file itself"
    return "it is a JSON text" if text.startswith((b"{", b"[")) else ""


def is_encrypted(path: Path) -> bool:
    """Whether a media file of which nothing can be decoded is an MP4 of encrypted tracks, as shops sell them."""
    with path.open("rb") as file:
        ends = file.read(SEARCHED)
        file.seek(max(0, path.stat().st_size - SEARCHED))
        ends += file.read(SEARCHED)
    return ends[4:8] == b"ftyp" and any(kind in ends for kind in (b"encv", b"enca", b"drmi", b"drms"))


def is_file(path: Path) -> bool:
    """Whether there is an ordinary file; False too for names that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
