"""Pictures of any colour space and depth are read with the right colours."""

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo
from talking_portrait.nodes.standalone.picture_file import read_pictures
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.files.images import is_picture, read_image


@pytest.mark.parametrize(
    ("values", "white"),
    [
        (np.float32([0, 0.25, 0.5, 0.75, 1]), 1),
        (np.float32([0, 0.25, 0.5, 0.75, 1.2]), 1),
        (np.float32([-0.3, 0.25, 0.5, 0.75, 1]), 1),
        (np.float32([np.nan, 0.25, 0.5, 0.75, np.inf]), 1),
        (np.float32([0, 0.01, 0.02, 0.03, 0.04]), 1),
        (np.float32([0, 64, 128, 192, 255]), 255),
        (np.float32([0, 10, 20, 30, 40]), 255),
        (np.float32([0, 64, 128, 192, 290]), 255),
        (np.float32([0, 16000, 32000, 48000, 65535]), 65535),
        (np.uint16([0, 16000, 32000, 48000, 65535]), 65535),
        (np.uint16([0, 50, 100, 150, 200]), 65535),
        (np.int32([0, 64, 128, 192, 255]), 255),
        (np.int32([0, 16000, 32000, 48000, 65535]), 65535),
        (np.int32([0, 2**21, 2**22, 2**23, 2**24 - 1]), 2**24 - 1),
        (np.int32([0, 2**29, 2**30, 2**30 + 2**29, 2**31 - 1]), 2**31 - 1),
    ],
    ids=str,
)
def test_deep_pictures_are_scaled_by_what_white_is(tmp_path, values, white):
    Image.fromarray(values.repeat(20).reshape(10, 10)).save(tmp_path / "deep.tif")
    found = read_image(tmp_path / "deep.tif")
    right = np.nan_to_num(values.astype(np.float32) / white, nan=0).clip(0, 1).repeat(20).reshape(10, 10)
    assert np.abs(found.numpy() - right[..., None]).max() <= 0.51 / 255


def test_a_few_bright_spots_do_not_darken_a_picture_of_real_numbers(tmp_path):
    values = np.full((40, 40), 0.5, np.float32)
    values[0, :3] = 900
    Image.fromarray(values).save(tmp_path / "sun.tif")
    assert read_image(tmp_path / "sun.tif")[5, 5].tolist() == pytest.approx([0.5] * 3, abs=0.004)


def test_grey_png_of_16_bits_is_scaled_by_its_type(tmp_path):
    Image.fromarray(np.full((4, 4), 200, np.uint16)).save(tmp_path / "dark.png")
    assert read_image(tmp_path / "dark.png").max() < 0.005


def test_whole_numbers_of_32_bits_without_a_sign_stay_so(tmp_path):
    values = np.uint32([0, 2**30, 2**31, 3 * 2**30, 2**32 - 1]).repeat(20).reshape(10, 10)
    Image.fromarray(values.view(np.int32)).save(tmp_path / "deep.tif")
    data, format_of_samples = (tmp_path / "deep.tif").read_bytes(), b"\x53\x01\x03\0\x01\0\0\0"
    assert data.count(format_of_samples + b"\2") == 1
    (tmp_path / "deep.tif").write_bytes(data.replace(format_of_samples + b"\2", format_of_samples + b"\1"))
    found = read_image(tmp_path / "deep.tif")[..., 0].numpy()
    assert np.abs(found - values / 2.0**32).max() <= 0.51 / 255


def png(path, colour, **chunks: bytes):
    """A PNG of one colour with chunks before its pixels."""
    from PIL.PngImagePlugin import PngInfo

    stated = PngInfo()
    for name, content in chunks.items():
        stated.add(name.encode(), content)
    Image.new("RGB", (6, 6), colour).save(path, pnginfo=stated)
    return (255 * read_image(path)[3, 3]).tolist()


def numbers(*values: float) -> bytes:
    return b"".join(round(100000 * value).to_bytes(4, "big") for value in values)


