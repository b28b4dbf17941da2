"""Pictures of any colour space and depth, as Pillow opens them, as 8-bit sRGB."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..image.hdr import HLG, PQ, HdrToSdr
from .input_paths import WEB_PAGES, kind_of

if TYPE_CHECKING:
    from PIL import Image

DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
"""Pillow's modes with more than 8 bits; all grey."""
PROFILE_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}
"""Pillow's modes, and what profiles call their colour space."""
WHITES = ((8.0, 1.0), (400.0, 255.0), (100_000.0, 65535.0), (5e7, 2.0**24 - 1))
"""What is white where the file does not say: the second, if nearly all of the picture is not above the first. Bright
spots may be above white, but no picture keeps below a thirtieth of it. Above all of them it is the type's largest
value."""
BITS_PER_SAMPLE, SAMPLE_FORMAT, SIGNED = 258, 339, 2
"""TIFF tags, and the value of the second for whole numbers with a sign."""
JUDGED_PIXELS = 1_000_000
SRGB = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
"""Places of white, red, green and blue in CIE's diagram."""
PRIMARIES = {
    9: (0.3127, 0.329, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046),
    12: (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
}
"""Likewise of BT.2020 and of Display P3, by their numbers in ITU-T H.273."""
GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
"""By the numbers of transfers in ITU-T H.273; the others of standard range are taken for sRGB's."""
GAMMA_OF_SRGB = 2.2
ALIKE_GAMMA, ALIKE_PLACE = 0.06, 0.006
"""By how much what a file says may differ from sRGB and still mean it: most who write it round."""
BAND = 256
"""Rows whose colours are computed at once."""
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

    stated = _stated_by_png(picture)
    if picture.mode in DEEP:
        values = _values(picture)
        grey = Image.fromarray(_bytes(values, _white_of_file(picture) or _likely_white(values, _largest(picture))))
        clear = picture.info.get("transparency")
        if not isinstance(clear, int):
            return stated(grey.convert("RGB"))
        picture = Image.merge("LA", [grey, Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))])
    profile = picture.info.get("icc_profile")
    if picture.has_transparency_data:
        clear = picture.convert("RGBA" if picture.mode != "La" else "LA").convert("RGBA")
        colours = stated(_without_profile(clear.convert("RGB"), profile))
        if alpha:
            colours.putalpha(clear.getchannel("A"))
            return colours
        return Image.composite(colours, Image.new("RGB", clear.size, "white"), clear.getchannel("A"))
    if picture.mode not in PROFILE_SPACES:
        picture = picture.convert("L" if picture.mode == "1" else "RGB")
    return stated(_without_profile(picture, profile))


