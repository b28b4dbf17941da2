"""Pictures in and out, by Pillow."""

from __future__ import annotations

import mmap
import re
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from ..errors import TalkingPortraitError, reason_of
from .input_paths import existing_file, is_file
from .output_paths import shortened

if TYPE_CHECKING:
    from PIL import ImageFile

MAX_PIXELS = 67_000_000
_MPEG = "MPEG"
"""Pillow's name of a film, which it does not read."""
REFUSED_FORMATS = frozenset(["EPS", "WMF", _MPEG, "BUFR", "GRIB", "HDF5"])
"""Pillow's names of formats that are drawings, of which EPS would run another program, or hold no picture."""
_JPEG_BEGIN = b"\xff\xd8\xff"
_JPEG_SCAN, _JPEG_END = 0xDA, 0xD9
_JPEG_ALONE = frozenset([0x01, *range(0xD0, 0xD8)])
"""Markers of JPEG (ITU-T T.81) without a length behind them."""
_PNG_BEGIN = b"\x89PNG\r\n\x1a\n"
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_PNG_NEEDED_TEXTS = (b"Raw profile type exif\0", b"exif\0", b"XML:com.adobe.xmp\0")
"""How texts begin that may say how a picture is turned."""
_LONG_TEXT = 1000
"""Bytes of a text in a file, of which those of fewer are less than the megabyte that Pillow takes."""
_PILLOWS_PROFILE, _MAX_PROFILE = 1 << 20, 1 << 24
"""Bytes of a PNG's colour profile that Pillow takes, and how many are taken here."""
_PNM_HEADER = re.compile(rb"P[56]" + 3 * rb"(?:\s|#[^\n]*\n)+(\d{1,9})" + rb"\s")
_PART_OF_JPEGS = re.compile(
    rb"(?:HTTP/[\t\r\n -~]*?\r?\n\r?\n)?\s*--[\t\r\n -~]*?image/jpe?g[\t\r\n -~]*?\xff\xd8\xff", re.I
)
"""The header of the first of several pictures that are sent one after the other, and before it that of the answer."""
_PART_HEADER = 1 << 13
_HEAD = 1 << 22
"""Bytes in which a picture's size stands, behind what a camera says of itself."""

Seen = TypeVar("Seen")


def read_image(path: str | Path, *, alpha: bool = False) -> torch.Tensor:
    """A picture file as (H, W, 3) float32 in 0..1, upright by its EXIF tag; transparency is laid over white.

    With `alpha` a picture that has transparency comes as (H, W, 4).

    Any colour space and depth becomes 8-bit sRGB; of an animation the first frame that it shows is taken. Raises
    TalkingPortraitError for what is no picture or is too large.
    """
    path = existing_file(path, "picture")
    try:
        with _no_warnings():
            array = _decoded(path, alpha)
    except TalkingPortraitError:
        raise
    except Exception as error:  # every decoder has its own for a damaged file
        reason = str(error)[:120] or type(error).__name__
        raise TalkingPortraitError(
            f"The picture {path.name} can't be read ({reason}); save it again as PNG or JPEG."
        ) from None
    return torch.from_numpy(array).float().div_(255)


def is_picture(path: str | Path) -> bool:
    """Whether a file is a picture by its beginning, whatever its name says and whether it is whole or not."""
    return _of_picture(path, lambda file: file.format != _MPEG and picture_stream(Path(path)) is None, False)


def is_animated(path: str | Path) -> bool:
    """Whether a picture file moves, so that `read_image` takes the first picture of several.

    Pages of a TIFF and the second lens of a photograph do not count.
    """
    moving = ("AVIF", "GIF", "PNG", "WEBP")
    return _of_picture(path, lambda file: file.format in moving and bool(getattr(file, "is_animated", False)), False)


def pages(path: str | Path) -> int:
    """How many pages a TIFF has, of which `read_image` takes the first; 1 for any other picture."""
    return _of_picture(path, lambda file: int(getattr(file, "n_frames", 1)) if file.format == "TIFF" else 1, 1)


def _of_picture(path: str | Path, look: Callable[[Any], Seen], otherwise: Seen) -> Seen:
    """What `look` makes of an opened picture, and `otherwise` of what is none."""
    try:
        if not is_file(Path(path)):  # opening a pipe would wait for somebody to write into it
            return otherwise
        with _no_warnings(), open_picture(Path(path)) as file:
            return look(file)
    except Exception:  # no picture, or one that only its reader can tell what is wrong with
        return otherwise


