"""Files in and out: pictures by Pillow, sound and video by the ffmpeg binary that imageio-ffmpeg carries.

Video is streamed frame by frame in both directions; ffmpeg always gets a list of arguments, never a shell.
"""

from __future__ import annotations

import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import torch

from .audio import MAX_SECONDS, check_audio, mono
from .errors import TalkingPortraitError
from .timing import as_rate
from .types import Audio

MAX_PIXELS = 67_000_000
MAX_AAC_CHANNELS = 8
_INPUT = ("-nostdin", "-hide_banner", "-loglevel", "error", "-protocol_whitelist", "file,pipe,crypto,data")


def read_image(path: str | Path) -> torch.Tensor:
    """A picture file as (H, W, 3) float32 in 0..1, upright by its EXIF tag; transparency is laid over white.

    Grey, CMYK and 16-bit pictures are converted. Raises TalkingPortraitError for what is no picture or is too large.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    path = _existing(path, "picture")
    try:
        with Image.open(path) as file:
            if file.width * file.height > MAX_PIXELS:
                raise TalkingPortraitError(
                    f"The picture {path.name} has {file.width} x {file.height} pixels, but at most "
                    f"{MAX_PIXELS // 1_000_000} million are taken; scale it down."
                )
            picture: Any = ImageOps.exif_transpose(file)
            if picture.mode in ("I", "I;16", "I;16B", "I;16L", "F"):
                values = np.asarray(picture, dtype=np.float32)
                picture = Image.fromarray(np.uint8(values / max(255.0, 65535.0 if values.max() > 255 else 255.0) * 255))
            if picture.has_transparency_data:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            array = np.array(picture.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise TalkingPortraitError(
            f"The picture {path.name} can't be read ({error}); save it again as PNG or JPEG."
        ) from None
    return torch.from_numpy(array).float() / 255


def read_audio(path: str | Path) -> Audio:
    """The first sound track of any media file at its own rate and with its own channels.

    Raises TalkingPortraitError when there is none, it can't be decoded, or `check_audio` refuses it.
    """
    path = _existing(path, "audio")
    command = [_ffmpeg(), *_INPUT, "-i", str(path), "-map", "0:a:0", "-t", str(MAX_SECONDS + 1)]
    result = subprocess.run([*command, "-c:a", "pcm_f32le", "-f", "wav", "pipe:1"], capture_output=True, check=False)
    parsed = _parse_wav(result.stdout) if result.returncode == 0 else None
    if parsed is None:
        no_track = b"matches no streams" in result.stderr
        reason = "it has no sound track" if no_track else _last_line(result.stderr)
        raise TalkingPortraitError(
            f"The audio {path.name} can't be read ({reason}); give a WAV, FLAC, MP3 or another common sound file."
        )
    return check_audio(parsed)


def _parse_wav(data: bytes) -> Audio | None:
    """Float WAV as ffmpeg writes it to a pipe, where the sizes in the header are unknown."""
    if data[:4] != b"RIFF":
        return None
    position, channels, rate = 12, 0, 0
    while position + 8 <= len(data):
        name, size = data[position : position + 4], struct.unpack_from("<I", data, position + 4)[0]
        position += 8
        if name == b"fmt ":
            channels, rate = struct.unpack_from("<HI", data, position + 2)
        elif name == b"data" and channels:
            count = (len(data) - position) // (4 * channels) * channels
            samples = np.frombuffer(data, dtype="<f4", count=count, offset=position).reshape(-1, channels)
            return Audio(torch.from_numpy(samples.T.copy()), rate)
        position += size + size % 2
    return None


@dataclass(frozen=True)
class VideoFile:
    """A video on disk: `size` (height, width) upright, exact `fps`; iterate over `frames()` to read it."""

    path: Path
    size: tuple[int, int]
    fps: Fraction

    def frames(self) -> Iterator[np.ndarray]:
        """Each frame as (H, W, 3) uint8, at constant frame rate."""
        height, width = self.size
        command = [_ffmpeg(), *_INPUT, "-i", str(self.path), "-map", "0:v:0", "-r", str(self.fps)]
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                [*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"], stdout=subprocess.PIPE, stderr=log
            )
            assert process.stdout is not None
            try:
                seen = 0
                while len(data := process.stdout.read(height * width * 3)) == height * width * 3:
                    seen += 1
                    yield np.frombuffer(data, np.uint8).reshape(height, width, 3)
                if process.wait() and not seen:
                    log.seek(0)
                    raise TalkingPortraitError(
                        f"The video {self.path.name} can't be decoded ({_last_line(log.read())}); save it as MP4."
                    )
            finally:
                process.kill()
                process.stdout.close()
                process.wait()


def open_video(path: str | Path) -> VideoFile:
    """Looks into a video file without decoding it. Raises TalkingPortraitError when it holds no picture track."""
    path = _existing(path, "video")
    # ffmpeg prints what it sees and then complains that no output was named; its exit status means nothing here.
    seen = subprocess.run([_ffmpeg(), "-hide_banner", "-nostdin", "-i", str(path)], capture_output=True, check=False)
    text = seen.stderr.decode(errors="replace")
    line = next((row for row in text.splitlines() if " Video: " in row and "attached pic" not in row), "")
    size = re.search(r",\s(\d{1,5})x(\d{1,5})[\s,]", line)
    rate = re.search(r"([\d.]+) fps", line) or re.search(r"([\d.]+) tbr", line)
    if not size or not rate:
        raise TalkingPortraitError(f"{path.name} holds no video that can be read; give an MP4, MOV, MKV or WebM file.")
    width, height = int(size[1]), int(size[2])
    if width * height > MAX_PIXELS:
        raise TalkingPortraitError(
            f"The video {path.name} has {width} x {height} pixels, but at most {MAX_PIXELS // 1_000_000} million are "
            "taken; scale it down."
        )
    turned = re.search(r"rotation of (-?[\d.]+) degrees", text)
    if turned and round(float(turned[1])) % 180:
        width, height = height, width
    return VideoFile(path, (height, width), as_rate(rate[1]))


class VideoWriter:
    """Streams frames into an H.264 MP4 file with an optional AAC sound track; the file appears only when complete.

    Use as a context manager; leaving it by an exception removes what was written. Sides of odd length grow by one
    repeated row or column, as 4:2:0 colour needs even sides.
    """

    def __init__(
        self, path: str | Path, size: tuple[int, int], fps: Fraction, audio: Audio | None = None, *, crf: int = 18
    ) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in (".mp4", ".m4v", ".mov", ".mkv"):
            raise TalkingPortraitError(
                f"The video is to be written to {self.path.name}; give a name that ends in .mp4."
            )
        if not self.path.parent.is_dir():
            raise TalkingPortraitError(f"The folder {self.path.parent} does not exist; make it first.")
        if self.path.exists() and not self.path.is_file():
            raise TalkingPortraitError(f"{self.path} is no ordinary file and can't become a video; give another name.")
        if not 0 <= crf <= 51:
            raise TalkingPortraitError(f"The quality is {crf}, but 0 (lossless) to 51 is expected; 18 looks clean.")
        self.size, self.fps, self.audio, self.crf = size, fps, audio, crf
        self.frames = 0
        self._partial = self.path.with_name(f".{self.path.stem}.part{self.path.suffix}")

    def __enter__(self) -> VideoWriter:
        self._scratch = tempfile.TemporaryDirectory(prefix="talking-portrait-")
        height, width = (side + side % 2 for side in self.size)
        command = [_ffmpeg(), "-nostdin", "-hide_banner", "-loglevel", "error", "-y"]
        command += [
            "-f",
            "rawvideo",
            "-pix_fmt",
            "rgb24",
            "-s",
            f"{width}x{height}",
            "-r",
            str(self.fps),
            "-i",
            "pipe:0",
        ]
        if self.audio is not None:
            track = Path(self._scratch.name, "sound.wav")
            many = self.audio.waveform.shape[0] > MAX_AAC_CHANNELS
            write_wav(track, Audio(mono(self.audio)[None], self.audio.sample_rate) if many else self.audio)
            command += ["-i", str(track), "-map", "0:v", "-map", "1:a", "-c:a", "aac", "-b:a", "192k"]
        colour = "bt709"
        command += ["-vf", f"scale=out_color_matrix={colour}:out_range=tv", "-c:v", "libx264", "-preset", "veryfast"]
        command += ["-crf", str(self.crf), "-pix_fmt", "yuv420p", "-colorspace", colour, "-color_primaries", colour]
        command += ["-color_trc", colour, "-movflags", "+faststart", str(self._partial)]
        self._log: IO[bytes] = tempfile.TemporaryFile()
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._log)
        return self

    def write(self, frames: np.ndarray) -> None:
        """Appends (H, W, 3) or (B, H, W, 3) uint8 frames."""
        frames = frames.reshape(-1, *frames.shape[-3:])
        if frames.dtype != np.uint8 or frames.shape[1:] != (*self.size, 3):
            raise TalkingPortraitError(
                f"Frames of {frames.shape[1:]} {frames.dtype} were given to a video of {(*self.size, 3)} uint8; "
                "keep one size for the whole video."
            )
        height, width = self.size
        if height % 2 or width % 2:
            frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(np.ascontiguousarray(frames).data)
        except OSError:
            raise self._failure() from None
        self.frames += len(frames)

    def _failure(self) -> TalkingPortraitError:
        self._process.wait(timeout=10)
        self._log.seek(0)
        log = self._log.read()
        reason = "the disk is full" if b"No space left" in log else _last_line(log)
        advice = "free some space" if b"No space left" in log else "check the folder and the name"
        return TalkingPortraitError(f"The video {self.path.name} can't be written ({reason}); {advice} and try again.")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is not None:
                self._process.kill()
            with suppress(OSError):
                assert self._process.stdin is not None
                self._process.stdin.close()
            if self._process.wait() and kind is None:
                raise self._failure()
            if kind is None:
                self._partial.replace(self.path)
        finally:
            self._partial.unlink(missing_ok=True)
            self._log.close()
            self._scratch.cleanup()


def write_wav(path: str | Path, audio: Audio) -> None:
    """Writes 32-bit float WAV. Raises TalkingPortraitError when the disk refuses it."""
    samples = np.ascontiguousarray(audio.waveform.T.numpy(), dtype="<f4")
    channels, rate = samples.shape[1], audio.sample_rate
    header = struct.pack("<HHIIHH", 3, channels, rate, rate * channels * 4, channels * 4, 32)
    chunks = b"fmt " + struct.pack("<I", len(header)) + header + b"data" + struct.pack("<I", samples.nbytes)
    try:
        with open(path, "wb") as file:
            file.write(b"RIFF" + struct.pack("<I", 4 + len(chunks) + samples.nbytes) + b"WAVE" + chunks)
            file.write(samples.data)
    except OSError as error:
        raise TalkingPortraitError(
            f"The sound {Path(path).name} can't be written ({error.strerror}); check the folder and its free space."
        ) from None


def write_image(path: str | Path, image: torch.Tensor) -> None:
    """Writes (H, W, 3) in 0..1 as the format that the name's ending says."""
    from PIL import Image

    Image.fromarray(to_uint8(image)).save(path)


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """Pictures in 0..1 as rounded bytes."""
    return (images.clamp(0, 1) * 255 + 0.5).to(torch.uint8).cpu().numpy()


def _ffmpeg() -> str:
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        return get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise TalkingPortraitError(
            f"Sound and video files need ffmpeg ({error}); run: pip install imageio-ffmpeg"
        ) from None


def _existing(path: str | Path, kind: str) -> Path:
    path = Path(path)
    if not is_file(path):
        raise TalkingPortraitError(f"The {kind} file {_name_of(path)} does not exist; check its name and folder.")
    return path


def is_file(path: Path) -> bool:
    """Whether there is an ordinary file; False too for names that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _name_of(path: Path) -> str:
    """A path for a sentence: whole unless it is absurdly long."""
    text = str(path)
    return text if len(text) <= 300 else f"{text[:300]} ..."


def _last_line(log: bytes) -> str:
    lines = [line for line in log.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no reason was given"
