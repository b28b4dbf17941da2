"""Files in and out: pictures by Pillow, sound and video by PyAV and ffmpeg, streamed in both directions."""

from __future__ import annotations

import math
import struct
import subprocess
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import torch

from ..audio.waveform import MAX_SECONDS, SPEECH_RATE, MonoMixer, Resampler, check_audio, check_rate, lasting
from ..errors import TalkingPortraitError
from ..timing import frame_count
from ..types import Audio
from .ffmpeg import Ffmpeg, last_line
from .frame_pixels import EXACT_SCALING, FramePixels
from .media_streams import (
    AudioStream,
    DamagedMediaError,
    MediaStreams,
    VideoStream,
    decoded_frames,
    find_streams,
    frame_length,
    import_av,
    stated_length,
)
from .output_paths import file_to_write, shortened, unfinished

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
    """The sound of a media file on its timeline, decoded piece by piece. Make one with `open_sound`."""

    path: Path
    stream: AudioStream
    origin: Fraction
    """Time in the file at which the timeline begins: with the first picture, or with sound that is earlier."""

    @property
    def rate(self) -> int:
        return self.stream.rate

    @property
    def channels(self) -> int:
        return self.stream.channels

    def blocks(self) -> Iterator[np.ndarray]:
        """Samples (n, channels) float32, in order, with silence where the file has none.

        Raises TalkingPortraitError when the file ends before its header says, or nothing can be decoded.
        """
        position, most = 0, (MAX_SECONDS + 1) * self.rate
        slack = self.rate * _CLOCK_SLACK
        waiting: list[np.ndarray] = []
        try:
            for samples, time in self._decoded():
                due = round((time - self.origin) * self.rate)
                if due > position + slack:
                    waiting.append(np.zeros((min(due - position, most), self.channels), np.float32))
                elif due < position - slack:
                    samples = samples[position - due :]
                waiting.append(samples)
                position = max(position, due if due > position + slack else position) + len(samples)
                if sum(map(len, waiting)) >= SOUND_BLOCK:
                    yield np.concatenate(waiting)
                    waiting = []
                if position > most:
                    break
        except DamagedMediaError as error:
            raise self._unreadable(str(error)) from None
        if waiting:
            yield np.concatenate(waiting)
        if not position:
            raise self._unreadable("nothing in it can be decoded")

    def _decoded(self) -> Iterator[tuple[np.ndarray, Fraction]]:
        """Samples (n, channels) float32 of each frame, with its time."""
        resampler = None
        waiting: tuple[np.ndarray, Fraction] | None = None
        stated = 0
        for frame, time in decoded_frames(self.path, self.stream.index):
            if waiting is not None:
                yield waiting
            if (frame.sample_rate, len(frame.layout.channels)) == (self.rate, self.channels):
                waiting = _samples(frame), time
            else:  # some streams change on their way
                if resampler is None:
                    resampler = import_av().AudioResampler("fltp", self.stream.layout, self.rate)
                frame.pts = None
                parts = [_samples(part) for part in resampler.resample(frame)]
                waiting = (np.concatenate(parts), time) if parts else None
            stated = round(stated_length(frame) * self.rate)
        if waiting is not None:  # an encoder fills its last frame up; the file says how much of it is sound
            yield waiting[0][: stated or None], waiting[1]

    def _unreadable(self, reason: str) -> TalkingPortraitError:
        return TalkingPortraitError(f"The audio {self.path.name} can't be read ({reason}); {_SOUND_ADVICE}")


_SOUND_ADVICE = "give a WAV, FLAC, MP3 or another common sound file."
_CLOCK_SLACK = Fraction(15, 1000)
"""Seconds by which the times in a file may differ from the count of samples before silence or a cut makes up for it."""
SOUND_BLOCK = 1 << 18
"""Samples of each channel that are decoded at once, at least."""


_SAMPLE_TYPES: dict[str, Any] = {
    "u8": np.uint8,
    "s16": np.int16,
    "s32": np.int32,
    "s64": np.int64,
    "flt": np.float32,
    "dbl": np.float64,
}
"""By ffmpeg's names of packed sample formats."""


