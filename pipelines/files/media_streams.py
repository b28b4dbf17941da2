"""The streams of a media file, read with PyAV: which of them count, and the times of their packets and frames.

Times are those of the file's own clock, in exact seconds. A file's timeline begins with its first picture, or with its
sound where that begins earlier; sound that begins later or has holes is filled with silence there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import TalkingPortraitError, reason_of
from ..image.display_order import STORED_ORDER, DisplayOrder, exact, frame_length, frame_time
from ..packages import pip_install
from ..progress import check_interrupted
from ..timing import MAX_FPS, MIN_FPS, as_rate
from .damage import Damage, check_end, declared_seconds, ogg_damage, voc_is_cut_short
from .images import picture_stream

if TYPE_CHECKING:
    from av.container import InputContainer

FORMATS = (
    "aac,ac3,adx,aiff,amr,ape,apng,asf,ast,au,avi,caf,dsf,dts,dtshd,dv,eac3,flac,flv,gif,gxf,h264,hevc,ircam,ivf,loas,"
    "m4v,matroska,webm,mjpeg,mlp,mmf,mov,mp4,m4a,3gp,3g2,mj2,mp3,mpc,mpc8,mpeg,mpegts,mpegvideo,mxf,nistsphere,nut,obu,"
    "ogg,rm,roq,rso,smjpeg,sox,swf,tak,truehd,tta,voc,w64,wav,wtv,wv,y4m,yuv4mpegpipe"
)
"""Demuxers of files that hold their own data; playlists and the like, which name other files, are not among them."""
_WITHOUT_CLOCK = (
    "aac,ac3,adx,aiff,amr,ape,ast,au,caf,dsf,dts,dtshd,eac3,ircam,loas,mlp,mmf,mp3,mpc,mpc8,nistsphere,rso,sox,tak,"
    "truehd,tta,voc,w64,wav"
)
"""Formats that hold nothing but samples in order; the times in them are ffmpeg's guesses."""
_FLV_WRAP, _FLV_EARLY = 1 << 31, 1 << 26
"""Milliseconds after which the clock of an FLV begins anew, and how many before that count as earlier than 0."""
_STILL_CODECS = frozenset(["bmp", "gif", "jpeg2000", "mjpeg", "png", "tiff", "webp"])
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""Which decode the transparency too, where a codec's usual decoder leaves it out."""
_BT601 = 5
"""Of AVColorSpace."""
_SEEKABLE = ("mov,mp4", "matroska")
"""Formats with exact times and a list of the places where decoding can begin."""
_SEEK_MARGIN = 1
"""Seconds."""
_ENCODER_DELAY = Fraction(1, 10)
"""Sound that precedes the first picture by less is what an encoder put there, not speech; it is left out."""
_SCANNED_PACKETS = 2000
_COMMON_RATES = tuple(
    Fraction(rate) for rate in ("24000/1001", 24, 25, "30000/1001", 30, 48, 50, "60000/1001", 60, 90, 100, 120)
)


@dataclass(frozen=True)
class VideoStream:
    """Stream `index`, its `rate` in frames a second (nominal for variable rates) and the time of its first frame."""

    index: int
    rate: Fraction
    start: Fraction
    first: Any
    """The first frame (av.VideoFrame)."""
    pixel_aspect: Fraction
    """Width of a pixel over its height."""
    transfer: int
    """AVColorTransferCharacteristic."""
    seconds: Fraction | None
    """How long the file is by its own word."""


@dataclass(frozen=True)
class AudioStream:
    """Stream `index` with its sample rate in Hz, number of channels and the time of its first sample."""

    index: int
    rate: int
    channels: int
    layout: str
    """ffmpeg's name of the channels' arrangement."""
    start: Fraction
    seconds: Fraction | None
    """How long the file is by its own word."""


@dataclass(frozen=True)
class MediaStreams:
    """What a file holds; `origin` is the time at which both picture and sound begin."""

    path: Path
    video: VideoStream | None
    audio: AudioStream | None

    @property
    def origin(self) -> Fraction:
        if self.video is None:
            return self.audio.start if self.audio else Fraction(0)
        early = self.video.start - self.audio.start if self.audio else Fraction(0)
        if early <= _ENCODER_DELAY:
            return self.video.start
        # A whole number of frames before the first picture, so that pictures stay on the frames' grid.
        return self.video.start - math.ceil(early * self.video.rate) / self.video.rate