def _stated_by_png(picture: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """What makes sRGB of the colours that the chunks of a PNG state, on its RGB picture; nothing where they are sRGB.

    As its standard says, cICP goes before a profile, that before sRGB, and gAMA and cHRM come last.
    """
    info = picture.info
    code = _code_points(picture) if picture.format == "PNG" else None
    if code is not None:
        primaries, transfer, _, full = code
        if transfer in (PQ, HLG):
            tone = HdrToSdr.for_transfer(transfer)
            return lambda rgb: _in_bands(rgb, lambda part: tone(part.astype(np.uint16) * 257))  # type: ignore[misc]
        if full:
            return _from_light(GAMMAS.get(transfer, GAMMA_OF_SRGB), PRIMARIES.get(primaries, SRGB))
        return lambda rgb: rgb
    if picture.format != "PNG" or "icc_profile" in info or "srgb" in info:
        return lambda rgb: rgb
    gamma = info.get("gamma", 0)
    places = info.get("chromaticity", SRGB)
    usable = len(places) == 8 and all(0 < place < 1 for place in places)
    return _from_light(1 / gamma if 0.1 <= gamma <= 5 else GAMMA_OF_SRGB, places if usable else SRGB)


def _code_points(picture: Image.Image) -> tuple[int, ...] | None:
    """The four bytes of a PNG's cICP, which Pillow passes over."""
    name = getattr(picture, "filename", "")
    if not name:
        return None
    with open(name, "rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8 and head[4:] not in (b"IDAT", b"IEND"):
            length = int.from_bytes(head[:4], "big")
            if head[4:] == b"cICP":
                return tuple(file.read(4)) if length == 4 else None
            file.seek(length + 4, 1)
    return None


def _from_light(gamma: float, places: Sequence[float]) -> Callable[[Image.Image], Image.Image]:
    """sRGB of an RGB picture whose light is a power of its values, and whose white and primaries are at `places`."""
    same_places = max(abs(a - b) for a, b in zip(places, SRGB, strict=True)) < ALIKE_PLACE
    if same_places and abs(gamma - GAMMA_OF_SRGB) < ALIKE_GAMMA:
        return lambda rgb: rgb
    steps = np.arange(256) / 255
    standard = np.where(steps <= 0.04045, steps / 12.92, ((steps + 0.055) / 1.055) ** 2.4)
    light = (standard if abs(gamma - GAMMA_OF_SRGB) < ALIKE_GAMMA else steps**gamma).astype(np.float32)
    if same_places:
        return lambda rgb: rgb.point([*_display(light).tolist()] * 3)
    try:
        matrix = (np.linalg.inv(_to_xyz(SRGB)) @ _adapted(places)).astype(np.float32)
    except np.linalg.LinAlgError:  # places on one line
        return lambda rgb: rgb
    return lambda rgb: _in_bands(rgb, lambda part: _display(light[part] @ matrix.T))


def _to_xyz(places: Sequence[float]) -> np.ndarray:
    """(3, 3) from linear red, green and blue to CIE's XYZ."""
    columns = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in zip(places[::2], places[1::2], strict=True)]).T
    return columns[:, 1:] * np.linalg.solve(columns[:, 1:], columns[:, 0])


def _adapted(places: Sequence[float]) -> np.ndarray:
    """`_to_xyz` for a viewer to whom white is sRGB's: each coordinate is scaled."""
    white, own = ((x / y, 1.0, (1 - x - y) / y) for x, y in (SRGB[:2], places[:2]))
    return np.diag(np.divide(white, own)) @ _to_xyz(places)


def _display(light: np.ndarray) -> np.ndarray:
    """Bytes of sRGB of linear light."""
    light = light.clip(0, 1)
    coded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (255 * coded + 0.5).astype(np.uint8)


def _in_bands(rgb: Image.Image, change: Callable[[np.ndarray], np.ndarray]) -> Image.Image:
    """`change` of a picture's bytes (rows, W, 3), some rows at once."""
    from PIL import Image

    pixels = np.array(rgb)
    for row in range(0, len(pixels), BAND):
        pixels[row : row + BAND] = change(pixels[row : row + BAND])
    return Image.fromarray(pixels)


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


def _values(picture: Image.Image) -> np.ndarray:
    """Of a deep picture; Pillow takes whole numbers of 32 bits for signed ones, whatever the file says."""
    values = np.asarray(picture)
    if values.dtype == np.int32 and _largest(picture) > 2.0**31:
        values = values.view(np.uint32)
    return values.astype(np.float32)


def _largest(picture: Image.Image) -> float:
    """The largest whole number of 32 bits in the picture's file."""
    tags = getattr(picture, "tag_v2", {})
    signed = picture.mode == "I" and tags.get(SAMPLE_FORMAT, (1,))[0] == SIGNED
    return 2.0**31 - 1 if signed else 2.0**32 - 1


def _likely_white(values: np.ndarray, largest: float) -> float:
    """What is white in a picture of real or large whole numbers: 1, 255, 65535 or more, at most the `largest`."""
    judged = values.ravel()[:: max(1, values.size // JUDGED_PIXELS)]
    judged = judged[np.isfinite(judged)]
    bright = float(np.percentile(judged, 99)) if judged.size else 0.0
    return next((white for most, white in WHITES if bright <= most), largest)


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
