"""Video in by PyAV and out by ffmpeg, streamed in both directions."""

from __future__ import annotations

import errno
import math
import subprocess
import weakref
from collections.abc import Container, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ..errors import TalkingPortraitError, quoted, reason_of
from ..image.display_order import frame_length
from ..progress import check_interrupted
from ..provenance.marking import MarkedFrames, Marking
from ..provenance.metadata import add_xmp, comment_of, read_statement, tags
from ..types import Audio, Progress
from .damage import DamagedMediaError
from .ffmpeg import Ffmpeg, last_line
from .frame_pixels import EXACT_SCALING, FramePixels, may_be_transparent
from .images import MAX_PIXELS, is_picture
from .input_paths import existing_file, is_encrypted
from .media_streams import MediaStreams, VideoStream, decoded_frames
from .output_paths import as_path, file_to_write, rename_durably, shortened
from .scratch import interruptions_held, scratch_folder
from .sound import (
    MAX_AAC_CHANNELS,
    WAV_BLOCK,
    NoSoundError,
    SoundTrack,
    mixed_to_one,
    new_sound_file,
    open_sound,
    streams_or_reason,
)

VIDEO_ENDINGS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
"""Of names that are taken for a video's."""


@dataclass(frozen=True)
class VideoFile:
    """A video on disk: `size` (height, width) upright with square pixels, `fps`; iterate over `frames()` to read it.

    A variable rate becomes constant: `fps` is that of its closely spaced frames, and `dataclasses.replace` may set any
    other; each frame starts at its time.
    """

    path: Path
    size: tuple[int, int]
    fps: Fraction
    stream: VideoStream
    origin: Fraction
    """Time in the file of frame 0."""

    @property
    def stated_frames(self) -> int:
        """How many frames there are by the file's own word, for a progress; 0 where it says nothing."""
        return round((self.stream.seconds or 0) * self.fps)

    @property
    def transparent(self) -> bool:
        """Whether anything of the first frame is transparent; `frames` lay it over white."""
        first = self.stream.first
        return may_be_transparent(first) and bool((first.to_ndarray(format="rgba")[..., 3] < 255).any())

    def frames(self, start: int = 0, *, only: Container[int] | None = None) -> Iterator[np.ndarray]:
        """Each frame from `start` on, (H, W, 3) uint8 RGB at the constant rate `fps`, in an ordinary screen's colours.

        With `only`, those of these numbers: the others are decoded, which is quicker than converting them too.
        Raises TalkingPortraitError, after the last whole frame, for a file that ends before its header says.
        """
        pixels = FramePixels(self.stream)
        converted: Any = None
        current: np.ndarray | None = None
        for number, frame in self._numbered(start):
            if only is None or number in only:
                if current is None or frame is not converted:
                    converted, current = frame, pixels(frame)
                yield current

    def _numbered(self, start: int) -> Iterator[tuple[int, Any]]:
        """Numbers from `start` on, each with the decoded frame that is shown then."""
        # A frame counts for the slots from half a frame before its time on: rounded times must not drop or repeat one.
        early = Fraction(1, 2) / max(self.fps, self.stream.rate)
        latest: Any = None
        number, end = start, self.origin
        try:
            for frame, time in self._decoded(start, early):
                first = math.ceil((time - self.origin - early) * self.fps)
                while latest is not None and number < first:
                    yield number, latest
                    number += 1
                latest = frame
                end = time + (frame_length(frame) or 1 / self.stream.rate)
            last = max(round((end - self.origin) * self.fps), 1) if latest is not None else 0
            while number < last:
                yield number, latest
                number += 1
        except DamagedMediaError as error:
            raise TalkingPortraitError(
                f"The video {self.path.name} is damaged or cut short ({error}): it breaks off after {number} frames; "
                "copy or download it again, or save what is left of it as a new file."
            ) from None
        if not number:
            raise TalkingPortraitError(f"The video {self.path.name} can't be decoded; save it as MP4.")

    def _decoded(self, start: int, early: Fraction) -> Iterator[tuple[Any, Fraction]]:
        """Decoded frames with their times, of which one at least is not later than the slot `start`."""
        if start:
            near = self.origin + early + start / self.fps
            sought = decoded_frames(self.path, self.stream.index, warn=False, near=near)
            first = next(sought, None)
            if first is not None and first[1] <= near:
                yield first
                yield from sought
                return
        yield from decoded_frames(self.path, self.stream.index)


