"""Damage of media files: what a decoder finds, and what sound files lack without an error of ffmpeg's.

The latter are the end of WAV and its like and of MP3, and pages of Ogg.
"""

from __future__ import annotations

import logging
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from ..errors import TalkingPortraitError

_log = logging.getLogger(__name__)

CLOCK_SLACK = Fraction(15, 1000)
"""Seconds by which the times in a file may differ from the count of samples before silence or a cut makes up for it."""
_DECLARED_DURATION = (
    *("mov,mp4", "matroska", "flac", "flv", "avi", "aiff", "au", "tta", "rm"),
    *("ape", "ast", "gxf", "mpc", "nistsphere", "tak"),
)
"""Formats whose header says how long the file is; elsewhere ffmpeg estimates it."""
_UNKNOWN_SIZE = 0x7FFF0000
"""Programs that write WAV into a pipe put this size or a larger one."""
_MOST_CHUNKS = 10_000
_MOST_BLOCKS = 1_000_000
"""After so many, made to take long, no further ones are looked at; an hour of stereo VOC has some 350000 blocks."""
_MP3_START = 4096
"""Bytes of an MP3 file after its ID3 tag, within which the frame of its figures lies."""
_REVERSED_BITS = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))
_SEARCHED = 1 << 16
_DAMAGED_PAGES = 1000
"""After so many, no further ones are searched for."""
_OGG_SOUNDS = (b"\x01vorbis", b"OpusHead", b"Speex   ", b"\x7fFLAC")
"""How the first packet of a sound begins."""


class Damage:
    """Places in one stream of a file that can't be decoded or are not there; `report` names the first.

    Holes before `since`, at which the timeline begins, are none: fragmented MP4 has one behind the first packet.
    """

    def __init__(self, path: Path, since: Fraction | None = None) -> None:
        self._path = path
        self._since = since
        self._first: Fraction | None = None
        self._hole: tuple[Fraction, Fraction] | None = None
        self._holes = 0

    def at(self, time: Fraction) -> None:
        """What begins at `time` can't be decoded."""
        self._first = time if self._first is None else min(self._first, time)

    def between(self, end: Fraction, begin: Fraction) -> None:
        """Sound ended at `end`, and the next begins at `begin`."""
        if self._since is not None:
            end = max(end, self._since)
        if begin - end > CLOCK_SLACK:
            self._hole = self._hole or (end, begin)
            self._holes += 1

    def report(self, start: Fraction) -> None:
        """One warning at most; `start` is the time at which the file begins."""
        if self._first is not None:
            place = max(float(self._first - start), 0.0)
            _log.warning("%s is damaged at %.2f s; what can't be decoded was left out.", self._path.name, place)
        elif self._hole is not None:
            end, begin = (float(time - start) for time in self._hole)
            others = f" (the first of {self._holes} places)" if self._holes > 1 else ""
            _log.warning(
                "%s has no sound from %.2f to %.2f s%s; silence takes its place.", self._path.name, end, begin, others
            )


class DamagedMediaError(TalkingPortraitError):
    """A file that ends before its header says, or can't be read to its end."""


def declared_seconds(path: Path, kind: str, estimate: Fraction) -> Fraction | None:
    """How long a file of ffmpeg's format `kind` is by its own word; None where it does not say.

    `estimate` is the length that ffmpeg gives.
    """
    missing = _seconds_with_the_missing(path, kind, estimate) if kind in _BY_SIZE else None
    return missing or (estimate if kind.startswith(_DECLARED_DURATION) else None)


def check_end(
    kind: str, begin: Fraction, reached: Fraction | None, declared: Fraction | None, broken: list[str]
) -> None:
    """Raises DamagedMediaError for a file whose packets, from `begin` to `reached`, end long before its header says.

    `declared` are the header's seconds; what `broken` says of a file counts where it has none.
    """
    seconds = (reached or begin) - begin
    if declared is not None:
        # Some programs state when the last frame ends, which is later where the first does not begin at 0.
        stated_end = kind.startswith("matroska") and begin > 0
        there = reached if stated_end and reached is not None else seconds
        if there < declared - max(declared / 30, Fraction(3, 10)):
            # AVI counts packets, so that what is lost in the middle is not seen before the end.
            missing = "a part of it is" if kind == "avi" else "its end is"
            raise DamagedMediaError(f"{missing} missing: {float(seconds):.2f} of {float(declared):.2f} s are there")
    elif broken:
        raise DamagedMediaError(f"it can't be read beyond {float(seconds):.2f} s: {broken[0]}")


