"""Load Image without ComfyUI: frames and masks as ComfyUI's own gives them (figures of version 0.28's, by its code)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from talking_portrait.nodes.standalone import picture_file
from talking_portrait.nodes.standalone.picture_file import read_pictures
from talking_portrait.pipelines.errors import TalkingPortraitError

HEIGHT, WIDTH = 20, 30
EMPTY = (64, 64)
FULL = (HEIGHT, WIDTH)
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
ALPHA = (COLUMNS * 8).astype(np.uint8)
RED_BENEATH = np.where(COLUMNS < 15, 0, 255).astype(np.uint8)


def picture(blue: int = 0) -> Image.Image:
    return Image.fromarray(np.stack([COLUMNS * 8, ROWS * 12, np.full_like(ROWS, blue)], -1).astype(np.uint8))


def clear(blue: int = 0) -> Image.Image:
    made = picture(blue)
    made.putalpha(Image.fromarray(ALPHA))
    return made


def turned(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


def save(name: str, made: Callable[[], Image.Image], more: int = 0, **options: object) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        rest = {"save_all": True, "append_images": [picture(40 * k) for k in range(1, more + 1)]} if more else {}
        made().save(folder / name, **{**rest, **options})
        return folder / name

    return write


KINDS = {
    "rgb.png": (save("a.png", picture), 1, FULL, EMPTY, 0.0),
    "rgba.png": (save("a.png", clear), 1, FULL, FULL, 0.5451),
    "grey with alpha": (save("a.png", lambda: clear().convert("LA")), 1, FULL, FULL, 0.5451),
    "palette": (save("a.png", lambda: picture().quantize(16)), 1, FULL, FULL, 0.0),
    "rgba.tiff": (save("a.tiff", clear), 1, FULL, FULL, 0.5451),
    "rgba.webp": (save("a.webp", clear, lossless=True), 1, FULL, FULL, 0.5451),
    "clear colour": (save("a.png", picture, transparency=(40, 60, 0)), 1, FULL, FULL, 1 / 600),
    "16 bits": (save("a.png", lambda: Image.fromarray((COLUMNS * 2000).astype(np.uint16))), 1, FULL, EMPTY, 0.0),
    "turned jpeg": (save("a.jpg", picture, exif=turned(6)), 1, (WIDTH, HEIGHT), EMPTY, 0.0),
    "turned rgba": (save("a.png", clear, exif=turned(6)), 1, (WIDTH, HEIGHT), (WIDTH, HEIGHT), 0.5451),
    "gif": (save("a.gif", picture, 3), 4, FULL, FULL, 0.0),
    "apng": (save("a.png", picture, 3), 4, FULL, EMPTY, 0.0),
    "animated webp": (save("a.webp", picture, 3, lossless=True), 4, FULL, EMPTY, 0.0),
    "pages of a tiff": (save("a.tiff", picture, 3), 1, FULL, EMPTY, 0.0),
    "views of an mpo": (save("a.mpo", picture, 3), 1, FULL, EMPTY, 0.0),
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_frames_and_mask_are_those_of_comfyui(tmp_path, kind):
    write, frames, size, mask_size, mean = KINDS[kind]
    images, mask = read_pictures(write(tmp_path))
    assert images.shape == (frames, *size, 3)
    assert mask.shape == (frames, *mask_size)
    assert images.dtype == mask.dtype == torch.float32
    assert float(mask.mean()) == pytest.approx(mean, abs=0.002)


def test_a_palette_with_a_clear_colour_has_its_mask(tmp_path):
    made = picture().quantize(16)
    made.save(tmp_path / "a.png", transparency=3)
    _, mask = read_pictures(tmp_path / "a.png")
    assert mask[0].numpy() == pytest.approx((np.asarray(made) == 3).astype(np.float32))


def test_the_mask_is_one_less_the_alpha_and_turns_with_the_picture(tmp_path):
    clear().save(tmp_path / "a.png", exif=turned(6))
    images, mask = read_pictures(tmp_path / "a.png")
    assert mask[0].numpy() == pytest.approx(np.rot90(1 - ALPHA / 255, k=3), abs=1e-6)
    visible = mask[0] < 1
    expected = np.rot90(np.asarray(picture()) / 255, k=3)
    assert images[0].numpy()[visible] == pytest.approx(expected[visible], abs=1e-6)


def test_what_is_wholly_transparent_is_white_and_the_rest_keeps_its_colour(tmp_path):
    made = Image.new("RGBA", (WIDTH, HEIGHT), (255, 0, 0, 255))
    made.putalpha(Image.fromarray(np.where(COLUMNS < 10, 0, np.where(COLUMNS < 20, 128, 255)).astype(np.uint8)))
    made.save(tmp_path / "a.png")
    images, mask = read_pictures(tmp_path / "a.png")
    assert images[0, 0, 0].tolist() == [1, 1, 1]
    assert images[0, 0, 15].tolist() == images[0, 0, 25].tolist() == [1, 0, 0]
    assert mask[0, 0, [0, 15, 25]].tolist() == pytest.approx([1, 127 / 255, 0])


def test_sixteen_bits_keep_their_brightness(tmp_path):
    Image.fromarray((COLUMNS * 2000).astype(np.uint16)).save(tmp_path / "a.png")
    images, _ = read_pictures(tmp_path / "a.png")
    assert images[0, :, :, 0].numpy() == pytest.approx(COLUMNS * 2000 / 65535, abs=0.002)


def test_the_frames_of_an_animation_come_in_order(tmp_path):
    picture().save(tmp_path / "a.webp", save_all=True, append_images=[picture(100), picture(200)], lossless=True)
    images, _ = read_pictures(tmp_path / "a.webp")
    assert images[:, 5, 5, 2].tolist() == pytest.approx([0, 100 / 255, 200 / 255], abs=0.01)


def test_an_animation_that_breaks_off_gives_the_frames_before(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (4, 40, 40, 3), np.uint8)
    frames = [Image.fromarray(frame) for frame in noise]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    content = (tmp_path / "a.gif").read_bytes()
    (tmp_path / "cut.gif").write_bytes(content[: len(content) * 6 // 10])
    images, _ = read_pictures(tmp_path / "cut.gif")
    assert 1 <= len(images) < 4


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"no picture"])
def test_what_is_no_picture_is_one_sentence(tmp_path, content):
    (tmp_path / "a.gif").write_bytes(content)
    with pytest.raises(TalkingPortraitError, match=r"The picture a\.gif can't be read") as told:
        read_pictures(tmp_path / "a.gif")
    assert "\n" not in str(told.value)


def test_an_animation_larger_than_memory_should_hold_is_refused(tmp_path, monkeypatch):
    picture().save(tmp_path / "a.gif", save_all=True, append_images=[picture(100)])
    monkeypatch.setattr(picture_file, "MAX_BYTES", 10_000)
    with pytest.raises(TalkingPortraitError, match=r"The 2 frames of a\.gif need more than"):
        read_pictures(tmp_path / "a.gif")