def open_video(path: str | Path) -> VideoFile:
    """Opens a video file and decodes its first frame. Raises TalkingPortraitError when it holds no video."""
    path = existing_file(path, "video")
    streams, reason = streams_or_reason(path)
    if streams is None or streams.video is None:
        raise no_video(path, streams, reason)
    height, width = size = FramePixels(streams.video).size
    if width * height > MAX_PIXELS:
        raise TalkingPortraitError(
            f"The video {path.name} has {width} x {height} pixels, but at most {MAX_PIXELS // 1_000_000} million are "
            "taken; scale it down."
        )
    return VideoFile(path, size, streams.video.rate, streams.video, streams.origin)


def no_video(path: Path, streams: MediaStreams | None, reason: str) -> TalkingPortraitError:
    """For what `streams_or_reason` gave of a file without video."""
    if streams is not None:
        reason = "it has sound alone" if streams.audio is not None else "it is encrypted" if is_encrypted(path) else ""
    reason = f" ({reason})" if reason else ""
    return TalkingPortraitError(
        f"{path.name} holds no video that can be read{reason}; give an MP4, MOV, MKV or WebM file."
    )


def is_film(path: str | Path) -> bool:
    """Whether a file holds pictures that move and is no picture file, whatever its name says.

    What holds neither is what its name says.
    """
    if is_picture(path):
        return False
    try:
        moves = len(list(islice(open_video(path).frames(), 2))) == 2
    except TalkingPortraitError:
        moves = False
    return moves or Path(path).suffix.lower() in VIDEO_ENDINGS