def _samples(frame: Any) -> np.ndarray:
    """A decoded frame's samples (n, channels) as float32 in -1..1."""
    kind = _SAMPLE_TYPES[frame.format.packed.name]
    channels = len(frame.layout.channels)
    if frame.format.is_planar:
        planes = [np.frombuffer(frame.planes[number], kind, frame.samples) for number in range(channels)]
        values = np.stack(planes, axis=1)
    else:
        values = np.frombuffer(frame.planes[0], kind, frame.samples * channels).reshape(-1, channels)
    if kind is np.uint8:
        return (values.astype(np.float32) - 128) / 128
    if values.dtype.kind == "i":
        return values.astype(np.float32) / -float(np.iinfo(kind).min)
    return values.astype(np.float32)


def open_sound(path: str | Path) -> SoundTrack:
    """The first sound track of any media file. Raises TalkingPortraitError when there is none that can be decoded."""
    path = _existing(path, "audio")
    streams, reason = _streams(path)
    if streams is not None and streams.audio is not None:
        return SoundTrack(path, streams.audio, streams.origin)
    if streams is not None:
        raise NoSoundError(f"The audio {path.name} can't be read (it has no sound track); {_SOUND_ADVICE}")
    raise TalkingPortraitError(f"The audio {path.name} can't be read ({reason}); {_SOUND_ADVICE}")


def _streams(path: Path) -> tuple[MediaStreams | None, str]:
    """What a file holds, or None and the reason why it can't be read."""
    try:
        return find_streams(path), ""
    except import_av().error.FFmpegError as error:
        return None, error.strerror or str(error)


def read_audio(path: str | Path) -> Audio:
    """The first sound track of any media file at its own rate and with its own channels, on the file's timeline.

    Raises TalkingPortraitError when there is none, it can't be decoded, or `check_audio` refuses it.
    """
    sound = open_sound(path)
    samples = bytearray()
    for block in sound.blocks():
        samples += block.data
    waveform = torch.frombuffer(samples, dtype=torch.float32)
    # A view: a copy with the channels one after the other would need as much memory again.
    return check_audio(Audio(waveform.reshape(-1, sound.channels).T, sound.rate))


def read_speech(path: str | Path, fps: Fraction) -> tuple[Audio, SoundTrack]:
    """What drivers take, and the track to put beside their frames: one channel at 16 kHz, made as it is decoded.

    It lasts as many frames of `fps` as the recording does, and takes 4 MB of memory a minute. Raises as `read_audio`.
    """
    sound = open_sound(path)
    mixer, resampler = MonoMixer(sound.rate), Resampler(check_rate(sound.rate), SPEECH_RATE)
    speech = bytearray()
    samples = 0
    for block in sound.blocks():
        samples += len(block)
        speech += resampler.push(mixer.push(torch.from_numpy(block.T)).numpy()).data
    speech += resampler.push(mixer.finish().numpy()).data
    speech += resampler.finish().data
    wave = torch.frombuffer(speech, dtype=torch.float32)[None] if speech else torch.zeros(1, 0)
    speech_of_file = lasting(wave, frame_count(samples, sound.rate, fps), fps)
    return check_audio(speech_of_file), sound


class NoSoundError(TalkingPortraitError):
    """A media file without a sound track."""


@dataclass(frozen=True)
class VideoFile:
    """A video on disk: `size` (height, width) upright with square pixels, `fps`; iterate over `frames()` to read it.

    A variable rate becomes constant: `fps` is that of its closely spaced frames, and `dataclasses.replace` may set any
    other; each frame is shown at its time.
    """

    path: Path
    size: tuple[int, int]
    fps: Fraction
    stream: VideoStream
    origin: Fraction
    """Time in the file of frame 0."""

    def frames(self) -> Iterator[np.ndarray]:
        """Each frame as (H, W, 3) uint8 RGB at the constant rate `fps`; colours are those that a screen would show.

        Raises TalkingPortraitError, after the last whole frame, for a file that ends before its header says.
        """
        pixels = FramePixels(self.stream)
        # A frame counts for the slots from half a frame before its time on: rounded times must not drop or repeat one.
        early = Fraction(1, 2) / max(self.fps, self.stream.rate)
        shown: np.ndarray | None = None
        latest: Any = None
        number, end = 0, self.origin
        try:
            for frame, time in decoded_frames(self.path, self.stream.index):
                first = math.ceil((time - self.origin - early) * self.fps)
                while latest is not None and number < first:
                    shown = pixels(latest) if shown is None else shown
                    yield shown
                    number += 1
                latest, shown = frame, None
                end = time + (frame_length(frame) or 1 / self.stream.rate)
            last = max(round((end - self.origin) * self.fps), 1) if latest is not None else 0
            while number < last:
                shown = pixels(latest) if shown is None else shown
                yield shown
                number += 1
        except DamagedMediaError as error:
            raise TalkingPortraitError(
                f"The video {self.path.name} is damaged or cut short ({error}): it breaks off after {number} frames; "
                "copy or download it again, or save what is left of it as a new file."
            ) from None
        if not number:
            raise TalkingPortraitError(f"The video {self.path.name} can't be decoded; save it as MP4.")


