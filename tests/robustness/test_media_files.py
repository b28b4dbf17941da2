"""Sound, films and pictures that are damaged, lead elsewhere, are too large or are no files at all.

Long, as every case makes its own file.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
import subprocess
import sys
import wave
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.files.ffmpeg import executable
from talking_portrait.pipelines.files.images import is_animated, is_picture, read_image
from talking_portrait.pipelines.files.motion_file import load_motion
from talking_portrait.pipelines.files.sound import SOUND_BLOCK, open_sound, read_audio, read_speech, write_wav
from talking_portrait.pipelines.files.video import VideoWriter, open_video
from talking_portrait.pipelines.types import Audio

SECONDS, RATE = 3, 16000
READERS: dict[str, Callable[[Path], Any]] = {
    "audio": read_audio,
    "video": open_video,
    "picture": read_image,
    "motion": load_motion,
}


def noise(channels: int = 1, seconds: float = SECONDS) -> Audio:
    generator = torch.Generator().manual_seed(0)
    return Audio(0.3 * torch.rand(channels, round(seconds * RATE), generator=generator) - 0.15, RATE)


def ffmpeg(*arguments: str | Path) -> None:
    subprocess.run(
        [executable(), "-y", "-loglevel", "error", *map(str, arguments)], check=True, stdin=subprocess.DEVNULL
    )


def encoded(folder: Path, ending: str, *options: str, audio: Audio | None = None) -> Path:
    write_wav(folder / "source.wav", audio or noise())
    path = folder / f"sound.{ending}"
    ffmpeg("-i", folder / "source.wav", *options, path)
    return path


def damage(path: Path, how: str, part: float = 0.5, length: float = 0.1) -> None:
    whole = path.read_bytes()
    begin, end = int(part * len(whole)), int((part + length) * len(whole))
    other = {
        "overwritten": np.random.default_rng(0).integers(0, 256, end - begin, dtype=np.uint8).tobytes(),
        "zeroed": bytes(end - begin),
        "removed": b"",
    }[how]
    path.write_bytes(whole[:begin] + other + whole[end:])


SOUNDS = {
    "flac": (),
    "mp3": ("-b:a", "64k"),
    "aac": (),
    "ac3": (),
    "m4a": (),
    "ogg": ("-c:a", "libvorbis"),
    "opus": (),
    "wma": (),
    "mkv": ("-c:a", "flac"),
    "webm": (),
    "ts": ("-c:a", "aac"),
    "flv": ("-c:a", "aac", "-ar", "44100"),
    "avi": ("-c:a", "mp3"),
    "wv": (),
    "mov": ("-c:a", "aac"),
}


@pytest.mark.parametrize("how", ["overwritten", "zeroed", "removed"])
@pytest.mark.parametrize("ending", SOUNDS)
def test_sound_that_is_lost_in_the_middle_is_reported_with_its_place(tmp_path, caplog, ending, how):
    path = encoded(tmp_path, ending, *SOUNDS[ending])
    whole = float(read_audio(path).seconds)
    assert not caplog.records
    damage(path, how)
    try:
        sound = read_audio(path)
    except TalkingPortraitError as error:
        assert "damaged" in str(error) or " s are there" in str(error) or "beyond" in str(error)  # noqa: PT017
        return
    warning = caplog.records[0].getMessage()
    place = float(
        warning.split(" s;")[0].split()[-1] if "damaged" in warning else warning.split(" from ")[1].split()[0]
    )
    assert path.name in warning
    # Ogg loses a page of a second at once, and ffmpeg may find nothing in AAC after a damaged place.
    assert 0.2 < place / SECONDS < 0.6
    assert float(sound.seconds) > whole - (1.6 if ending == "aac" else 1.3)


def test_sound_that_is_read_for_a_driver_and_for_a_film_is_reported_once(tmp_path, caplog):
    path = encoded(tmp_path, "mp3")
    damage(path, "zeroed")
    _, track = read_speech(path, Fraction(25))
    assert sum(map(len, track.blocks())) > RATE
    assert len(caplog.records) == 1


@pytest.mark.parametrize("ending", ["flac", "wma", "ts"])
def test_what_follows_a_damaged_place_keeps_its_time(tmp_path, ending):
    path = encoded(tmp_path, ending, *SOUNDS[ending])
    before = read_audio(path)
    damage(path, "removed")
    after = read_audio(path)
    assert abs(float(after.seconds - before.seconds)) < 0.02
    tail = slice(int(before.samples * 0.75), int(before.samples * 0.95))
    assert float((after.waveform[:, tail] - before.waveform[:, tail]).abs().mean()) < 0.02


@pytest.mark.parametrize(
    ("ending", "options"),
    [
        *SOUNDS.items(),
        ("wav", ()),
        ("aiff", ()),
        ("au", ()),
        ("tta", ()),
        ("caf", ()),
        ("w64", ()),
        ("mulaw.wav", ("-c:a", "pcm_mulaw")),
        ("rf64.wav", ("-rf64", "always")),
        ("voc", ()),
        ("rm", ("-c:a", "ac3")),
        ("pcm.mov", ("-c:a", "pcm_s16le")),
    ],
)
@pytest.mark.parametrize("part", [0.5, 0.8])
def test_sound_whose_end_is_missing_is_reported(tmp_path, caplog, ending, options, part):
    if ending in ("aac", "ac3"):
        pytest.skip("nothing in such a file says how long it is")
    path = encoded(tmp_path, ending, *options)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    try:
        sound = read_audio(path)
    except TalkingPortraitError as error:
        assert path.name in str(error)  # noqa: PT017
    else:
        place = float(caplog.records[0].getMessage().split(" s;")[0].split()[-1])
        assert abs(place - float(sound.seconds)) < 0.25


@pytest.mark.parametrize("length", [2**63 - 1, 2**61, 2**45, -(2**63)])
def test_a_chunk_of_impossible_length_is_no_error_of_the_systems(tmp_path, length):
    path = encoded(tmp_path, "caf")
    content = path.read_bytes()
    place = content.index(b"data")
    path.write_bytes(content[:place] + struct.pack(">4sq", b"free", length) + content[place:])
    with suppress(TalkingPortraitError):
        assert read_audio(path).samples > 0


def test_chunks_without_end_take_no_time(tmp_path):
    path = encoded(tmp_path, "wav")
    content = path.read_bytes()
    place = content.index(b"data")
    path.write_bytes(content[:place] + bytes(16_000_000) + content[place:])
    with suppress(TalkingPortraitError):
        assert read_audio(path).samples > 0


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_wav_file_of_either_order_says_how_long_it_was(tmp_path, order):
    format_chunk = struct.pack(order + "4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    data = struct.pack(order + "4sI", b"data", 6 * RATE) + bytes(6 * RATE)
    body = b"WAVE" + format_chunk + data
    mark = b"RIFX" if order == ">" else b"RIFF"
    whole = mark + struct.pack(order + "I", len(body)) + body
    (tmp_path / "a.wav").write_bytes(whole)
    assert read_audio(tmp_path / "a.wav").samples == 3 * RATE
    (tmp_path / "a.wav").write_bytes(whole[: -2 * RATE])
    with pytest.raises(TalkingPortraitError, match=r"its end is missing: 2\.00 of 3\.00 s are there"):
        read_audio(tmp_path / "a.wav")


def test_the_end_of_an_mp3_with_a_tag_before_it_is_missed(tmp_path):
    path = encoded(tmp_path, "mp3", "-metadata", f"title={'x' * 9000}")
    whole = path.read_bytes()
    assert abs(float(read_audio(path).seconds) - SECONDS) < 0.01
    path.write_bytes(whole[: len(whole) - 4000])
    with pytest.raises(TalkingPortraitError, match=r"its end is missing: [12]\.\d\d of 3\.00 s are there"):
        read_audio(path)


def test_a_caf_file_that_leaves_its_length_open_is_whole(tmp_path, caplog):
    path = encoded(tmp_path, "caf")
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 8] = struct.pack(">q", -1)
    path.write_bytes(content)
    assert abs(float(read_audio(path).seconds) - SECONDS) < 0.01
    assert not caplog.records


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_a_wav_file_that_was_written_into_a_pipe_is_whole(tmp_path, caplog, size):
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(bytes(2 * RATE))
    content = bytearray(path.read_bytes())
    content[40:44] = struct.pack("<I", size)
    path.write_bytes(content)
    assert read_audio(path).samples == RATE
    assert not caplog.records


def test_recordings_put_one_after_the_other_are_whole(tmp_path, caplog):
    for ending in ("ogg", "opus"):
        one = encoded(tmp_path, ending, *SOUNDS[ending])
        both = tmp_path / f"both.{ending}"
        both.write_bytes(2 * one.read_bytes())
        assert abs(float(read_audio(both).seconds) - 2 * SECONDS) < 0.2
    assert not caplog.records


def test_many_false_pages_of_ogg_take_no_time(tmp_path):
    path = encoded(tmp_path, "ogg", *SOUNDS["ogg"])
    path.write_bytes(path.read_bytes() + (b"OggS" + bytes(22) + b"\xff") * 1_000_000)
    assert abs(float(read_audio(path).seconds) - SECONDS) < 0.1


def test_a_film_whose_sound_has_a_hole_says_where(tmp_path, caplog):
    path = encoded(tmp_path, "mkv", "-c:a", "aac", "-af", "aselect='not(between(t,1.2,1.8)+between(t,2.2,2.4))'")
    read_audio(path)
    (record,) = caplog.records
    assert re.fullmatch(
        r"sound\.mkv has no sound from 1\.2\d to 1\.[78]\d s \(the first of 2 places\); silence takes its place\.",
        record.getMessage(),
    )


def list_of(kind: str, target: Path) -> str:
    return {
        "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT2S" profiles="urn:mpeg:dash:profile:full:2011"><Period><AdaptationSet '
        'contentType="audio" mimeType="audio/mp4"><Representation id="1" bandwidth="1">'
        f"<BaseURL>file://{target}</BaseURL><SegmentBase/></Representation></AdaptationSet></Period></MPD>",
        "m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:2.0,\n{target}\n#EXT-X-ENDLIST\n",
        "m3u": f"#EXTM3U\n{target}\n",
        "ffconcat": f"ffconcat version 1.0\nfile '{target}'\n",
        "pls": f"[playlist]\nFile1={target}\nNumberOfEntries=1\n",
        "asx": f'<asx version="3.0"><entry><ref href="file://{target}"/></entry></asx>',
        "smil": f'<smil><body><audio src="{target}"/></body></smil>',
        "sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\na=x:{target}\n",
        "address": f"file:{target}\n",
    }[kind]


@pytest.mark.parametrize("ending", ["wav", "mp4", "m3u8", "mpd", "png"])
@pytest.mark.parametrize("kind", ["dash", "m3u8", "m3u", "ffconcat", "pls", "asx", "smil", "sdp", "address"])
def test_a_list_of_other_files_is_named_and_not_followed(tmp_path, kind, ending):
    private = encoded(tmp_path, "m4a")
    path = tmp_path / f"list.{ending}"
    path.write_text(list_of(kind, private))
    for read in (read_audio, open_video, lambda path: read_speech(path, Fraction(25))):
        with pytest.raises(TalkingPortraitError, match="it is a playlist, which names other files"):
            read(path)


@pytest.mark.parametrize("name", ["a%d.wav", "*.wav", "concat:a.wav|b.wav", "subfile,,start,0,end,9,,:a.wav"])
def test_a_name_with_patterns_and_protocols_is_only_a_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for other in ("a.wav", "b.wav", "a0.wav", "a1.wav"):
        write_wav(other, noise(seconds=0.5))
    for read in (read_audio, open_video):
        with pytest.raises(TalkingPortraitError, match="does not exist"):
            read(Path(name))
    write_wav(name, noise(seconds=0.7))
    assert abs(float(read_audio(name).seconds) - 0.7) < 0.01


@pytest.mark.parametrize("name", ["drawing.eps", "drawing.png", "drawing.jpg"])
def test_a_drawing_runs_no_other_program(tmp_path, monkeypatch, name):
    path = tmp_path / name
    Image.new("RGB", (60, 60)).save(path, format="EPS")
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(TalkingPortraitError, match="it is a drawing or a document and no picture of pixels"):
        read_image(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"%PDF-1.7\n", "a drawing or a document"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "a drawing or a document"),
        (b"", "it is empty"),
        (b"hello", "its format is not known"),
        (b"\0\0\0 ftypisom", "it holds video or sound"),
        (b"RIFF\0\0\0\0WAVEfmt ", "it holds video or sound"),
        (b"PK\3\4" + bytes(22) + b"\5\0\0\0a.npy", "it holds arrays, as a motion does"),
        (b"PK\3\4" + bytes(22) + b"\5\0\0\0a.pkl", "it is an archive"),
        (b"\x10\0\0\0\0\0\0\0" + b'{"a":1}', "it holds the weights of a network"),
        (b' {"a":1}', "it is a JSON text"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path, content, reason):
    (tmp_path / "p.png").write_bytes(content)
    with pytest.raises(TalkingPortraitError, match=reason):
        read_image(tmp_path / "p.png")


@pytest.mark.parametrize("reader", [read_audio, open_video])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<html><body>404</body></html>", "it is a web page, so download the file itself"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
            "it is a git-lfs pointer and not the file itself",
        ),
    ],
)
def test_what_came_in_place_of_a_download_is_named(tmp_path, reader, content, reason):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(TalkingPortraitError, match=reason):
        reader(tmp_path / "a.mp4")


@pytest.mark.parametrize("reader", [read_audio, open_video])
def test_an_encrypted_film_is_called_so(tmp_path, reader):
    source = ("-f", "lavfi", "-i", "testsrc=s=64x64:d=0.4", "-f", "lavfi", "-i", "sine=d=0.4")
    keys = ("-encryption_scheme", "cenc-aes-ctr", "-encryption_key", "76" * 16, "-encryption_kid", "a7" * 16)
    ffmpeg(*source, "-c:v", "libx264", "-c:a", "aac", *keys, tmp_path / "shop.mp4")
    with pytest.raises(TalkingPortraitError, match=r"can('t)? be read \(it is encrypted\); give "):
        reader(tmp_path / "shop.mp4")


@pytest.mark.filterwarnings("error")
def test_odd_tags_of_a_picture_are_no_lines_of_a_program(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(50))
    assert is_picture(tmp_path / "a.jpg")
    assert not is_animated(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").shape == (8, 8, 3)


def no_file(folder: Path, kind: str) -> tuple[Path, str]:
    """A path and what is to be said about it."""
    path = folder / "given"
    if kind == "folder":
        path.mkdir()
        return path, "given is a folder, but an ordinary file is expected"
    if kind == "pipe":
        os.mkfifo(path)
        return path, "given is a pipe, but"
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            os.chdir(folder)
            server.bind("given")
        return path, "given is a socket, but"
    if kind == "device":
        return Path("/dev/zero"), "/dev/zero is a device, but"
    if kind == "circle":
        path.symlink_to(folder / "second")
        (folder / "second").symlink_to(path)
        return path, "given can't be opened .*symbolic links"
    if kind == "dead link":
        path.symlink_to(folder / "gone")
        return path, "given is a link to .*gone, which does not exist"
    if kind == "inside a file":
        path.write_bytes(b"x")
        return path / "more", "more does not exist"
    if kind == "endless name":
        return folder / ("x" * 300), "can't be opened .*too long"
    return folder / "a\0b", "can't be opened .*null"


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "kind",
    ["folder", "pipe", "socket", "device", "circle", "dead link", "inside a file", "endless name", "no name"],
)
@pytest.mark.skipif(os.name != "posix", reason="Windows has none of most of these")
def test_what_is_no_file_is_called_by_its_kind(tmp_path, monkeypatch, reader, kind):
    monkeypatch.chdir(tmp_path)
    path, words = no_file(tmp_path, kind)
    with pytest.raises(TalkingPortraitError, match=words) as raised:
        READERS[reader](path)
    assert f"The {reader} file" in str(raised.value)


@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch, reader):
    path = tmp_path / "mine"
    path.write_bytes(b"x")
    usual = Path.open

    def refused(self: Path, *arguments: Any, **named: Any) -> Any:
        if self == path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return usual(self, *arguments, **named)

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(TalkingPortraitError, match="mine may not be read .*check its permissions"):
        READERS[reader](path)


def test_sound_that_is_far_too_large_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / "long.flac"
    ffmpeg("-f", "lavfi", "-i", "anullsrc=r=384000:cl=7.1", "-t", "5", path)
    content = bytearray(path.read_bytes())
    # The number of samples, in 36 bits of the header: ten minutes.
    place = content.index(b"fLaC") + 8 + 13
    samples = struct.pack(">Q", 600 * 384000)[3:]
    content[place] = content[place] & 0xF0 | samples[0] & 0x0F
    content[place + 1 : place + 5] = samples[1:]
    path.write_bytes(content)
    track = type(open_sound(path))
    monkeypatch.setattr(track, "blocks", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(TalkingPortraitError, match=r"8 channels at 384000 Hz\) needs more than 2 GB"):
        read_audio(path)


def test_a_hole_of_an_hour_takes_no_memory_at_once(tmp_path):
    path = encoded(tmp_path, "mkv", "-af", "asetpts='PTS+gt(T,1)*3400/TB'", "-c:a", "flac", audio=noise(8))
    sizes = [len(block) for block in open_sound(path).blocks()]
    assert max(sizes) <= 2 * SOUND_BLOCK
    assert abs(sum(sizes) / RATE - 3400 - SECONDS) < 1


MANY_CHANNELS = {
    "wav": (),
    "wv": (),
    "caf": (),
    "aiff": (),
    "mov": ("-c:a", "pcm_s16le"),
    "mkv": ("-c:a", "wavpack"),
    "ogg": ("-c:a", "libopus", "-ar", "48000", "-mapping_family", "255", "-b:a", "2000k"),
}


def test_many_channels_come_one_by_one(tmp_path):
    """In a process of its own, as PyAV ended it."""
    levels = [torch.linspace(0.05, 0.9, channels)[:, None] for channels in (8, 12, 33, 64)]
    paths = []
    for ending, options in MANY_CHANNELS.items():
        for level in levels:
            fewer = ending == "ogg" and len(level) == 8
            chosen = [word for word in options if not fewer or word not in ("-mapping_family", "255")]
            folder = tmp_path / ending / str(len(level))
            folder.mkdir(parents=True)
            audio = Audio(noise(len(level), 0.5).waveform / 0.15 * level, RATE)
            paths.append(encoded(folder, ending, *chosen, audio=audio))
    code = (
        "import sys; from talking_portrait.pipelines.files.sound import read_audio\n"
        "for path in sys.argv[1:]: print(path, *read_audio(path).waveform.std(dim=1).tolist(), sep='\\t', flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for line, level in zip(done.stdout.splitlines(), levels * len(MANY_CHANNELS), strict=True):
        path, *values = line.split("\t")
        found = np.array(values, dtype=float)
        assert len(found) == len(level), path
        if not path.endswith(".ogg"):
            assert np.corrcoef(found, level[:, 0])[0, 1] > 0.99, path


def test_more_channels_than_are_taken_are_refused(tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(100)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(bytes(200 * RATE))
    with pytest.raises(TalkingPortraitError, match="has 100 channels, but at most 64"):
        read_audio(tmp_path / "a.wav")


def test_a_damaged_film_with_damaged_sound_can_be_read_to_its_end(tmp_path, caplog):
    path = tmp_path / "film.ts"
    frames = np.random.default_rng(0).integers(0, 255, (75, 48, 64, 3), dtype=np.uint8)
    with VideoWriter(tmp_path / "film.mp4", (48, 64), Fraction(25), noise()) as video:
        video.write(frames)
    ffmpeg("-i", tmp_path / "film.mp4", "-c", "copy", path)
    damage(path, "overwritten", length=0.05)
    assert len(list(open_video(path).frames())) >= 70
    assert "is damaged at" in caplog.records[0].getMessage()
