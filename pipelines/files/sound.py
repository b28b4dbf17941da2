"""Sound in and out: any media file's first track by PyAV, decoded piece by piece; WAV written."""

from __future__ import annotations

import errno
import math
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from ..audio.waveform import (
    MAX_SECONDS,
    SPEECH_RATE,
    MonoMixer,
    Resampler,
    check_audio,
    check_length,
    check_rate,
    lasting,
)
from ..errors import TalkingPortraitError, reason_of
from ..image.display_order import stated_length
from ..timing import frame_count
from ..types import Audio
from .damage import CLOCK_SLACK, DamagedMediaError
from .images import is_picture
from .input_paths import existing_file, is_encrypted, kind_of
from .media_streams import (
    AudioStream,
    MediaStreams,
    decoded_frames,
    find_streams,
    import_av,
)
from .output_paths import shortened

MAX_AAC_CHANNELS = 8
MAX_CHANNELS = 64
"""Of a file's sound."""
MAX_SOUND_BYTES = 2_000_000_000
"""What one sound may take in memory: an hour of two channels at 48 kHz has 1.4 GB."""
WAV_BLOCK = 1 << 20
"""Samples of each channel that are written at once."""


@dataclass(frozen=True)
class SoundTrack:
    """The sound of a media file on its timeline, decoded piece by piece. Make one with `open_sound`."""

    path: Path
    stream: AudioStream
    origin: Fraction
    """Time in the file at which the timeline begins: with the first picture, or with sound that is earlier."""
    warn: bool = True
    """Whether a damaged place is logged, which once is enough."""
    seconds: Fraction | None = None
    """How much of it is taken; all by default."""

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
        waiting: list[np.ndarray] = []
        count, most = 0, None if self.seconds is None else math.ceil(self.seconds * self.rate)
        try:
            for samples in self._on_timeline():
                waiting.append(samples if most is None else samples[: most - count])
                count += len(waiting[-1])
                if count == most:
                    break
                if sum(map(len, waiting)) >= SOUND_BLOCK:
                    yield np.concatenate(waiting)
                    waiting = []
        except DamagedMediaError as error:
            raise self._unreadable(str(error)) from None
        if waiting:
            yield np.concatenate(waiting)
        if not count:
            raise self._unreadable("nothing in it can be decoded")

    def _on_timeline(self) -> Iterator[np.ndarray]:
        """Samples (n, channels), with silence where the file has none, until there are more than are taken."""
        position, most = 0, (MAX_SECONDS + 1) * self.rate
        slack = self.rate * CLOCK_SLACK
        for samples, time in self._decoded():
            due = round((time - self.origin) * self.rate)
            if due > position + slack:
                end = min(due, position + most)
                for start in range(position, end, SOUND_BLOCK):
                    yield np.zeros((min(end - start, SOUND_BLOCK), self.channels), np.float32)
                position = due
            elif due < position - slack:
                samples = samples[position - due :]
            if not len(samples):  # those of before the timeline, which may be many
                continue
            yield samples
            position += len(samples)
            if position > most:
                break

    def _decoded(self) -> Iterator[tuple[np.ndarray, Fraction]]:
        """Samples (n, channels) float32 of each frame, with its time."""
        resampler = None
        waiting: tuple[np.ndarray, Fraction] | None = None
        stated = 0
        for frame, time in decoded_frames(self.path, self.stream.index, warn=self.warn, since=self.origin):
            if waiting is not None:
                yield waiting
            if (frame.sample_rate, len(frame.layout.channels)) == (self.rate, self.channels):
                waiting = _samples(frame), time
            else:  # some streams change on their way
                if resampler is None:
                    resampler = import_av().AudioResampler("flt", self.stream.layout, self.rate)
                frame.pts = None
                parts = [_samples(part) for part in resampler.resample(frame)]
                waiting = (np.concatenate(parts), time) if parts else None
            stated = round(stated_length(frame) * self.rate)
        if waiting is not None:  # an encoder fills its last frame up; the file says how much of it is sound
            yield waiting[0][: stated or None], waiting[1]

    def _unreadable(self, reason: str) -> TalkingPortraitError:
        return TalkingPortraitError(f"The audio {self.path.name} can't be read ({reason}); {_SOUND_ADVICE}")


_PLAYLISTS = (b"#ext", b"ffconcat", b"[playlist]", b"[reference]", b"http://", b"https://", b"file:", b"v=0")
"""How texts begin, in small letters, that name other files: M3U, ffmpeg's own, PLS, ASX, SDP."""
_SOUND_ADVICE = "give a WAV, FLAC, MP3 or another common sound file."
SOUND_BLOCK = 1 << 18
"""Samples of each channel that are decoded at once, at least."""


MANY_PLANES = 8
"""Channels of a frame from which on PyAV 19 raises where it lists planes, one for each channel: it counts one more."""
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
    if frame.format.is_planar and channels >= MANY_PLANES:
        packing = import_av().AudioResampler(frame.format.packed.name, frame.layout, frame.sample_rate)
        frame.pts = None
        values = np.concatenate([_samples_of(part, kind, channels) for part in packing.resample(frame)])
    else:
        values = _samples_of(frame, kind, channels)
    if kind is np.uint8:
        return (values.astype(np.float32) - 128) / 128
    if values.dtype.kind == "i":
        return values.astype(np.float32) / -float(np.iinfo(kind).min)
    return values.astype(np.float32)


def _samples_of(frame: Any, kind: Any, channels: int) -> np.ndarray:
    """A frame's samples (n, channels) of the type `kind`."""
    if frame.format.is_planar:
        planes = [np.frombuffer(frame.planes[number], kind, frame.samples) for number in range(channels)]
        return np.stack(planes, axis=1)
    return np.frombuffer(frame.planes[0], kind, frame.samples * channels).reshape(-1, channels)


