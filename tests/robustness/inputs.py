"""Small inputs with something wrong or unusual about them, made when a row of the table names them."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from talking_portrait.pipelines.files.example import example_portrait
from talking_portrait.pipelines.files.frame_stream import write_stream
from talking_portrait.pipelines.files.images import write_image
from talking_portrait.pipelines.files.sound import write_wav
from talking_portrait.pipelines.types import Audio

FPS = Fraction(25)
Make = Callable[[Path], None]
"""Writes an input to a path."""


def buzz(seconds: float) -> Audio:
    """A swelling tone that counts as a voice, 16 kHz."""
    time = torch.arange(round(16000 * seconds)) / 16000
    wave = torch.sin(2 * torch.pi * 140 * time).sign() * torch.sin(torch.pi * 3 * time).abs() * 0.3
    return Audio(wave[None], 16000)


def sound(audio: Callable[[], Audio]) -> Make:
    return lambda path: write_wav(path, audio())


def silence(samples: int) -> Audio:
    return Audio(torch.zeros(1, samples), 16000)


@cache
def face() -> torch.Tensor:
    """The shipped portrait, (128, 128, 3) in 0..1."""
    planes = example_portrait()[0][None].permute(0, 3, 1, 2)
    return F.interpolate(planes, (128, 128), mode="area")[0].permute(1, 2, 0)


def picture(pixels: Callable[[], torch.Tensor]) -> Make:
    return lambda path: write_image(path, pixels())


def film(pixels: Callable[[], torch.Tensor], frames: int = 13, seconds: float | None = 0.5) -> Make:
    """An MP4 of one picture, with `seconds` of the voice."""

    def make(path: Path) -> None:
        speech = None if seconds is None else buzz(seconds)
        write_stream(path, [pixels()[None].expand(frames, -1, -1, -1)], FPS, speech)

    return make


def wall(size: int = 64) -> torch.Tensor:
    """A picture without a face."""
    return torch.full((size, size, 3), 0.5)


def text(content: str | bytes) -> Make:
    def make(path: Path) -> None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


def copied(of: str, change: Callable[[bytes], bytes] = bytes) -> Make:
    """The content of another of these inputs under another name, perhaps changed."""

    def make(path: Path) -> None:
        source = path.with_name(f".{of}")
        INPUTS[of](source)
        path.write_bytes(change(source.read_bytes()))
        source.unlink()

    return make


def arrays(**values: np.ndarray) -> Make:
    return lambda path: np.savez(path, **values)


def weights(path: Path) -> None:
    """Tensors of no system."""
    save_file({"some.weight": torch.zeros(2, 2)}, path)


def rows(*entries: dict[str, object]) -> Make:
    return text("".join(f"{json.dumps(entry)}\n" for entry in entries))


def folder(path: Path) -> None:
    path.mkdir()


def recordings(path: Path) -> None:
    """A folder with one picture and no video."""
    path.mkdir()
    write_image(path / "a.png", wall())


def wide_text(path: Path) -> None:
    """A list of rows as some shells of Windows write text: UTF-16."""
    path.write_text('{"portrait": "face.png", "audio": "voice.wav"}', encoding="utf-16")


INPUTS: dict[str, Make] = {
    "voice.wav": sound(lambda: buzz(0.5)),
    "silence.wav": sound(lambda: silence(8000)),
    "short.wav": sound(lambda: silence(10)),
    "no_samples.wav": sound(lambda: silence(0)),
    "cut.wav": copied("voice.wav", lambda content: content[:20]),
    "cut.ogg": text(b"OggS" + bytes(60)),
    "words.wav": text("this is text"),
    "empty.wav": text(""),
    "picture.wav": copied("face.png"),
    "face.png": picture(face),
    "wall.png": picture(wall),
    "tiny.png": picture(lambda: wall(4)),
    "half.png": copied("face.png", lambda content: content[: len(content) // 2]),
    "words.png": text("this is text"),
    "empty.png": text(""),
    "voice.png": copied("voice.wav"),
    "folder.png": folder,
    "film.mp4": film(face),
    "silent_film.mp4": film(face, seconds=None),
    "faceless.mp4": film(wall),
    "one_frame.mp4": film(face, 1, 0.04),
    "picture.mp4": copied("face.png"),
    "voice.mp4": copied("voice.wav"),
    "words.mp4": text("this is text"),
    "empty.mp4": text(""),
    "cut.mp4": copied("film.mp4", lambda content: content[: len(content) // 3]),
    "no_index.mp4": copied("film.mp4", lambda content: content.replace(b"moov", b"junk")),
    "words.npz": text("this is text"),
    "other.npz": arrays(a=np.zeros(3)),
    "words.safetensors": text("this is text"),
    "other.safetensors": weights,
    "cut.safetensors": copied("other.safetensors", lambda content: content[:-3]),
    "words.json": text("this is text"),
    "list.json": text("[1, 2]"),
    "no_nodes.json": text("{}"),
    "unknown_node.json": text('{"1": {"class_type": "NoSuchNode", "inputs": {}}}'),
    "rows.jsonl": rows({"portrait": "face.png", "audio": "voice.wav"}),
    "empty.jsonl": text(""),
    "words.jsonl": text("this is text\n"),
    "no_portrait.jsonl": rows({"audio": "voice.wav"}),
    "no_file.jsonl": rows({"portrait": "none.png", "audio": "voice.wav"}),
    "no_renderer.jsonl": rows({"portrait": "face.png", "audio": "voice.wav", "renderer": "nothing"}),
    "no_setting.jsonl": rows({"portrait": "face.png", "audio": "voice.wav", "settings": {"colour": 3}}),
    "wide_text.jsonl": wide_text,
    "words.pem": text("this is text"),
    "empty_folder": folder,
    "recordings": recordings,
}
"""What a row may name; a name is that of the file, and says what is in it."""


def make(name: str, place: Path) -> Path:
    """The input of that name, in the folder `place`."""
    target = place / name
    INPUTS[name](target)
    return target
