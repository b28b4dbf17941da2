"""Containers without times of presentation, and sound of rarer formats: what is read is in step, at its times."""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.files.images import is_picture
from talking_portrait.pipelines.files.sound import read_audio, write_wav
from talking_portrait.pipelines.files.video import is_film, open_video

from .clap import RATE, clap_sound, ffmpeg, make_clap, times


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.avi", "mpeg4"), ("a.avi", "libx264"), ("a.avi", "mpeg2video"), ("a.mxf", "libx264"), ("a.mkv", "mpeg4")],
)
@pytest.mark.parametrize(("between", "fps"), [("0", Fraction(25)), ("3", Fraction(30000, 1001))])
def test_frames_that_are_stored_in_another_order_are_in_step_with_the_sound(tmp_path, name, codec, between, fps):
    if codec == "mpeg2video":
        between = min(between, "2")
    picture = ("-c:v", codec, "-bf", between, "-q:v", "3", "-preset", "veryfast")
    path = make_clap(tmp_path, name, fps=fps, options=(*picture, "-c:a", "pcm_s16le", "-ac", "1"))
    frames, flashes, beeps = times(path)
    assert len(frames) == round(3 * fps)
    assert np.abs(flashes - [math.ceil(second * fps) / float(fps) for second in (1, 2)]).max() < 0.001
    assert np.abs(beeps - [1, 2]).max() < 0.001


def test_a_station_s_gxf_is_in_step(tmp_path):
    picture = ("-c:v", "mpeg2video", "-bf", "2", "-s", "720x576", "-c:a", "pcm_s16le", "-ac", "1")
    frames, flashes, beeps = times(make_clap(tmp_path, "a.gxf", options=picture))
    assert len(frames) == 75  # also the last, to which the file gives a field in place of a frame
    assert np.abs(flashes - beeps).max() < 0.001


def sphere(path: Path) -> None:
    """The clap as NIST's corpora have it."""
    wave = (clap_sound().waveform[0].numpy() * 32767).astype("<i2")
    head = f"NIST_1A\n   1024\nchannel_count -i 1\nsample_count -i {len(wave)}\nsample_rate -i {RATE}\n"
    head += "sample_n_bytes -i 2\nsample_byte_format -s2 01\nsample_coding -s3 pcm\nend_head\n"
    path.write_bytes(head.encode().ljust(1024) + wave.tobytes())