class VideoWriter:
    """Streams frames into an H.264 MP4 file with an optional AAC sound track; the file appears only when complete.

    A name that ends in .webm gets VP9 and Opus. Frames with alpha go into VP9, or into ProRes 4444 in a .mov.

    Use as a context manager; leaving it by an exception removes what was written. Sides of odd length grow by one
    repeated row or column, as 4:2:0 colour needs even sides. Sound is given in memory, or as the track of a file.
    With a `marking` the file says that AI made it, in its metadata and, invisibly, in its pictures; a `comment` is what
    the metadata of another says.
    """

    def __init__(
        self,
        path: str | Path,
        size: tuple[int, int],
        fps: Fraction,
        audio: Audio | SoundTrack | None = None,
        *,
        crf: int = 18,
        marking: Marking | None = None,
        alpha: bool = False,
        comment: str = "",
    ) -> None:
        check_video_name(path, crf)
        if alpha and not holds_alpha(path):
            raise TalkingPortraitError(
                f"Frames with transparency are to be written to {Path(path).name}; give a name that ends in .webm or "
                ".mov, or lay the picture over a background."
            )
        self.alpha = alpha
        self.path, self.name = file_to_write(path), Path(path).name
        self.size, self.fps, self.audio, self.crf = size, fps, audio, crf
        self.frames, self.marking = 0, marking
        self._texts = {"comment": comment} if marking is None else tags(marking)
        self._marked = MarkedFrames(size) if marking is not None and marking.invisible else None
        self._stack = ExitStack()
        # Where an interruption comes between __enter__ and the block, __exit__ is not called.
        weakref.finalize(self, self._stack.close)

    def __enter__(self) -> VideoWriter:
        try:
            scratch = self._stack.enter_context(scratch_folder(self.path.parent, self.path.stem))
            # ffmpeg takes the kind of file from the ending that was checked; what a link leads to may have another.
            self._partial, self._sound = scratch / f"video{Path(self.name).suffix}", scratch / "sound.pcm"
            command = self._command()
            with interruptions_held():
                self._ffmpeg = self._stack.enter_context(
                    Ffmpeg(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
                )
        except BaseException as error:
            self._stack.close()
            if isinstance(error, OSError):
                raise self._refused(error) from None
            raise
        return self

    def _command(self) -> list[str]:
        """ffmpeg's arguments; sound is written beside the video first, as a pipe is taken by the frames."""
        height, width = (side + side % 2 for side in self.size)
        command = ["-nostdin", "-hide_banner", "-loglevel", "error", "-y"]
        command += [
            "-f",
            "rawvideo",
            "-pix_fmt",
            "rgba" if self.alpha else "rgb24",
            "-s",
            f"{width}x{height}",
            "-r",
            str(self.fps),
        ]
        command += ["-i", "pipe:0"]
        if self.audio is not None:
            rate, channels = self._write_sound(self.audio)
            command += ["-f", "f32le", "-ar", str(rate), "-ac", str(channels), "-i", f"file:{self._sound}"]
            codec = "libopus" if self._is_webm else "aac"
            command += ["-map", "0:v", "-map", "1:a:0", "-c:a", codec, "-b:a", "192k"]
        # The tags are set on the frames: those of the command would not reach the file.
        colour = "color_primaries=bt709:color_trc=bt709:colorspace=bt709:range=tv"
        command += ["-vf", f"scale=out_color_matrix=bt709:out_range=tv:flags={EXACT_SCALING},setparams={colour}"]
        for name, value in self._texts.items():
            command += ["-metadata", f"{name}={value}"]
        return [*command, *self._codec(), f"file:{self._partial}"]

    @property
    def _is_webm(self) -> bool:
        return Path(self.name).suffix.lower() == ".webm"

    def _codec(self) -> list[str]:
        """ffmpeg's arguments for the picture."""
        if self._is_webm:
            # VP9's scale of qualities goes on to 63, H.264's to 51.
            quality = ["-crf", str(round(self.crf * 63 / 51)), "-b:v", "0", "-deadline", "good", "-cpu-used", "5"]
            return ["-c:v", "libvpx-vp9", *quality, "-row-mt", "1", "-pix_fmt", "yuva420p" if self.alpha else "yuv420p"]
        if self.alpha:
            return ["-c:v", "prores_ks", "-profile:v", "4444", "-pix_fmt", "yuva444p10le", "-alpha_bits", "16"]
        codec = ["-c:v", "libx264", "-preset", "veryfast", "-crf", str(self.crf), "-pix_fmt", "yuv420p"]
        return [*codec, "-movflags", "+faststart"]

    def _write_sound(self, audio: Audio | SoundTrack) -> tuple[int, int]:
        """Writes all samples beside the video, one channel where AAC has not that many; (rate, channels)."""
        if isinstance(audio, SoundTrack):
            rate, channels, blocks = audio.rate, audio.channels, audio.blocks()
        else:
            rate, channels = audio.sample_rate, audio.waveform.shape[0]
            blocks = (block.T.numpy() for block in audio.waveform.split(WAV_BLOCK, dim=1))
        if channels > MAX_AAC_CHANNELS:
            blocks, channels = mixed_to_one(blocks, rate), 1
        with new_sound_file(self._sound, f"of {self.name}", self.path.parent) as file:
            for block in blocks:
                file.write(np.ascontiguousarray(block, dtype="<f4").data)
        return rate, channels

    def write(self, frames: np.ndarray) -> None:
        """Appends (H, W, C) or (B, H, W, C) uint8 frames; C is 4 with alpha, else 3."""
        frames = frames.reshape(-1, *frames.shape[-3:])
        if frames.dtype != np.uint8 or frames.shape[1:] != (*self.size, 3 + self.alpha):
            raise TalkingPortraitError(
                f"Frames of {frames.shape[1:]} {frames.dtype} were given to a video of "
                f"{(*self.size, 3 + self.alpha)} uint8; keep one size for the whole video."
            )
        for number in range(len(frames)):
            check_interrupted()
            self._write(frames[number : number + 1])

    def _write(self, frame: np.ndarray) -> None:
        """Appends one frame (1, H, W, C)."""
        if self._marked is not None:
            colours = self._marked(frame[..., :3])
            frame = np.concatenate([colours, frame[..., 3:]], axis=-1) if self.alpha else colours
        height, width = self.size
        if height % 2 or width % 2:
            frame = np.pad(frame, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        try:
            self._ffmpeg.input.write(np.ascontiguousarray(frame).data)
        except OSError:
            raise self._failure() from None
        self.frames += 1

    def _failure(self) -> TalkingPortraitError:
        self._ffmpeg.wait()
        full = "No space left" in self._ffmpeg.log
        reason = "the disk is full" if full else last_line(self._ffmpeg.log)
        advice = "free some space in" if full else "check its name and"
        return TalkingPortraitError(
            f"The video {self.name} can't be written ({reason}); {advice} the folder {shortened(self.path.parent)} and "
            "try again."
        )

    def _refused(self, error: OSError) -> TalkingPortraitError:
        return TalkingPortraitError(
            f"The video {self.name} can't be written ({reason_of(error)}); check that the folder "
            f"{shortened(self.path.parent)} is still there and has room, and try again."
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if kind is None:
                with suppress(OSError):
                    self._ffmpeg.input.close()
                if self._ffmpeg.wait():
                    raise self._failure() from OSError(errno.EIO, self._ffmpeg.log)
                try:
                    if self.marking is not None:
                        add_xmp(self._partial, self.marking)
                    rename_durably(self._partial, self.path)
                except OSError as refusal:
                    raise self._refused(refusal) from None


def write_part(
    video: VideoFile, path: str | Path, start: float, seconds: float, *, crf: int, progress: Progress | None = None
) -> None:
    """Writes a video's frames from `start` on, for `seconds` (0: to its end), with their sound.

    Where the video says that AI made it, the part does too.
    Raises TalkingPortraitError where the video ends before `start`, and as `VideoFile.frames` and `VideoWriter` do.
    """
    # Rounded, as 0.28 s times 25 is a little more than 7.
    first = math.ceil(round(start * video.fps, 6))
    last = math.ceil(round((start + seconds) * video.fps, 6)) if seconds else None
    frames = islice(video.frames(first), None if last is None else max(last - first, 1))
    begin = next(frames, None)
    if begin is None:
        raise TalkingPortraitError(
            f"The video {video.path.name} ends before {start:g} s, where it was to begin; trim it less."
        )
    sound = _sound_of_part(video, first / video.fps, None if last is None else (last - first) / video.fps)
    total = last - first if last is not None else max(video.stated_frames - first, 1)
    said = read_statement(video.path)
    comment = comment_of(said) if said else ""
    with VideoWriter(path, video.size, video.fps, sound, crf=crf, comment=comment) as writer:
        for number, frame in enumerate(chain([begin], frames), 1):
            writer.write(frame)
            if progress is not None:
                progress(min(number, total), total)


def _sound_of_part(video: VideoFile, start: Fraction, seconds: Fraction | None) -> SoundTrack | None:
    """None where a video has no sound, or none in this part."""
    try:
        track = open_sound(video.path)
    except NoSoundError:
        return None
    part = replace(track, origin=video.origin + start, seconds=seconds)
    try:
        next(part.blocks())
    except TalkingPortraitError:
        next(track.blocks())  # raises where there is no sound at all
        return None
    return part


def check_video_name(path: str | Path, crf: int) -> None:
    """Raises TalkingPortraitError for a name that is no video's, and for a quality that H.264 does not have."""
    path = as_path(path, "video to write")
    if path.suffix.lower() not in (".mp4", ".m4v", ".mov", ".mkv", ".webm"):
        raise TalkingPortraitError(
            f"The video is to be written to {shortened(path)}; give a name that ends in .mp4, .mov, .mkv or .webm."
        )
    if not (isinstance(crf, int) and not isinstance(crf, bool) and 0 <= crf <= 51):
        raise TalkingPortraitError(f"The quality is {quoted(crf)}, but 0 (lossless) to 51 is expected; 18 looks clean.")


def holds_alpha(path: str | Path) -> bool:
    """Whether a video of this name can have transparency."""
    return Path(path).suffix.lower() in (".webm", ".mov")