BROAD = numbers(0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
"""cHRM of Display P3."""


@pytest.mark.parametrize(
    ("chunks", "colour", "right"),
    [
        ({"gAMA": numbers(1)}, (55, 55, 55), (128, 128, 128)),  # linear light: 0.2158
        ({"gAMA": numbers(1 / 1.8)}, (128, 128, 128), (146, 146, 146)),
        ({"gAMA": numbers(1 / 2.2)}, (50, 128, 200), (50, 128, 200)),
        ({"gAMA": numbers(0)}, (50, 128, 200), (50, 128, 200)),
        ({"gAMA": numbers(1), "sRGB": b"\0"}, (55, 55, 55), (55, 55, 55)),
        ({"cHRM": BROAD}, (200, 100, 100), (213, 93, 97)),
        ({"cHRM": BROAD, "gAMA": numbers(1 / 2.2)}, (128, 128, 128), (128, 128, 128)),
        ({"cHRM": b"\0" * 32}, (200, 100, 100), (200, 100, 100)),
        ({"cICP": bytes([12, 13, 0, 1])}, (200, 100, 100), (213, 93, 97)),
        ({"cICP": bytes([1, 13, 0, 1]), "gAMA": numbers(1)}, (55, 55, 55), (55, 55, 55)),
        ({"cICP": bytes([1, 8, 0, 1])}, (55, 55, 55), (128, 128, 128)),
        ({"cICP": bytes([9, 16, 0, 1])}, (148, 148, 148), (231, 231, 231)),  # PQ's 203 cd/m2
        ({"cICP": b"\1"}, (50, 128, 200), (50, 128, 200)),
    ],
    ids=str,
)
def test_what_a_png_states_of_its_colours_is_applied(tmp_path, chunks, colour, right):
    assert png(tmp_path / "a.png", colour, **chunks) == pytest.approx(right, abs=2)


def wide_gamut_profile() -> bytes:
    """A profile like sRGB but for its red and green, which are swapped: what ignores it is far off."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(profile[128:132], "big")
    places = {bytes(profile[132 + 12 * k : 136 + 12 * k]): 132 + 12 * k for k in range(count)}
    red, green = places[b"rXYZ"] + 4, places[b"gXYZ"] + 4
    profile[red : red + 8], profile[green : green + 8] = profile[green : green + 8], profile[red : red + 8]
    # By its name alone it would be plain sRGB.
    return bytes(profile.replace("sRGB".encode("utf-16-be"), "wide".encode("utf-16-be")).replace(b"sRGB", b"wide"))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_colour_profile_is_applied(tmp_path, mode):
    colour = (50, 200, 80) if mode != "RGBA" else (50, 200, 80, 255)
    picture = Image.new("RGB" if mode == "P" else mode, (6, 6), colour).convert(mode, palette=Image.Palette.ADAPTIVE)
    picture.save(tmp_path / "wide.png", icc_profile=wide_gamut_profile())
    red, green, blue = (255 * read_image(tmp_path / "wide.png")[3, 3]).tolist()
    assert (red, green, blue) == pytest.approx((200, 50, 80), abs=3)


def test_a_profile_that_does_not_fit_is_ignored(tmp_path):
    Image.new("RGB", (6, 6), (50, 200, 80)).save(tmp_path / "bad.png", icc_profile=b"no profile")
    Image.new("L", (6, 6), 77).save(tmp_path / "grey.png", icc_profile=wide_gamut_profile())
    assert (255 * read_image(tmp_path / "bad.png")[3, 3]).tolist() == pytest.approx([50, 200, 80], abs=0.1)
    assert (255 * read_image(tmp_path / "grey.png")[3, 3]).tolist() == pytest.approx([77] * 3, abs=0.1)


def test_lab_is_read_as_colours(tmp_path):
    Image.new("LAB", (6, 6), (136, 128 + 80, 128 + 67)).save(tmp_path / "red.tif")
    red, green, blue = (255 * read_image(tmp_path / "red.tif")[3, 3]).tolist()
    assert red > 245
    assert max(green, blue) < 30


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright_by_their_exif_tag(tmp_path, ending, orientation):
    upright = Image.new("L", (16, 32), 0)
    upright.paste(255, (0, 0, 8, 8))
    stored = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    turned = upright if orientation == 1 else upright.transpose(Image.Transpose(stored[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned.convert("RGB").save(tmp_path / f"a.{ending}", exif=exif)
    found = read_image(tmp_path / f"a.{ending}")
    assert found.shape == (32, 16, 3)
    assert found[:6, :6].mean() > 0.8
    assert found[10:, 10:].mean() < 0.2


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tif"])
def test_the_first_frame_of_an_animation_is_taken(tmp_path, ending):
    first, *rest = (Image.new("RGB", (16, 16), (200 - 50 * k, 60, 40 + 60 * k)) for k in range(3))
    first.save(tmp_path / f"a.{ending}", save_all=True, append_images=rest)
    assert (255 * read_image(tmp_path / f"a.{ending}")[8, 8]).tolist() == pytest.approx([200, 60, 40], abs=4)


def test_a_grey_that_a_deep_png_names_as_clear_lies_over_white(tmp_path):
    values = np.uint16([[1000, 1001, 65535]])
    Image.fromarray(values).save(tmp_path / "deep.png", transparency=1000)
    assert read_image(tmp_path / "deep.png")[0, :, 0].tolist() == pytest.approx([1, 4 / 255, 1])
    assert read_image(tmp_path / "deep.png", alpha=True)[0, :, 3].tolist() == [0, 1, 1]


def test_a_half_transparent_palette_lies_over_white(tmp_path):
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.save(tmp_path / "p.png", transparency=bytes([255, 128]))
    assert (255 * read_image(tmp_path / "p.png")[1, 1]).tolist() == pytest.approx([127, 127, 255], abs=1)


def test_a_heic_photo_is_reported(tmp_path):
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
    with pytest.raises(TalkingPortraitError, match=r"IMG_1.HEIC can't be read \(it is a HEIC photo\); save it as PNG"):
        read_image(tmp_path / "IMG_1.HEIC")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
        (b"\xff\n\xfa\x1f", "a JPEG XL picture"),
        (b"v/1\x01\2\0\0\0", "an HDR picture"),
        (b"\n<!DOCTYPE HTML><html>", "a web page, so download the picture itself"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a git-lfs pointer and not the file itself"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR", "damaged"),
    ],
)
def test_what_a_file_is_in_place_of_a_picture_is_said(tmp_path, content, what):
    (tmp_path / "a.png").write_bytes(content + bytes(64))
    with pytest.raises(TalkingPortraitError, match=rf"a\.png can't be read \(it is {what}"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("packed", [True, False], ids=["compressed", "plain"])
def test_long_texts_of_a_png_are_passed_over(tmp_path, packed):
    """As programs put whole workflows into pictures, and Pillow refuses pictures for texts that unpack to much."""
    texts = PngInfo()
    texts.add_text("workflow", "x" * 1_500_000, zip=packed)
    exif = Image.Exif()
    exif[0x112] = 6
    picture = Image.new("RGB", (30, 20), (200, 100, 50))
    picture.save(tmp_path / "made.png", pnginfo=texts, exif=exif)
    found = read_image(tmp_path / "made.png")
    assert found.shape == (30, 20, 3)
    assert (found[5, 5] * 255).tolist() == pytest.approx([200, 100, 50], abs=1)
    assert is_picture(tmp_path / "made.png")
    assert read_pictures(tmp_path / "made.png")[0].shape == (1, 30, 20, 3)


def test_a_long_colour_profile_of_a_png_is_applied(tmp_path):
    """A printer's has megabytes, more than Pillow takes of a PNG."""
    picture = Image.new("RGB", (4, 4), (250, 10, 10))
    picture.save(tmp_path / "long.png", icc_profile=wide_gamut_profile() + bytes(1_500_000))
    assert (read_image(tmp_path / "long.png")[0, 0] * 255).tolist() == pytest.approx([10, 250, 10], abs=2)