@contextmanager
def open_container(path: Path) -> Iterator[InputContainer]:
    """An ordinary media file for reading; whatever its name or content, no other file and no network is touched.

    Raises av.error.FFmpegError for what is no media file, and TalkingPortraitError without PyAV.
    """
    av = import_av()
    # A probe takes such a stream for one picture, or for the first of several files.
    kind = picture_stream(path)
    formats = FORMATS if kind is None else f"{FORMATS},{kind}"
    options = {"protocol_whitelist": "file", "format_whitelist": formats}
    # Titles in another encoding are no reason to refuse a file; PyAV 19 has no such option any more.
    lenient = {"metadata_errors": "ignore"} if int(av.__version__.partition(".")[0]) < 19 else {}
    with av.open(f"file:{path}", format=kind, container_options=options, **lenient) as container:
        for stream in container.streams.audio:
            _drop_channel_names(stream.codec_context)
        yield container


def _drop_channel_names(codec: Any) -> None:
    """Makes uncompressed channels nameless, which nothing here needs.

    Where a file lists them in an order of its own, PyAV (18.1 at least) frees that list each time it is read, which
    ends the process; here it is read once and replaced.
    """
    if codec is not None and codec.name.startswith(("pcm_", "adpcm_")):
        channels = codec.channels
        if channels:
            codec.layout = f"{channels} channels"


def import_av() -> Any:
    """The av module. Raises TalkingPortraitError where it is not installed."""
    try:
        import av

        return av
    except ImportError as error:
        raise TalkingPortraitError(f"Sound and video files need PyAV ({error}); run: {pip_install('av')}") from None


def find_streams(path: Path) -> MediaStreams:
    """Opens a file and decodes the first frame of its picture and of its sound.

    Cover pictures, data and subtitle streams don't count. Raises av.error.FFmpegError for what is no media file.
    """
    av = import_av()
    with open_container(path) as container:
        wanted = [stream for stream in (_main(container, "video"), _main(container, "audio")) if stream is not None]
        first: dict[int, Any] = {}
        times: list[Fraction] = []
        decode = {stream.index: _decoder(stream) for stream in wanted}
        variable = {stream.index: stream.type == "video" and not _constant(stream) for stream in wanted}
        for packet in _packets(container, wanted) if wanted else ():
            stream: Any = packet.stream
            if variable[stream.index] and packet.pts is not None:
                times.append(packet.pts * exact(stream.time_base))
            if stream.index not in first:
                try:
                    frames = decode[stream.index](packet)
                except av.error.FFmpegError:  # of a damaged packet; later ones may be whole
                    frames = []
                if frames:
                    first[stream.index] = frames[0]
            scanned = not any(variable.values()) or len(times) >= _SCANNED_PACKETS
            if scanned and len(first) == len(wanted):
                break
        video = audio = None
        seconds = _length(container, path)
        for stream in wanted:
            frame = first.get(stream.index)
            if frame is None:
                continue
            start = frame_time(frame) or Fraction(0)
            if stream.type == "video":
                aspect = exact(stream.sample_aspect_ratio or Fraction(1))
                transfer = int(stream.codec_context.color_trc)
                aspect = aspect if aspect > 0 else Fraction(1)
                video = VideoStream(stream.index, _rate(stream, times), start, frame, aspect, transfer, seconds)
            else:
                channels, layout = len(frame.layout.channels), frame.layout.name
                audio = AudioStream(stream.index, frame.sample_rate, channels, layout, start, seconds)
        return MediaStreams(path, video, audio)


def _main(container: InputContainer, kind: str) -> Any:
    """The first stream of a kind that is no cover picture and can be decoded.

    Streams of a film's codec go before those of a still picture's, those of more than one picture before the one that
    an animated AVIF shows where it does not move, then those marked as default.
    """
    av = import_av()
    covers = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    usable = [
        stream
        for stream in container.streams
        if stream.type == kind and stream.codec_context is not None and not stream.disposition & covers
    ]

    def rank(stream: Any) -> tuple[bool, bool, bool]:
        is_default = bool(stream.disposition & av.stream.Disposition.default)
        return stream.codec_context.name in _STILL_CODECS, kind == "video" and stream.frames == 1, not is_default

    return min(usable, key=rank, default=None)


