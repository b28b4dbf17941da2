"""Files in and out: pictures by Pillow, sound and video by ffmpeg, streamed in both directions."""

from __future__ import annotations

import re
import struct
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from .audio import MAX_SECONDS, SPEECH_RATE, Resampler, check_audio, check_rate, lasting, mono
from .errors import TalkingPortraitError
from .ffmpeg import Ffmpeg, input_file, last_line
from .targets import file_to_write, shortened, unfinished
from .timing import as_rate, frame_count
from .types import Audio

MAX_PIXELS = 67_000_000
MAX_AAC_CHANNELS = 8
WAV_BLOCK = 1 << 20
"""Samples of each channel that are written at once."""


def read_image(path: str | Path) -> torch.Tensor:
    """A picture file as (H, W, 3) float32 in 0..1, upright by its EXIF tag; transparency is laid over white.

    Any colour space and depth becomes 8-bit sRGB; of an animation the first frame is taken. Raises TalkingPortraitError
    for what is no picture or is too large.
    """
    path = _existing(path, "picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd tags; what matters is whether there is a picture
            array = _decoded(path)
    except TalkingPortraitError:
        raise
    except Exception as error:  # every decoder has its own for a damaged file
        reason = str(error)[:120] or type(error).__name__
        raise TalkingPortraitError(
            f"The picture {path.name} can't be read ({reason}); save it again as PNG or JPEG."
        ) from None
    return torch.from_numpy(array).float().div_(255)


def _decoded(path: Path) -> np.ndarray:
    """A picture file as (H, W, 3) uint8; raises whatever its decoder raises."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    from .picture_colours import format_of, to_srgb

    try:
        file = Image.open(path)
    except UnidentifiedImageError:
        raise TalkingPortraitError(
            f"The picture {path.name} can't be read ({format_of(path)}); save it as PNG or JPEG."
        ) from None
    except Image.DecompressionBombError:
        raise TalkingPortraitError(f"The picture {path.name} has far too many pixels; scale it down.") from None
    with file:
        if file.width * file.height > MAX_PIXELS:
            raise TalkingPortraitError(
                f"The picture {path.name} has {file.width} x {file.height} pixels, but at most "
                f"{MAX_PIXELS // 1_000_000} million are taken; scale it down."
            )
        ImageOps.exif_transpose(file, in_place=True)
        return np.array(to_srgb(file))


@dataclass(frozen=True)
class SoundTrack:
    """The first sound track of a file that was found to be good, for ffmpeg to read by itself."""

    path: Path
    channels: int


def read_audio(path: str | Path) -> Audio:
    """The first sound track of any media file at its own rate and with its own channels.

    Raises TalkingPortraitError when there is none, it can't be decoded, or `check_audio` refuses it.
    """
    with _Decoder(_existing(path, "audio")) as sound:
        samples = bytearray()
        for block in sound.blocks():
            samples += block.data
        waveform = torch.frombuffer(samples, dtype=torch.float32) if samples else torch.zeros(0)
        # A view: a copy with the channels one after the other would need as much memory again.
        return check_audio(Audio(waveform.reshape(-1, sound.channels).T, sound.rate))


def read_speech(path: str | Path, fps: Fraction) -> tuple[Audio, SoundTrack]:
    """What drivers listen to, and the track to put beside their frames: one channel at 16 kHz, made as it is decoded.

    It lasts as many frames of `fps` as the recording does, and takes 4 MB of memory a minute. Raises as `read_audio`.
    """
    with _Decoder(_existing(path, "audio")) as sound:
        thinned = Resampler(check_rate(sound.rate), SPEECH_RATE)
        speech = bytearray()
        samples = 0
        for block in sound.blocks():
            samples += len(block)
            speech += thinned.push(mono(Audio(torch.tensor(block).T, sound.rate)).numpy()).data
        speech += thinned.finish().data
        wave = torch.frombuffer(speech, dtype=torch.float32)[None] if speech else torch.zeros(1, 0)
        speech_of_file = lasting(wave, frame_count(samples, sound.rate, fps), fps)
        return check_audio(speech_of_file), SoundTrack(sound.path, sound.channels)


class NoSoundError(TalkingPortraitError):
    """A media file without a sound track."""


class _Decoder:
    """The first sound track of a file, decoded piece by piece; `rate` and `channels` are known once it is open."""

    BLOCK = 1 << 18
    """Samples of each channel in a piece."""

    def __init__(self, path: Path) -> None:
        self.path = path
        command = [*input_file(path), "-map", "0:a:0", "-t", str(MAX_SECONDS + 1), "-c:a", "pcm_f32le", "-f", "wav"]
        self._ffmpeg = Ffmpeg([*command, "pipe:1"], stdout=subprocess.PIPE)

    def __enter__(self) -> _Decoder:
        with ExitStack() as stack:
            stack.enter_context(self._ffmpeg)
            self.channels, self.rate = self._header()
            stack.pop_all()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._ffmpeg.__exit__(*raised)

    def _header(self) -> tuple[int, int]:
        """Reads as far as the samples of the WAV stream; (channels, rate)."""
        output, channels, rate = self._ffmpeg.output, 0, 0
        if output.read(12)[:4] == b"RIFF":
            while len(start := output.read(8)) == 8:
                name, size = struct.unpack("<4sI", start)
                if name == b"data" and channels:  # its size is unknown where the file is a pipe
                    return channels, rate
                content = output.read(size + size % 2)
                if name == b"fmt ":
                    channels, rate = struct.unpack_from("<HI", content, 2)
        raise self._failure()

    def blocks(self) -> Iterator[np.ndarray]:
        """Samples (n, channels) float32, in order."""
        frame = 4 * self.channels
        while data := self._ffmpeg.output.read(self.BLOCK * frame):
            yield np.frombuffer(data[: len(data) // frame * frame], dtype="<f4").reshape(-1, self.channels)
        if self._ffmpeg.wait() or self._ffmpeg.cut_short:
            raise self._failure()

    def _failure(self) -> TalkingPortraitError:
        self._ffmpeg.wait()
        log, advice = self._ffmpeg.log, "give a WAV, FLAC, MP3 or another common sound file."
        if "matches no streams" in log:
            return NoSoundError(f"The audio {self.path.name} can't be read (it has no sound track); {advice}")
        reason = "its end is missing" if self._ffmpeg.cut_short else last_line(log)
        return TalkingPortraitError(f"The audio {self.path.name} can't be read ({reason}); {advice}")


@dataclass(frozen=True)
class VideoFile:
    """A video on disk: `size` (height, width) upright, exact `fps`; iterate over `frames()` to read it."""

    path: Path
    size: tuple[int, int]
    fps: Fraction

    def frames(self) -> Iterator[np.ndarray]:
        """Each frame as (H, W, 3) uint8, at constant frame rate.

        Raises TalkingPortraitError, after the last whole frame, for a file that ends before its header says.
        """
        height, width = self.size
        command = [*input_file(self.path), "-map", "0:v:0", "-r", str(self.fps), "-f", "rawvideo"]
        with Ffmpeg([*command, "-pix_fmt", "rgb24", "pipe:1"], stdout=subprocess.PIPE) as work:
            seen = 0
            while len(data := work.output.read(height * width * 3)) == height * width * 3:
                seen += 1
                yield np.frombuffer(data, np.uint8).reshape(height, width, 3)
            failed = work.wait() != 0
            if work.cut_short or (failed and seen):
                raise TalkingPortraitError(
                    f"The video {self.path.name} is damaged or cut short ({last_line(work.log)}): it breaks off after "
                    f"{seen} frames; copy or download it again, or save what is left of it as a new file."
                )
            if not seen:
                raise TalkingPortraitError(
                    f"The video {self.path.name} can't be decoded ({last_line(work.log)}); save it as MP4."
                )


def open_video(path: str | Path) -> VideoFile:
    """Looks into a video file without decoding it. Raises TalkingPortraitError when it holds no picture track."""
    path = _existing(path, "video")
    # ffmpeg prints what it sees and then complains that no output was named; its exit status means nothing here.
    with Ffmpeg([*input_file(path), "-loglevel", "info"]) as work:
        work.wait()
        text = work.log
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
    repeated row or column, as 4:2:0 colour needs even sides. Sound is given in memory, or as the track of a file.
    """

    def __init__(
        self,
        path: str | Path,
        size: tuple[int, int],
        fps: Fraction,
        audio: Audio | SoundTrack | None = None,
        *,
        crf: int = 18,
    ) -> None:
        check_video_name(path, crf)
        self.path = file_to_write(path)
        self.size, self.fps, self.audio, self.crf = size, fps, audio, crf
        self.frames = 0
        self._partial, self._sound = unfinished(self.path), unfinished(self.path, ".wav")

    def __enter__(self) -> VideoWriter:
        try:
            self._ffmpeg = Ffmpeg(self._command(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        except BaseException:
            self._sound.unlink(missing_ok=True)
            raise
        return self

    def _command(self) -> list[str]:
        """ffmpeg's arguments; sound in memory is written beside the video first, as a pipe is taken by the frames."""
        height, width = (side + side % 2 for side in self.size)
        command = ["-nostdin", "-hide_banner", "-loglevel", "error", "-y"]
        command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(self.fps)]
        command += ["-i", "pipe:0"]
        if self.audio is not None:
            # The first sample belongs to the first frame, whatever times the file gives its samples.
            track, sound = self._sound, "asetpts=N/SR/TB"
            if isinstance(self.audio, SoundTrack):
                track, channels = self.audio.path, self.audio.channels
            else:
                channels = self.audio.waveform.shape[0]
                write_wav(track, self.audio, name=f"of {self.path.name}")
            if channels > MAX_AAC_CHANNELS:
                sound += ",pan=mono|c0=" + "+".join(f"{1 / channels:.6f}*c{number}" for number in range(channels))
            command += [*input_file(track), "-map", "0:v", "-map", "1:a:0", "-af", sound, "-c:a", "aac", "-b:a", "192k"]
        colour = "bt709"
        command += ["-vf", f"scale=out_color_matrix={colour}:out_range=tv", "-c:v", "libx264", "-preset", "veryfast"]
        command += ["-crf", str(self.crf), "-pix_fmt", "yuv420p", "-colorspace", colour, "-color_primaries", colour]
        return [*command, "-color_trc", colour, "-movflags", "+faststart", f"file:{self._partial}"]

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
        try:
            self._ffmpeg.input.write(np.ascontiguousarray(frames).data)
        except OSError:
            raise self._failure() from None
        self.frames += len(frames)

    def _failure(self) -> TalkingPortraitError:
        self._ffmpeg.wait()
        full = "No space left" in self._ffmpeg.log
        reason = "the disk is full" if full else last_line(self._ffmpeg.log)
        advice = "free some space" if full else "check the folder and the name"
        return TalkingPortraitError(f"The video {self.path.name} can't be written ({reason}); {advice} and try again.")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._ffmpeg:
                if kind is None:
                    with suppress(OSError):
                        self._ffmpeg.input.close()
                    if self._ffmpeg.wait():
                        raise self._failure()
                    self._partial.replace(self.path)
        finally:
            self._partial.unlink(missing_ok=True)
            self._sound.unlink(missing_ok=True)


def check_video_name(path: str | Path, crf: int) -> None:
    """Raises TalkingPortraitError for a name that is no video's, and for a quality that H.264 does not have."""
    path = Path(path)
    if path.suffix.lower() not in (".mp4", ".m4v", ".mov", ".mkv"):
        raise TalkingPortraitError(f"The video is to be written to {shortened(path)}; give a name that ends in .mp4.")
    if not 0 <= crf <= 51:
        raise TalkingPortraitError(f"The quality is {crf}, but 0 (lossless) to 51 is expected; 18 looks clean.")


def write_wav(path: str | Path, audio: Audio, *, name: str = "") -> None:
    """Writes 32-bit float WAV; nothing is left of it when the disk refuses it, which is a TalkingPortraitError.

    `name` is what the message calls the sound; by default its file name.
    """
    path = Path(path)
    name = name or path.name
    channels, samples = audio.waveform.shape
    rate, size = audio.sample_rate, 4 * channels * samples
    header = struct.pack("<HHIIHH", 3, channels, rate, rate * channels * 4, channels * 4, 32)
    start = b"fmt " + struct.pack("<I", len(header)) + header + b"data"
    if size > 0xFFFFFFFF - 8 - len(start):
        raise TalkingPortraitError(
            f"The sound {name} would have {size} bytes, but a WAV file holds less than 4 GB; cut it into parts."
        )
    try:
        with path.open("wb") as file:
            file.write(b"RIFF" + struct.pack("<I", 4 + len(start) + 4 + size) + b"WAVE" + start)
            file.write(struct.pack("<I", size))
            for block in audio.waveform.split(WAV_BLOCK, dim=1):
                file.write(np.ascontiguousarray(block.T.numpy(), dtype="<f4").data)
    except BaseException as error:
        path.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise TalkingPortraitError(
            f"The sound {name} can't be written ({error.strerror}); check the folder and its free space."
        ) from None


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
            f"The picture {path} can't be written ({error.strerror or error}); check the folder and its free space."
        ) from None


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """Pictures in 0..1 as rounded bytes."""
    return (images.clamp(0, 1) * 255 + 0.5).to(torch.uint8).cpu().numpy()


def _existing(path: str | Path, kind: str) -> Path:
    path = Path(path)
    if not is_file(path):
        raise TalkingPortraitError(f"The {kind} file {shortened(path)} does not exist; check its name and folder.")
    return path


def is_file(path: Path) -> bool:
    """Whether there is an ordinary file; False too for names that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