def direct_stream(path: Path) -> None:
    """The clap as one bit at 2.8224 MHz: of a running sum, whether it has reached the next whole number."""
    rate, block = 2_822_400, 4096
    wave = clap_sound().waveform[0].numpy()
    fine = np.interp(np.arange(3 * rate) / rate, np.arange(len(wave)) / RATE, wave) / 2
    bits = np.diff(np.floor(np.cumsum((fine + 1) / 2)), prepend=0) > 0
    data = np.packbits(bits, bitorder="little").tobytes()
    data += bytes([0b01101001]) * (-len(data) % block)
    head = b"fmt " + struct.pack("<QIIIIIIQII", 52, 1, 0, 1, 1, rate, 1, len(bits), block, 0)
    head += b"data" + struct.pack("<Q", 12 + len(data))
    path.write_bytes(b"DSD " + struct.pack("<QQQ", 28, 28 + len(head) + len(data), 0) + head + data)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.adx", ()),
        ("a.ast", ()),
        ("a.dts", ("-strict", "-2")),
        ("a.sf", ("-f", "ircam")),
        ("a.latm", ("-c:a", "aac")),
        ("a.mlp", ("-strict", "-2")),
        ("a.mmf", ("-ar", "8000")),
        ("a.rso", ("-ar", "44100")),
        ("a.sox", ()),
        ("a.thd", ("-f", "truehd", "-strict", "-2")),
        ("a.sph", sphere),
        ("a.dsf", direct_stream),
    ],
)
def test_sound_of_rarer_formats_is_read_at_its_times(tmp_path, caplog, name, options):
    path = tmp_path / name
    if callable(options):
        options(path)
    else:
        write_wav(tmp_path / "clap.wav", clap_sound())
        ffmpeg("-i", tmp_path / "clap.wav", *options, path)
    sound = read_audio(path)
    assert not caplog.records
    loud = np.flatnonzero(sound.waveform.abs().amax(0).numpy() > 0.15) / sound.sample_rate
    assert np.abs(loud[np.diff(loud, prepend=-1) > 0.2] - [1, 2]).max() < 0.025  # AAC's and DTS' delay
    assert abs(float(sound.seconds) - 3) < 0.08
    if name in ("a.sph", "a.ast"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(TalkingPortraitError, match=r"its end is missing: 1.* of 3\.00 s are there"):
            read_audio(path)


@pytest.mark.parametrize("name", ["a.mjpeg", "a.jpg", "a.m2v", "a.h264"])
def test_a_stream_of_pictures_without_a_container_is_a_film(tmp_path, name):
    codec = {"m2v": "mpeg2video", "h264": "h264"}.get(name[2:], "mjpeg")
    ffmpeg("-f", "lavfi", "-i", "testsrc=s=64x48:d=0.4", "-q:v", "2", "-f", codec, tmp_path / name)
    assert is_film(tmp_path / name)
    assert not is_picture(tmp_path / name)
    film = open_video(tmp_path / name)
    assert (film.size, len(list(film.frames()))) == ((48, 64), 10)


@pytest.mark.parametrize("codec", ["png", "bmp", "ppm", "pgm"])
def test_pictures_of_a_pipe_are_a_film(tmp_path, codec):
    ffmpeg("-f", "lavfi", "-i", "testsrc=s=64x48:d=0.4", "-f", "image2pipe", "-c:v", codec, tmp_path / "a.png")
    assert is_film(tmp_path / "a.png")
    film = open_video(tmp_path / "a.png")
    frames = list(film.frames())
    assert (film.size, len(frames), film.fps) == ((48, 64), 10, 25)
    first = Image.open(tmp_path / "a.png").convert("RGB")
    assert np.abs(frames[0].astype(int) - np.asarray(first)).max() <= 1
    first.save(tmp_path / "one.bmp" if codec == "bmp" else tmp_path / f"one.{codec}")
    assert is_picture(next(tmp_path.glob("one.*")))


@pytest.mark.parametrize(
    "header",
    [
        "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\nX-Timestamp: 12.5\r\n\r\n",
        "\r\n--ffmpeg\r\nContent-type: image/jpeg\r\n\r\n",
        "--b\nContent-Type: image/jpg\n\n",
    ],
)
@pytest.mark.parametrize(
    "answer", ["", "HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n"]
)
def test_what_a_camera_sends_over_http_is_a_film(tmp_path, header, answer):
    data = answer.encode()
    for number in range(6):
        Image.new("RGB", (64, 48), (40 * number, 0, 0)).save(tmp_path / "a.jpg", quality=95)
        picture = (tmp_path / "a.jpg").read_bytes()
        data += header.format(len(picture)).encode() + picture + b"\r\n"
    (tmp_path / "camera.mjpg").write_bytes(data)
    film = open_video(tmp_path / "camera.mjpg")
    assert is_film(tmp_path / "camera.mjpg")
    assert [round(float(frame[..., 0].mean()) / 40) for frame in film.frames()] == [0, 1, 2, 3, 4, 5]


def test_what_follows_a_jpeg_picture_makes_no_film_of_it(tmp_path):
    picture = Image.effect_noise((64, 48), 50)
    for name, options in (
        ("plain", {}),
        ("progressive", {"progressive": True}),
        ("marked", {"restart_marker_rows": 1}),
    ):
        picture.save(tmp_path / f"{name}.jpg", **options)
        data = (tmp_path / f"{name}.jpg").read_bytes()
        (tmp_path / "two.jpg").write_bytes(data * 2)
        assert not is_picture(tmp_path / "two.jpg")
        picture.resize((32, 24)).save(tmp_path / "small.jpg")
        for after in (b"", data[:9], (tmp_path / "small.jpg").read_bytes(), b"\0\0\0\x18ftypmp42" + data):
            (tmp_path / "a.jpg").write_bytes(data + after)
            assert is_picture(tmp_path / "a.jpg")
            assert not is_film(tmp_path / "a.jpg")
    picture.save(tmp_path / "two.mpo", save_all=True, append_images=[picture])
    assert is_picture(tmp_path / "two.mpo")


def test_an_animated_avif_has_all_of_its_pictures(tmp_path):
    """Not the one alone that it holds for programs that do not show it move."""
    pictures = [Image.new("RGB", (64, 64), (shade, 90, 90)) for shade in (0, 80, 160, 240)]
    pictures[0].save(tmp_path / "a.avif", save_all=True, append_images=pictures[1:], duration=40)
    video = open_video(tmp_path / "a.avif")
    shades = [int(frame[32, 32, 0]) for frame in video.frames()]
    assert video.fps == 25
    assert shades == [pytest.approx(shade, abs=8) for shade in (0, 80, 160, 240)]