def _decoder(stream: Any) -> Callable[[Any], list[Any]]:
    """What decodes the packets of a stream, with its transparency where it has some."""
    av = import_av()
    if stream.type == "video" and stream.container.format.name in STORED_ORDER:
        return DisplayOrder(stream)
    name = _ALPHA_DECODERS.get(stream.codec_context.name)
    if name is None or {key.lower(): value for key, value in stream.metadata.items()}.get("alpha_mode") != "1":
        return lambda packet: packet.decode()
    try:
        decoder = av.CodecContext.create(name, "r")
    except av.codec.codec.UnknownCodecError:  # of a PyAV that was built without it
        return lambda packet: packet.decode()

    def decode(packet: Any) -> list[Any]:
        frames: Any = decoder.decode(packet)
        for frame in frames if name == "libvpx" else ():
            frame.colorspace = _BT601  # which VP8 always has; this decoder does not say so
        return list(frames)

    return decode


def _constant(stream: Any) -> bool:
    if not stream.average_rate or not stream.base_rate:
        return False
    average, nominal = exact(stream.average_rate), exact(stream.base_rate)
    return abs(average - nominal) <= nominal / 500


def _rate(stream: Any, times: list[Fraction]) -> Fraction:
    """Frames a second: of a constant rate as it is, of a variable one that of its closely spaced frames."""
    rate = exact(stream.average_rate or stream.guessed_rate or Fraction(25))
    ordered = sorted(set(times))
    steps = sorted(after - before for before, after in zip(ordered, ordered[1:], strict=False))
    if steps:
        # Frames that were left out make steps of twice or thrice the length; the short steps show the movement's rate.
        short = steps[len(steps) // 10]
        close = [step for step in steps if 2 * step <= 3 * short and 2 * step >= short]
        rate = min(len(close) / sum(close, Fraction(0)), max(rate, Fraction(60)))
        nearest = min(_COMMON_RATES, key=lambda common: abs(common - rate))
        rate = nearest if abs(nearest - rate) <= nearest / 30 else rate
    if rate > MAX_FPS:
        rate /= math.ceil(rate / MAX_FPS)
    elif rate < MIN_FPS:
        rate *= math.ceil(MIN_FPS / rate)
    return as_rate(rate)


class _Clock:
    """The times of a stream's decoded frames, which never run backwards; the first is `begin` where it has none.

    An untimed stream holds frames in order and nothing that says when: each follows the one before.
    """

    def __init__(self, container: InputContainer, stream: Any) -> None:
        kind = container.format.name
        self.begin = Fraction(container.start_time or 0, import_av().time_base)
        if kind == "flv":
            self.begin = Fraction(_flv_time(round(self.begin * 1000)), 1000)
        self.due: Fraction | None = None
        """When the next frame is due; None before the first."""
        self._shift = Fraction(0)
        self._stated = self._length = Fraction(0)
        """When the frame before begins by its own word, and how long it is."""
        self._is_sound = stream.type == "audio"
        self._untimed = kind in _WITHOUT_CLOCK.split(",") or (kind, stream.type) == ("gxf", "audio")  # a coarse clock
        if (kind, stream.codec_context.name) == ("ogg", "flac"):
            # ffmpeg gives the times of all pages but the first, which is wrong where a recording begins late.
            self._untimed = _main(container, "video") is None

    def time_of(self, frame: Any) -> Fraction:
        time = frame_time(frame)
        # Some programs give several packets of sound the time of the first, or hardly a later one.
        repeated = self._is_sound and time is not None and 0 <= time - self._stated < self._length / 4
        self._stated, self._length = self._stated if time is None else time, frame_length(frame)
        if time is None or ((self._untimed or repeated) and self.due is not None):
            time = self.begin if self.due is None else self.due
        elif self.due is not None and time + self._shift < self.due - 1:  # recordings one after the other start anew
            self._shift = self.due - time
            time = self.due
        else:
            time += self._shift
        self.due = time + self._length
        return time


def decoded_frames(
    path: Path, index: int, *, warn: bool = True, near: Fraction | None = None, since: Fraction | None = None
) -> Iterator[tuple[Any, Fraction]]:
    """The frames of stream `index` with their times, which never run backwards, in order.

    `near` lets those far before this time out, where the file says at which times it can be entered; others come as
    they always do. Damaged packets are left out; a warning says when, unless `warn` is false; of holes those after
    `since`, the time at which the file's timeline begins. Raises DamagedMediaError after the last whole frame of a file
    that ends long before its header says.
    """
    av = import_av()
    damage = Damage(path, since)
    with open_container(path) as container:
        wanted: Any = container.streams[index]
        wanted.thread_type = "AUTO"
        decode = _decoder(wanted)
        clock = _Clock(container, wanted)
        declared = _declared(container, path)
        # The last samples of a recording whose header leaves its length open are marked like damaged ones.
        open_ended = wanted.codec_context.name.startswith(("pcm_", "adpcm_adx"))
        if near is not None and near - _SEEK_MARGIN > clock.begin and container.format.name.startswith(_SEEKABLE):
            # What is shown later may be stored earlier, so the place that is looked for lies well before.
            container.seek(math.floor((near - _SEEK_MARGIN) / exact(wanted.time_base)), stream=wanted)
        reached = None
        broken: list[str] = []
        for packet in _readable_packets(container, broken):
            stream = packet.stream
            if packet.pts is not None and packet.size and stream.time_base:
                end = (packet.pts + (packet.duration or 0)) * exact(stream.time_base)
                reached = end if reached is None else max(reached, end)
            if stream.index != index:
                continue
            # What is decoded by several threads comes late, so that `due` lags behind the packet.
            place = clock.due or clock.begin if packet.pts is None else packet.pts * exact(stream.time_base)
            try:
                frames = decode(packet)
            except av.error.FFmpegError:
                if packet.size or packet.pts is None:  # one without bytes says that the frame before it stays
                    damage.at(place)
                continue
            if packet.is_corrupt and not open_ended:
                damage.at(place)
            for frame in frames:
                due = clock.due
                time = clock.time_of(frame)
                if due is not None and wanted.type == "audio":
                    damage.between(due, time)
                yield frame, time
        if container.format.name == "ogg" and wanted.type == "audio":
            pages = ogg_damage(path, wanted.codec_context.sample_rate)
            if pages.first is not None:
                damage.at(pages.first)
            if pages.cut_short:
                broken.append("it is cut short")
        if container.format.name == "voc" and voc_is_cut_short(path):
            broken.append("it is cut short")
        check_end(container.format.name, clock.begin, reached, declared, broken)
        if warn:
            damage.report(clock.begin)


def _declared(container: InputContainer, path: Path) -> Fraction | None:
    """The duration that a file states; None where it states none."""
    if not container.duration:
        return None
    return declared_seconds(path, container.format.name, Fraction(container.duration, import_av().time_base))


def _length(container: InputContainer, path: Path) -> Fraction | None:
    """How long a file is by its own word: Matroska whose clock begins late may state when it ends, as a broadcast's."""
    declared = _declared(container, path)
    begin = Fraction(container.start_time or 0, import_av().time_base)
    late = container.format.name.startswith("matroska") and declared is not None and 0 < begin < declared
    return declared - begin if declared is not None and late else declared


def _packets(container: InputContainer, streams: Any = None) -> Iterator[Any]:
    """The packets of these streams, by default of all."""
    for packet in container.demux(*(() if streams is None else (streams,))):
        check_interrupted()
        if container.format.name == "flv":
            packet.pts, packet.dts = (None if time is None else _flv_time(time) for time in (packet.pts, packet.dts))
        yield packet


def _flv_time(time: int) -> int:
    """Milliseconds of an FLV's clock; times below 0 are large numbers in the file, which programs write in two ways."""
    return (time + _FLV_EARLY) % _FLV_WRAP - _FLV_EARLY


def _readable_packets(container: InputContainer, broken: list[str]) -> Iterator[Any]:
    """All packets. An error of the container ends them and goes to `broken`: what follows can't be found any more."""
    av = import_av()
    try:
        yield from _packets(container)
    except av.error.FFmpegError as error:
        broken.append(reason_of(error))