@dataclass(frozen=True)
class _Stated:
    """How many `bytes` of samples, or of everything, a file has by its header, 0 where it leaves that open.

    `begin` is their place; `rate` how many there are in a second, 0 where the header does not say.
    """

    bytes: int = 0
    begin: int = 0
    rate: int = 0


def _seconds_with_the_missing(path: Path, kind: str, estimate: Fraction) -> Fraction | None:
    """How long a file of a `kind` in _BY_SIZE is by its own word, where that is more than there is; else None.

    `estimate` is the length that ffmpeg gives: of MP3 that of the whole, of the others that of the bytes there are.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if kind == "mp3":
            return estimate if _mp3_bytes(file) > size else None
        stated = _HEADERS[kind](file)
        there = size - stated.begin
        if not 0 < there < stated.bytes:
            return None
        return Fraction(stated.bytes, stated.rate) if stated.rate else estimate * stated.bytes / there


def _riff_bytes(file: BinaryIO) -> _Stated:
    """Of WAV the samples, of AVI everything; RIFX has its numbers the other way round, RF64 the large ones in ds64."""
    start = file.read(12)
    order = ">" if start[:4] == b"RIFX" else "<"
    if len(start) < 12 or start[:4] not in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
        return _Stated()
    if start[8:] == b"AVI ":
        return _Stated(_known(struct.unpack(order + "I", start[4:8])[0]), 8)
    large = rate = 0
    for head in _heads(file, 8):
        name, length = struct.unpack(order + "4sI", head)
        begin = file.tell()
        if name == b"data":
            return _Stated(large or _known(length), begin, rate)
        if name == b"ds64" and length >= 16:
            large = struct.unpack("<8xQ", file.read(16).ljust(16, b"\0"))[0]
        if name == b"fmt " and length >= 12:
            rate = struct.unpack(order + "8xI", file.read(12).ljust(12, b"\0"))[0]
        _move_to(file, begin + length + length % 2)
    return _Stated()


def _heads(file: BinaryIO, size: int, most: int = _MOST_CHUNKS) -> Iterator[bytes]:
    """The heads of a file's chunks; whoever takes one moves on to the next."""
    for _ in range(most):
        head = file.read(size)
        if len(head) < size:
            break
        yield head


def _move_to(file: BinaryIO, place: int) -> int:
    """Goes to a place, or to the end where it lies beyond, as systems refuse places that no file of theirs can have."""
    file.seek(min(place, os.fstat(file.fileno()).st_size))
    return place


def _known(size: int) -> int:
    return size if size < _UNKNOWN_SIZE else 0


