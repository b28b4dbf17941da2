"""Pictures of any colour space and depth, as Pillow opens them, as 8-bit sRGB."""

from __future__ import annotations

import io
import math
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .input_paths import WEB_PAGES, kind_of

if TYPE_CHECKING:
    from PIL import Image

DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
"""Pillow's modes with more than 8 bits; all grey."""
PROFILE_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}
"""Pillow's modes, and what profiles call their colour space."""
WHITES = ((8.0, 1.0), (400.0, 255.0), (100_000.0, 65535.0), (math.inf, 2.0**32 - 1))
"""What is white where the file does not say: the second, if nearly all of the picture is not above the first. Bright
spots may be above white, but no picture keeps below a thirtieth of it."""
BITS_PER_SAMPLE, SAMPLE_FORMAT, SIGNED = 258, 339, 2
"""TIFF tags, and the value of the second for whole numbers with a sign."""
JUDGED_PIXELS = 1_000_000
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""What follows `ftyp` in the photos of many telephones."""

SAVE_AGAIN = "save it as PNG or JPEG"
OTHER_FILE = "give a picture, such as a PNG or JPEG"
DRAWINGS = (b"%!PS", b"\xc5\xd0\xd3\xc6", b"%PDF", b"\xd7\xcd\xc6\x9a")
"""How PostScript (with and without a preview), PDF and WMF begin."""
JPEG_XL = (b"\xff\x0a", b"\x00\x00\x00\x0cJXL ")
EXPOSURES = (b"v/1\x01", b"#?RADIANCE", b"#?RGBE")
"""How OpenEXR and Radiance pictures begin, whose numbers are light and no colours of a screen."""
PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*")
"""How common pictures begin, of which no decoder takes one whose header is damaged."""
MEDIA = (b"\x1aE\xdf\xa3", b"RIFF", b"OggS", b"fLaC", b"ID3")
"""How films and sound begin, beside those of MP4's kind; a WebP begins as a WAV, but is a picture."""


def to_srgb(picture: Image.Image, *, alpha: bool = False) -> Image.Image:
    """An opened picture as RGB; transparency is laid over white, a colour profile is applied if it can be.

    With `alpha` a picture that has transparency comes as RGBA.
    """
    from PIL import Image

    if picture.mode in DEEP:
        values = np.asarray(picture, dtype=np.float32)
        grey = Image.fromarray(_bytes(values, _white_of_file(picture) or _likely_white(values)))
        clear = picture.info.get("transparency")
        if not isinstance(clear, int):
            return grey.convert("RGB")
        picture = Image.merge("LA", [grey, Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))])
    profile = picture.info.get("icc_profile")
    if picture.has_transparency_data:
        clear = picture.convert("RGBA" if picture.mode != "La" else "LA").convert("RGBA")
        colours = _without_profile(clear.convert("RGB"), profile)
        if alpha:
            colours.putalpha(clear.getchannel("A"))
            return colours
        return Image.composite(colours, Image.new("RGB", clear.size, "white"), clear.getchannel("A"))
    if picture.mode not in PROFILE_SPACES:
        picture = picture.convert("L" if picture.mode == "1" else "RGB")
    return _without_profile(picture, profile)


def _without_profile(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """A picture of one of the modes of `PROFILE_SPACES` as RGB."""
    from PIL import ImageCms

    srgb = ImageCms.createProfile("sRGB")
    if profile:
        # A damaged profile, or one of another colour space, is no reason to refuse the picture.
        with suppress(ImageCms.PyCMSError, OSError):
            own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            fits = own.profile.xcolor_space.strip() == PROFILE_SPACES[picture.mode]
            if fits and "sRGB" not in ImageCms.getProfileDescription(own):
                found = ImageCms.profileToProfile(picture, own, srgb, outputMode="RGB")
                return found or picture
    if picture.mode == "LAB":
        transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), srgb, "LAB", "RGB")
        return ImageCms.applyTransform(picture, transform) or picture
    return picture.convert("RGB")


def _bytes(values: np.ndarray, white: float) -> np.ndarray:
    """Values from 0 to `white` as bytes; NaN becomes black."""
    return (np.nan_to_num(values / white, nan=0.0).clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _white_of_file(picture: Image.Image) -> float | None:
    """The largest value that the numbers of a deep picture's file can hold; None for 32 bits, which are never used."""
    tags = getattr(picture, "tag_v2", None)
    if tags is None:
        return None if picture.mode == "F" else 65535.0
    bits = tags.get(BITS_PER_SAMPLE, (16,))[0]
    if bits > 16:
        return None
    return 2.0 ** (bits - (tags.get(SAMPLE_FORMAT, (1,))[0] == SIGNED)) - 1


def _likely_white(values: np.ndarray) -> float:
    """What is white in a picture of real numbers: 1, 255, 65535 or more."""
    judged = values.ravel()[:: max(1, values.size // JUDGED_PIXELS)]
    judged = judged[np.isfinite(judged)]
    bright = float(np.percentile(judged, 99)) if judged.size else 0.0
    return next(white for most, white in WHITES if bright <= most)


def format_of(path: Path) -> tuple[str, str]:
    """What is wrong with a file that Pillow takes for no picture, in a few words, and what to do."""
    with path.open("rb") as file:
        start = file.read(1024)
    if start[4:8] == b"ftyp" and start[8:12] in HEIC_BRANDS:
        return "it is a HEIC photo", SAVE_AGAIN
    if start.startswith(JPEG_XL):
        return "it is a JPEG XL picture", SAVE_AGAIN
    if start.startswith(EXPOSURES):
        return "it is an HDR picture of a renderer or camera", SAVE_AGAIN
    if start.lstrip(b"\xef\xbb\xbf \r\n\t").lower().startswith(WEB_PAGES):
        return "it is a web page, so download the picture itself", SAVE_AGAIN
    if not start:
        return "it is empty", SAVE_AGAIN
    if start.startswith(PICTURES):
        return "it is damaged", f"{SAVE_AGAIN} again, or get it anew"
    if start.startswith(DRAWINGS) or b"<svg" in start:
        return "it is a drawing or a document and no picture of pixels", SAVE_AGAIN
    if start[4:8] == b"ftyp" or (start.startswith(MEDIA) and start[8:12] != b"WEBP"):
        return "it holds video or sound", f"{OTHER_FILE}; a video is dubbed with animate or Dub Video"
    if kind := kind_of(start):
        return kind, OTHER_FILE
    return "its format is not known", SAVE_AGAIN