def open_video(path: str | Path) -> VideoFile:
    """Looks into a video file and decodes its first frame. Raises TalkingPortraitError when it holds no video."""
    path = _existing(path, "video")
    streams, _ = _streams(path)
    if streams is None or streams.video is None:
        raise TalkingPortraitError(f"{path.name} holds no video that can be read; give an MP4, MOV, MKV or WebM file.")
    height, width = size = FramePixels(streams.video).size
    if width * height > MAX_PIXELS:
        raise TalkingPortraitError(
            f"The video {path.name} has {width} x {height} pixels, but at most {MAX_PIXELS // 1_000_000} million are "
            "taken; scale it down."
        )
    return VideoFile(path, size, streams.video.rate, streams.video, streams.origin)


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
        self._partial, self._sound = unfinished(self.path), unfinished(self.path, ".pcm")

    def __enter__(self) -> VideoWriter:
        try:
            self._ffmpeg = Ffmpeg(self._command(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        except BaseException:
            self._sound.unlink(missing_ok=True)
            raise
        return self

    def _command(self) -> list[str]:
        """ffmpeg's arguments; sound is written beside the video first, as a pipe is taken by the frames."""
        height, width = (side + side % 2 for side in self.size)
        command = ["-nostdin", "-hide_banner", "-loglevel", "error", "-y"]
        command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(self.fps)]
        command += ["-i", "pipe:0"]
        if self.audio is not None:
            rate, channels = self._write_sound(self.audio)
            command += ["-f", "f32le", "-ar", str(rate), "-ac", str(channels), "-i", f"file:{self._sound}"]
            command += ["-map", "0:v", "-map", "1:a:0", "-c:a", "aac", "-b:a", "192k"]
        # The tags are set on the frames: those of the command would not reach the file.
        colour = "color_primaries=bt709:color_trc=bt709:colorspace=bt709:range=tv"
        command += ["-vf", f"scale=out_color_matrix=bt709:out_range=tv:flags={EXACT_SCALING},setparams={colour}"]
        command += ["-c:v", "libx264", "-preset", "veryfast", "-crf", str(self.crf), "-pix_fmt", "yuv420p"]
        return [*command, "-movflags", "+faststart", f"file:{self._partial}"]

    def _write_sound(self, audio: Audio | SoundTrack) -> tuple[int, int]:
        """Writes all samples beside the video, one channel where AAC has not that many; (rate, channels)."""
        if isinstance(audio, SoundTrack):
            rate, channels, blocks = audio.rate, audio.channels, audio.blocks()
        else:
            rate, channels = audio.sample_rate, audio.waveform.shape[0]
            blocks = (block.T.numpy() for block in audio.waveform.split(WAV_BLOCK, dim=1))
        if channels > MAX_AAC_CHANNELS:
            blocks, channels = _mixed(blocks, rate), 1
        with _sound_file(self._sound, f"of {self.path.name}") as file:
            for block in blocks:
                file.write(np.ascontiguousarray(block, dtype="<f4").data)
        return rate, channels

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


def _mixed(blocks: Iterable[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """Blocks (n, channels) as one channel."""
    mixer = MonoMixer(rate)
    for block in blocks:
        yield mixer.push(torch.from_numpy(block.T)).numpy()
    yield mixer.finish().numpy()


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
    with _sound_file(path, name) as file:
        file.write(b"RIFF" + struct.pack("<I", 4 + len(start) + 4 + size) + b"WAVE" + start)
        file.write(struct.pack("<I", size))
        for block in audio.waveform.split(WAV_BLOCK, dim=1):
            file.write(np.ascontiguousarray(block.T.numpy(), dtype="<f4").data)


@contextmanager
def _sound_file(path: Path, name: str) -> Iterator[BinaryIO]:
    """A new file for samples; nothing is left of it when the disk refuses it, which is a TalkingPortraitError."""
    try:
        with path.open("wb") as file:
            yield file
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