def open_sound(path: str | Path) -> SoundTrack:
    """The first sound track of any media file. Raises TalkingPortraitError when there is none that can be decoded."""
    path = existing_file(path, "audio")
    streams, reason = streams_or_reason(path)
    if streams is not None and streams.audio is not None:
        if streams.audio.channels > MAX_CHANNELS:
            raise TalkingPortraitError(
                f"The audio {path.name} has {streams.audio.channels} channels, but at most {MAX_CHANNELS} are taken; "
                "save it with one or two."
            )
        check_rate(streams.audio.rate)
        return SoundTrack(path, streams.audio, streams.origin)
    if streams is not None:
        reason = "it has no sound" if streams.video is None else "it has no sound track"
        reason = "it is encrypted" if is_encrypted(path) else reason
        raise NoSoundError(f"The audio {path.name} can't be read ({reason}); {_SOUND_ADVICE}")
    raise TalkingPortraitError(f"The audio {path.name} can't be read ({reason}); {_SOUND_ADVICE}")


def streams_or_reason(path: Path) -> tuple[MediaStreams | None, str]:
    """What a file holds, or None and the reason why it can't be read."""
    try:
        return find_streams(path), ""
    except import_av().error.FFmpegError as error:
        # What is not among the formats that are read is an invalid argument; some end within their first bytes.
        damaged = import_av().error.InvalidDataError, import_av().error.EOFError
        if isinstance(error, damaged) or error.errno == errno.EINVAL:
            return None, _other_kind(path) or "it is damaged, cut short or in a format that is not known"
        return None, reason_of(error)


def _other_kind(path: Path) -> str:
    """What a file is that is neither sound nor video; empty where that is not known.

    Playlists name other files to be played, which are never opened.
    """
    with path.open("rb") as file:
        head = file.read(1024)
    if not head:
        return "it is empty"
    if is_picture(path):
        return "it is a picture"
    start = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if start.startswith(_PLAYLISTS) or b"<mpd" in start or b"<smil" in start or b"<asx" in start:
        return "it is a playlist, which names other files"
    return kind_of(head)


def read_audio(path: str | Path) -> Audio:
    """The first sound track of any media file at its own rate and with its own channels, on the file's timeline.

    Raises TalkingPortraitError when there is none, it can't be decoded, or `check_audio` refuses it.
    """
    sound = open_sound(path)
    _check_size(sound, 4 * sound.channels * sound.rate * (sound.stream.seconds or 0))
    samples = bytearray()
    for block in sound.blocks():
        _check_size(sound, len(samples) + block.nbytes)
        samples += block.data
    waveform = torch.frombuffer(samples, dtype=torch.float32)
    # A view: a copy with the channels one after the other would need as much memory again.
    return check_audio(Audio(waveform.reshape(-1, sound.channels).T, sound.rate))


def _check_size(sound: SoundTrack, size: Fraction | int) -> None:
    """Raises TalkingPortraitError where `size` is more bytes than one sound may take."""
    if size > MAX_SOUND_BYTES:
        check_length(size / (4 * sound.channels * sound.rate))
        raise TalkingPortraitError(
            f"The audio {sound.path.name} ({sound.channels} channels at {sound.rate} Hz) needs more than "
            f"{MAX_SOUND_BYTES // 10**9} GB of memory; save it with one or two channels at 48000 Hz, or cut it into "
            "parts."
        )


def read_speech(path: str | Path, fps: Fraction) -> tuple[Audio, SoundTrack]:
    """What drivers take, and the track to put beside their frames: one channel at 16 kHz, made as it is decoded.

    It lasts as many frames of `fps` as the recording does, and takes 4 MB of memory a minute. Raises as `read_audio`.
    """
    sound = open_sound(path)
    mixer, resampler = MonoMixer(sound.rate), Resampler(sound.rate, SPEECH_RATE)
    speech = bytearray()
    samples = 0
    for block in sound.blocks():
        samples += len(block)
        speech += resampler.push(mixer.push(torch.from_numpy(block.T)).numpy()).data
    speech += resampler.push(mixer.finish().numpy()).data
    speech += resampler.finish().data
    wave = torch.frombuffer(speech, dtype=torch.float32)[None] if speech else torch.zeros(1, 0)
    speech_of_file = lasting(wave, frame_count(samples, sound.rate, fps), fps)
    return check_audio(speech_of_file), replace(sound, warn=False)


class NoSoundError(TalkingPortraitError):
    """A media file without a sound track."""


def mixed_to_one(blocks: Iterable[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """Blocks (n, channels) as one channel."""
    mixer = MonoMixer(rate)
    for block in blocks:
        yield mixer.push(torch.from_numpy(block.T)).numpy()
    yield mixer.finish().numpy()


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
    with new_sound_file(path, name, path.parent) as file:
        file.write(b"RIFF" + struct.pack("<I", 4 + len(start) + 4 + size) + b"WAVE" + start)
        file.write(struct.pack("<I", size))
        for block in audio.waveform.split(WAV_BLOCK, dim=1):
            file.write(np.ascontiguousarray(block.T.numpy(), dtype="<f4").data)


@contextmanager
def new_sound_file(path: Path, name: str, folder: Path) -> Iterator[BinaryIO]:
    """A new file for samples; nothing is left of it when the disk refuses it, which is a TalkingPortraitError.

    The error calls what was to come of it `name`, in `folder`.
    """
    try:
        with path.open("wb") as file:
            yield file
    except BaseException as error:
        path.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise TalkingPortraitError(
            f"The sound {name} can't be written ({reason_of(error)}); check the folder {shortened(folder)} and its "
            "free space."
        ) from None
