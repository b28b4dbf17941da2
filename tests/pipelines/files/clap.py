"""Films with a flash and a beep at 1 s and at 2 s, for tests of the times of picture and sound."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from talking_portrait.pipelines.files.ffmpeg import executable
from talking_portrait.pipelines.files.sound import NoSoundError, read_audio, write_wav
from talking_portrait.pipelines.files.video import open_video
from talking_portrait.pipelines.types import Audio

HEIGHT, WIDTH, RATE, SECONDS = 96, 128, 48000, 3
CORNER = (200, 30, 30)
"""Colour of the upper left quarter, which shows how a picture is turned."""


def ffmpeg(*arguments: str | Path, data: bytes | None = None) -> None:
    command = [executable(), "-y", "-loglevel", "error", *map(str, arguments)]
    subprocess.run(command, input=data, check=True, stdin=None if data else subprocess.DEVNULL)


def clap_frames(fps: Fraction = Fraction(25), seconds: float = SECONDS) -> np.ndarray:
    """(F, H, W, 3) uint8: dark; the lower right quarter flashes for 0.12 s at 1 s and 2 s."""
    count = round(seconds * fps)
    frames = np.full((count, HEIGHT, WIDTH, 3), 40, np.uint8)
    frames[:, : HEIGHT // 2, : WIDTH // 2] = CORNER
    for number in range(count):
        frames[number, :, WIDTH // 2 :, 1] = 40 + 60 * number // count
        if number >= fps and (number / fps) % 1 < Fraction(12, 100):
            frames[number, HEIGHT // 2 :, WIDTH // 2 :] = 250
    return frames


def clap_sound(seconds: float = SECONDS) -> Audio:
    time = torch.arange(round(seconds * RATE)) / RATE
    on = (time >= 1) & (time % 1 < 0.12)
    return Audio((0.6 * torch.sin(2 * torch.pi * 997 * time) * on)[None], RATE)


def make_clap(
    folder: Path,
    name: str,
    *,
    fps: Fraction = Fraction(25),
    frames: np.ndarray | None = None,
    before_audio: tuple[str, ...] = (),
    options: tuple[str | Path, ...] = (),
) -> Path:
    """A film `name` in `folder`; `before_audio` are ffmpeg's options of the sound, `options` those of the output."""
    frames = clap_frames(fps) if frames is None else frames
    write_wav(folder / "clap.wav", clap_sound())
    raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{frames.shape[2]}x{frames.shape[1]}", "-r", str(fps))
    path = folder / name
    ffmpeg(
        *raw, "-i", "pipe:0", *before_audio, "-i", folder / "clap.wav", "-map", "0:v", "-map", "1:a",
        "-pix_fmt", "yuv420p", *options, path, data=frames.tobytes(),
    )  # fmt: skip
    return path


def times(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The frames read from a film, and the times in seconds at which its flashes and beeps begin."""
    video = open_video(path)
    frames = np.stack(list(video.frames()))
    bright = (frames.min(axis=-1) > 180).mean(axis=(1, 2)) > 0.1
    flashes = np.flatnonzero(bright & ~np.concatenate([[False], bright[:-1]])) / float(video.fps)
    try:
        sound = read_audio(path)
    except NoSoundError:
        return frames, flashes, np.zeros(0)
    loud = np.flatnonzero(sound.waveform.abs().amax(0).numpy() > 0.2) / sound.sample_rate
    beeps = loud[np.diff(loud, prepend=-1) > 0.2]
    return frames, flashes, beeps