def picture_stream(path: Path) -> str | None:
    """ffmpeg's name for a file of pictures one after the other, which is a film without a container; else None.

    JPEG, PNG, BMP or PNM pictures that follow each other at once and have the same size, as programs write them into
    pipes, and JPEG pictures with a header each, as cameras send them over HTTP. What else follows a picture, such as
    the short film of a telephone or a gain map, does not count, and neither do the several pictures of an MPO file.
    Raises OSError for a file that can't be read.
    """
    from PIL import Image

    with path.open("rb") as file:
        start = file.read(_PART_HEADER)
        if _PART_OF_JPEGS.match(start):
            return "mjpeg"
        found = next((kind for kind in _STREAMS if start.startswith(kind.begin)), None)
        if found is None:
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            end = found.end(data)
            if end is None or data[end : end + len(found.begin)] != found.begin:
                return None
            parts = [data[:_HEAD], data[end : end + _HEAD]]
    try:
        with _no_warnings():
            first, second = (Image.open(BytesIO(part), formats=[found.format]) for part in parts)
    except Exception:  # another kind of JPEG, or a cut one
        return None
    return found.demuxer if (first.format, first.size) == (found.format, second.size) else None


def open_picture(path: Path, formats: list[str] | None = None) -> ImageFile.ImageFile:
    """Pillow's picture of a file; raises whatever Pillow raises.

    Long texts of a PNG, such as the workflow that made it, are left out: Pillow refuses a picture for them.
    """
    from PIL import Image

    shorter, profile = _without_long_texts(path)
    if shorter is None:
        return Image.open(path, formats=formats)
    picture = Image.open(BytesIO(shorter), formats=formats)
    picture.filename = str(path)  # where others look into the file
    if profile is not None:
        picture.info["icc_profile"] = profile
    return picture


def _without_long_texts(path: Path) -> tuple[bytes | None, bytes | None]:
    """The bytes of a PNG without texts and a colour profile that Pillow refuses, and that profile; None without any."""
    with path.open("rb") as file:
        if file.read(len(_PNG_BEGIN)) != _PNG_BEGIN:
            return None, None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            left_out: list[tuple[int, int]] = []
            profile: bytes | None = None
            for kind, begin, end in _png_chunks(data):
                if kind in _PNG_TEXTS:
                    long = end - begin > _LONG_TEXT and not data[begin + 8 : end].startswith(_PNG_NEEDED_TEXTS)
                elif kind == b"iCCP" and profile is None:
                    profile = _long_profile(data[begin + 8 : end - 4])
                    long = profile is not None
                else:
                    continue
                if long:
                    left_out.append((begin, end))
            if not left_out:
                return None, None
            places = [0, *(place for span in left_out for place in span), len(data)]
            return b"".join(data[a:b] for a, b in zip(places[::2], places[1::2], strict=True)), profile


def _long_profile(chunk: bytes) -> bytes | None:
    """The colour profile in a PNG's iCCP where it is longer than Pillow takes; else None."""
    packed = chunk.partition(b"\0")[2][1:]
    try:
        profile = zlib.decompressobj().decompress(packed, _MAX_PROFILE)
    except zlib.error:
        return None
    return profile if len(profile) > _PILLOWS_PROFILE else None


def _png_end(data: mmap.mmap) -> int | None:
    """The place behind the last chunk of the PNG picture that `data` begins with."""
    return next((end for kind, _, end in _png_chunks(data) if kind == b"IEND"), None)


def _png_chunks(data: mmap.mmap) -> Iterator[tuple[bytes, int, int]]:
    """The kinds of a PNG's chunks with the places where they begin and end, to its last one."""
    end, kind = len(_PNG_BEGIN), b""
    while end + 12 <= len(data) and kind != b"IEND":
        begin, kind = end, data[end + 4 : end + 8]
        end += 12 + int.from_bytes(data[begin : begin + 4], "big")
        yield kind, begin, end


def _bmp_end(data: mmap.mmap) -> int | None:
    return max(int.from_bytes(data[2:6], "little"), 14)


def _pnm_end(data: mmap.mmap) -> int | None:
    header = _PNM_HEADER.match(data)
    if header is None:
        return None
    width, height, most = (int(number) for number in header.groups())
    return header.end() + width * height * (3 if data[1:2] == b"6" else 1) * (2 if most > 255 else 1)