def _w64_bytes(file: BinaryIO) -> _Stated:
    """Sony Wave64: as WAV, with names of 16 bytes, sizes of 8 that count both, and chunks at multiples of 8."""
    begin, rate = file.seek(40), 0
    for head in _heads(file, 24):
        name, length = struct.unpack("<4s12xQ", head)
        if name == b"data":
            return _Stated(max(length - 24, 0), begin + 24, rate)
        if name == b"fmt ":
            rate = struct.unpack("<8xI", file.read(12).ljust(12, b"\0"))[0]
        begin = _move_to(file, begin + max(length + 7, 24) // 8 * 8)
    return _Stated()


def voc_is_cut_short(path: Path) -> bool:
    """Whether a Creative Voice file ends within one of its blocks."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(20)
        begin = file.seek(int.from_bytes(file.read(2), "little"))
        for head in _heads(file, 4, _MOST_BLOCKS):
            if not head[0]:  # the last block has kind 0 and no length
                break
            begin = _move_to(file, begin + 4 + int.from_bytes(head[1:], "little"))
        return begin > size


def _caf_bytes(file: BinaryIO) -> _Stated:
    """The samples of a CAF file."""
    begin = file.seek(8)
    for head in _heads(file, 12):
        name, length = struct.unpack(">4sq", head)
        begin += 12
        if length < 0 or name == b"data":
            return _Stated(max(length, 0), begin)
        begin = _move_to(file, begin + length)
    return _Stated()


_HEADERS = {"wav": _riff_bytes, "avi": _riff_bytes, "w64": _w64_bytes, "caf": _caf_bytes}
_BY_SIZE = (*_HEADERS, "mp3")
"""ffmpeg's names of formats for which it takes less than the header says where bytes are missing."""


def _mp3_bytes(file: BinaryIO) -> int:
    """Where the frames of an MP3 file end by the figures that most encoders put into the first one; 0 without."""
    head = file.read(10)
    begin = 0
    if len(head) == 10 and head[:3] == b"ID3":
        a, b, c, d = head[6:]
        begin = 10 + (a << 21 | b << 14 | c << 7 | d)
    file.seek(begin)
    start = file.read(_MP3_START)
    for mark in (b"Xing", b"Info"):
        place = start.find(mark)
        if place >= 0 and len(start) >= place + 16:
            flags, *values = struct.unpack(">III", start[place + 4 : place + 16])
            if flags & 2:  # the number of bytes, which follows that of frames where there is one
                return begin + int(values[flags & 1])
    return 0


@dataclass(frozen=True)
class OggDamage:
    """What the sound of an Ogg file lacks: `first` is the second of the first page that is not there, if any."""

    first: Fraction | None
    cut_short: bool
    """Whether the file ends within a page."""


def ogg_damage(path: Path, rate: int) -> OggDamage:
    """Reads all pages of a file whose sound has `rate` positions a second; ffmpeg passes over damaged ones."""
    sequences: dict[int, int] = {}
    times: dict[int, Fraction] = {}
    first: Fraction | None = None
    cut_short = False
    with path.open("rb") as file:
        for page in _ogg_pages(file):
            if page is None:
                cut_short = True
                continue
            if page.packet.startswith(_OGG_SOUNDS):
                times[page.stream] = Fraction(0)
            elif page.stream in times and page.sequence != sequences[page.stream] + 1 and first is None:
                first = times[page.stream]
            sequences[page.stream] = page.sequence
            if page.stream in times and page.position > 0:
                times[page.stream] = Fraction(page.position, rate)
    return OggDamage(first, cut_short)


@dataclass(frozen=True)
class _OggPage:
    stream: int
    sequence: int
    position: int
    packet: bytes
    """The start of its first packet."""


def _ogg_pages(file: BinaryIO) -> Iterator[_OggPage | None]:
    """All whole pages; None at the end of a file that ends within one."""
    begin = damaged = 0
    cut_short = False
    while damaged <= _DAMAGED_PAGES:
        file.seek(begin)
        head = file.read(27)
        if not head:
            break
        if len(head) == 27 and head[:4] == b"OggS":
            lengths = file.read(head[26])
            body = file.read(sum(lengths))
            cut_short = len(lengths) < head[26] or len(body) < sum(lengths)
            position, stream, sequence, checksum = struct.unpack("<qIII", head[6:26])
            if not cut_short and checksum == _ogg_checksum(head[:22] + bytes(4) + head[26:] + lengths + body):
                begin = file.tell()
                yield _OggPage(stream, sequence, position, body[:8])
                continue
        elif b"OggS".startswith(head[:4]):
            cut_short = True
        damaged += 1
        following = _find(file, b"OggS", begin + 1)
        if following is None:
            break
        begin = following
    if cut_short:
        yield None


def _ogg_checksum(page: bytes) -> int:
    """CRC-32 that takes the highest bit of each byte first, starts with 0 and inverts nothing, unlike zlib's."""
    mirrored = zlib.crc32(page.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)


def _find(file: BinaryIO, mark: bytes, begin: int) -> int | None:
    """The place of the first `mark` from `begin` on."""
    file.seek(begin)
    window = b""
    while block := file.read(_SEARCHED):
        window = window[-len(mark) + 1 :] + block
        place = window.find(mark)
        if place >= 0:
            return file.tell() - len(window) + place
    return None