def _jpeg_end(data: mmap.mmap) -> int | None:
    """The place behind the end marker of the JPEG picture that `data` begins with; None where there is no such."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == _JPEG_END:
            return place + 2
        if marker == 0xFF:  # one of several before a marker
            place += 1
        elif marker in _JPEG_ALONE:
            place += 2
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
            if marker == _JPEG_SCAN:  # coded bytes follow, in which 0xFF is no marker before 0 and the numbers below
                place = data.find(b"\xff", place)
                while 0 <= place < len(data) - 1 and (data[place + 1] == 0 or data[place + 1] in _JPEG_ALONE):
                    place = data.find(b"\xff", place + 2)
                if place < 0:
                    return None
    return place + 2 if data[place : place + 2] == bytes([0xFF, _JPEG_END]) else None


@dataclass(frozen=True)
class _Stream:
    """How pictures of a kind begin and where they end, Pillow's name of it, and ffmpeg's of a stream of them."""

    begin: bytes
    end: Callable[[mmap.mmap], int | None]
    format: str
    demuxer: str


_STREAMS = (
    _Stream(_JPEG_BEGIN, _jpeg_end, "JPEG", "mjpeg"),
    _Stream(_PNG_BEGIN, _png_end, "PNG", "png_pipe"),
    _Stream(b"BM", _bmp_end, "BMP", "bmp_pipe"),
    _Stream(b"P6", _pnm_end, "PPM", "ppm_pipe"),
    _Stream(b"P5", _pnm_end, "PPM", "pgm_pipe"),
)


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Pillow's are of odd tags and of sizes; what matters is whether there is a picture."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _decoded(path: Path, alpha: bool) -> np.ndarray:
    """A picture file as (H, W, 3 or 4) uint8; raises whatever its decoder raises."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    from .picture_colours import format_of, to_srgb

    Image.init()
    formats = [name for name in Image.ID if name not in REFUSED_FORMATS]
    try:
        file = open_picture(path, formats)
    except UnidentifiedImageError:
        what, advice = format_of(path)
        raise TalkingPortraitError(f"The picture {path.name} can't be read ({what}); {advice}.") from None
    except Image.DecompressionBombError:
        raise TalkingPortraitError(f"The picture {path.name} has far too many pixels; scale it down.") from None
    with file:
        if file.width * file.height > MAX_PIXELS:
            raise TalkingPortraitError(
                f"The picture {path.name} has {file.width} x {file.height} pixels, but at most "
                f"{MAX_PIXELS // 1_000_000} million are taken; scale it down."
            )
        if getattr(file, "default_image", False):  # an APNG's picture for programs that don't show it move
            file.seek(1)
        ImageOps.exif_transpose(file, in_place=True)
        return np.array(to_srgb(file, alpha=alpha))


def write_image(path: str | Path, image: torch.Tensor) -> None:
    """Writes (H, W, 3) in 0..1 as the format that the name's ending says.

    Nothing is left of it when the disk refuses it, which is a TalkingPortraitError.
    """
    from PIL import Image

    path = Path(path)
    try:
        Image.fromarray(to_uint8(image)).save(path)
    except BaseException as error:
        path.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise TalkingPortraitError(
            f"The picture {path.name} can't be written ({reason_of(error)}); check the folder "
            f"{shortened(path.parent)} and its free space."
        ) from None


def write_frame(path: Path, frame: np.ndarray) -> None:
    """Writes one of many bytes (H, W), (H, W, 3) or (H, W, 4) for other steps to read: a quick PNG, or a fine JPEG.

    Raises OSError when the disk refuses it; who makes the folder tells of it.
    """
    from PIL import Image

    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if path.suffix == ".jpg" else {"compress_level": 1}
    Image.fromarray(frame).save(path, **options)


def from_uint8(frame: np.ndarray) -> torch.Tensor:
    """Bytes (H, W, C) as a picture in 0..1."""
    picture = frame.astype(np.float32)
    picture /= 255
    return torch.from_numpy(picture)


def in_unit_range(frame: np.ndarray) -> torch.Tensor:
    """A frame (H, W, C) of bytes, or of floats in 0..1 already, as floats in 0..1."""
    return from_uint8(frame) if frame.dtype == np.uint8 else torch.from_numpy(frame)


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """Pictures in 0..1 as rounded bytes."""
    # In place, as new memory for each step takes several times as long as the step.
    return (images * 255).add_(0.5).clamp_(0, 255).to(torch.uint8).cpu().numpy()
