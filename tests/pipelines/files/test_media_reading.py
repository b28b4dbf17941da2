"""Common videos and recordings: containers, clocks, rates, orientations, colours.

Long, as every case writes its own file with the same few helpers.
"""

from fractions import Fraction

import numpy as np
import pytest
import torch
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.files import sound as sound_files
from talking_portrait.pipelines.files.sound import read_audio, read_speech, write_wav
from talking_portrait.pipelines.files.video import VideoWriter, open_video
from talking_portrait.pipelines.types import Audio

from .clap import CORNER, HEIGHT, RATE, WIDTH, clap_frames, clap_sound, ffmpeg, make_clap, times

X264 = ("-c:v", "libx264", "-crf", "10", "-preset", "veryfast")
CONTAINERS = {
    "mp4": (*X264, "-c:a", "aac"),
    "frag.mp4": (*X264, "-c:a", "aac", "-movflags", "frag_keyframe+empty_moov"),
    "mov": (*X264, "-c:a", "pcm_s16le"),
    "mkv": (*X264, "-c:a", "flac"),
    "webm": ("-c:v", "libvpx", "-b:v", "2M", "-c:a", "libopus"),
    "ts": (*X264, "-c:a", "aac"),
    "flv": (*X264, "-c:a", "aac"),
    "avi": ("-c:v", "mpeg4", "-q:v", "2", "-c:a", "pcm_s16le"),
}


def in_step(flashes: np.ndarray, beeps: np.ndarray, within: float = 0.02) -> bool:
    return len(flashes) == len(beeps) == 2 and np.abs(flashes - beeps).max() <= within


@pytest.mark.parametrize("ending", CONTAINERS)
def test_picture_and_sound_keep_their_times_in_every_container(tmp_path, caplog, ending):
    path = make_clap(tmp_path, f"clap.{ending}", options=CONTAINERS[ending])
    frames, flashes, beeps = times(path)
    assert abs(len(frames) - 75) <= 2
    assert frames.shape[1:] == (HEIGHT, WIDTH, 3)
    assert in_step(flashes, beeps)
    assert not caplog.text


@pytest.mark.parametrize(
    ("ending", "delay"),
    [("mp4", "1.203"), ("mov", "0.37"), ("mkv", "1.203"), ("webm", "0.37"), ("ts", "0.37"), ("flv", "0.5")],
)
def test_late_sound_is_padded_and_early_sound_keeps_its_speech(tmp_path, ending, delay):
    late = make_clap(tmp_path, f"late.{ending}", before_audio=("-itsoffset", delay), options=CONTAINERS[ending])
    _, flashes, beeps = times(late)
    assert np.abs(flashes - [1, 2]).max() <= 0.041
    assert np.abs(beeps - flashes - float(delay)).max() <= 0.02
    early, plain = tmp_path / f"early.{ending}", make_clap(tmp_path, f"plain.{ending}", options=CONTAINERS[ending])
    ffmpeg("-itsoffset", delay, "-i", plain, "-i", plain, "-map", "0:v", "-map", "1:a", "-c", "copy", early)
    _, flashes, beeps = times(early)
    assert np.abs(beeps - [1, 2]).max() <= 0.09
    assert np.abs(flashes - beeps - float(delay)).max() <= 0.025  # 0.0213: the AAC delay that copying adds to TS


@pytest.mark.parametrize("ending", ["mkv", "webm"])
def test_a_recording_whose_clock_begins_late_is_whole_and_is_missed_when_cut(tmp_path, ending):
    write_wav(tmp_path / "a.wav", clap_sound())
    path = tmp_path / f"late.{ending}"
    ffmpeg("-itsoffset", "2", "-i", tmp_path / "a.wav", "-c:a", "libopus", path)
    assert abs(float(read_audio(path).seconds) - 3) < 0.05
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(TalkingPortraitError, match="its end is missing"):
        read_audio(path)


def test_a_recording_whose_clock_shows_the_time_of_day_is_no_longer_for_it(tmp_path):
    path = tmp_path / "station.mkv"
    copied = ("-c", "copy", "-output_ts_offset", "80000", "-avoid_negative_ts", "disabled")
    ffmpeg("-i", make_clap(tmp_path, "plain.mkv"), *copied, path)
    frames, flashes, beeps = times(path)
    assert abs(len(frames) - 75) <= 1
    assert abs(open_video(path).stated_frames - 75) <= 2
    assert np.abs(flashes - beeps).max() <= 0.045


def test_an_flv_whose_clock_begins_before_0_keeps_its_times(tmp_path):
    path = tmp_path / "early.flv"
    plain = make_clap(tmp_path, "plain.flv", options=CONTAINERS["flv"])
    copied = ("-map", "0:v", "-map", "1:a", "-c", "copy", "-avoid_negative_ts", "disabled")
    ffmpeg("-i", plain, "-itsoffset", "-0.5", "-i", plain, *copied, path)
    frames, flashes, beeps = times(path)
    assert abs(len(frames) - 87) <= 2  # the first picture is shown while there is sound alone
    assert np.abs(flashes - beeps - 0.5).max() <= 0.02
    ffmpeg("-itsoffset", "-0.5", "-i", plain, "-map", "0:a", *copied[4:], tmp_path / "sound.flv")
    assert abs(float(read_audio(tmp_path / "sound.flv").seconds) - 3) < 0.1


def test_flac_in_ogg_that_begins_late_has_no_hole(tmp_path):
    write_wav(tmp_path / "a.wav", clap_sound())
    ffmpeg("-itsoffset", "2", "-i", tmp_path / "a.wav", "-c:a", "flac", tmp_path / "late.ogg")
    assert float(read_audio(tmp_path / "late.ogg").seconds) == 3


def test_speech_lies_where_the_sound_track_has_it(tmp_path):
    path = make_clap(tmp_path, "late.mp4", before_audio=("-itsoffset", "0.66"), options=CONTAINERS["mp4"])
    speech, track = read_speech(path, Fraction(25))
    loud = (speech.waveform[0].abs() > 0.2).nonzero()[0].item() / speech.sample_rate
    assert abs(loud - 1.66) < 0.02
    with VideoWriter(tmp_path / "again.mp4", (HEIGHT, WIDTH), Fraction(25), track) as video:
        video.write(clap_frames())
    assert abs(times(tmp_path / "again.mp4")[2][0] - 1.66) < 0.02


@pytest.mark.parametrize("ending", ["mp4", "mkv", "mov"])
def test_a_hole_in_the_sound_becomes_silence(tmp_path, ending):
    hole = ("-af", "aselect='not(between(t,0.3,0.8)+between(t,1.4,1.6))'")
    path = make_clap(tmp_path, f"hole.{ending}", options=(*X264, "-c:a", "aac", *hole))
    _, flashes, beeps = times(path)
    assert in_step(flashes, beeps)
    sound = read_audio(path)
    assert abs(float(sound.seconds) - 3) < 0.1


@pytest.mark.parametrize(
    "metadata",
    [
        {"title": "x: Video: h264, yuv420p, 32x32, 10 fps, 10 tbr"},
        {"comment": "Stream #0:0: Video: h264, 32x32, 10 fps\nrotation of 90.00 degrees\n Audio: none", "title": "a"},
        {"title": "Duration: 00:00:01.00, start: 5.0 \u2603 \udcff".encode("utf-8", "replace").decode()},
    ],
)
@pytest.mark.parametrize("name", ["My Video: take 1", " Video: 32x32, 10 fps", "a%03d", "concat:x|y", "-i"])
def test_metadata_and_file_names_have_no_effect(tmp_path, metadata, name):
    words = [part for key, value in metadata.items() for part in ("-metadata", f"{key}={value}")]
    path = make_clap(tmp_path, "clap.mp4", options=(*CONTAINERS["mp4"], *words)).rename(tmp_path / f"{name}.mp4")
    frames, flashes, beeps = times(path)
    assert frames.shape == (75, HEIGHT, WIDTH, 3)
    assert in_step(flashes, beeps)


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_chapters_subtitles_and_data_streams_are_passed_over(tmp_path, ending):
    chapters = "".join(
        f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={n * 30}\nEND={n * 30 + 30}\ntitle=Video: {n}\n" for n in range(90)
    )
    (tmp_path / "meta.txt").write_text(";FFMETADATA1\n" + chapters)
    (tmp_path / "words.srt").write_text("1\n00:00:00,000 --> 00:00:02,000\nVideo: 32x32\n")
    plain = make_clap(tmp_path, f"plain.{ending}", options=CONTAINERS[ending])
    path = tmp_path / f"full.{ending}"
    subtitles = "mov_text" if ending == "mp4" else "srt"
    ffmpeg(
        "-i", tmp_path / "words.srt", "-i", plain, "-i", tmp_path / "meta.txt", "-map", "0", "-map", "1",
        "-map_metadata", "2", "-map_chapters", "2", "-c", "copy", "-c:s", subtitles, path,
    )  # fmt: skip
    frames, flashes, beeps = times(path)
    assert len(frames) == 75
    assert in_step(flashes, beeps)


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize("order", [("1:v", "0:v", "0:a"), ("0:v", "0:a", "1:v")])
def test_a_cover_picture_is_not_the_film(tmp_path, ending, order):
    film = make_clap(tmp_path, f"film.{ending}", options=CONTAINERS[ending])
    ffmpeg("-f", "lavfi", "-i", "color=red:s=64x64", "-frames:v", "1", tmp_path / "cover.png")
    cover = "0" if order[0] == "1:v" else "1"
    maps = [part for entry in order for part in ("-map", entry)]
    path = tmp_path / f"covered.{ending}"
    ffmpeg(
        "-i", film, "-i", tmp_path / "cover.png", *maps, "-c", "copy", f"-disposition:v:{cover}", "attached_pic", path
    )
    frames, flashes, beeps = times(path)
    assert frames.shape == (75, HEIGHT, WIDTH, 3)
    assert in_step(flashes, beeps)


def test_sound_with_a_cover_picture_is_no_video(tmp_path):
    write_wav(tmp_path / "a.wav", clap_sound())
    ffmpeg("-f", "lavfi", "-i", "color=red:s=64x64", "-frames:v", "1", tmp_path / "cover.png")
    path = tmp_path / "song.mp3"
    ffmpeg("-i", tmp_path / "a.wav", "-i", tmp_path / "cover.png", "-map", "0", "-map", "1", "-c:v", "copy", path)
    with pytest.raises(TalkingPortraitError, match="no video"):
        open_video(path)
    loud = (read_audio(path).waveform[0].abs() > 0.2).nonzero()[0].item() / RATE
    assert abs(loud - 1) < 0.02


@pytest.mark.parametrize("ending", ["mp4", "mkv", "mov"])
@pytest.mark.parametrize("pattern", ["lt(mod(n,7),3)", "not(between(mod(n,10),4,8))", "gte(random(3),0.45)"])
def test_frames_that_were_left_out_are_held(tmp_path, ending, pattern):
    select = ("-vf", f"select='{pattern}+lt(mod(n,25),3)'", "-fps_mode", "vfr")
    path = make_clap(tmp_path, f"vfr.{ending}", options=(*CONTAINERS[ending], *select))
    video = open_video(path)
    assert video.fps == 25
    frames, flashes, beeps = times(path)
    assert len(flashes) == len(beeps) == 2
    wanted = clap_frames()
    # Each frame that is there stands at its own time.
    green = frames[:, 10, -10, 1].astype(int)
    assert len(set(green)) >= 25
    assert np.abs(green - wanted[: len(green), 10, -10, 1].astype(int)).max() <= 8


def test_packets_without_bytes_hold_the_picture_and_are_no_damage(tmp_path, caplog):
    """Theora's of pictures that do not change."""
    path = tmp_path / "still.ogv"
    ffmpeg("-f", "lavfi", "-i", "color=gray:s=64x48:r=25:d=1", "-c:v", "libtheora", path)
    assert len(list(open_video(path).frames())) == 25
    assert not caplog.messages


def test_jittered_timestamps_keep_the_mean_rate(tmp_path):
    trembling = (
        "-vf",
        "settb=1/1000,setpts='floor(N*1000/30+6*sin(N*2.3))'",
        "-fps_mode",
        "passthrough",
        "-enc_time_base",
        "1/1000",
    )
    path = make_clap(tmp_path, "phone.mkv", fps=Fraction(30), options=(*CONTAINERS["mkv"], *trembling))
    assert abs(open_video(path).fps - 30) < Fraction(1, 10)
    frames, flashes, beeps = times(path)
    assert abs(len(frames) - 90) <= 1
    assert in_step(flashes, beeps, 0.041)


@pytest.mark.parametrize(
    ("fps", "read_rate"),
    [(Fraction(240), 240), (Fraction(60000, 1001), Fraction(60000, 1001)), (Fraction(480), 240), (Fraction(12), 12)],
)
def test_fast_and_slow_films_are_read_at_their_rate(tmp_path, fps, read_rate):
    path = make_clap(tmp_path, "fast.mp4", fps=fps, options=CONTAINERS["mp4"])
    video = open_video(path)
    assert video.fps == read_rate
    frames, flashes, beeps = times(path)
    assert abs(len(frames) - 3 * read_rate) <= 1
    assert in_step(flashes, beeps, 0.02 + 0.5 / float(fps))


def test_another_rate_shows_each_frame_at_its_time(tmp_path):
    from dataclasses import replace

    path = make_clap(tmp_path, "clap.mp4", options=CONTAINERS["mp4"])
    for fps in (Fraction(30), Fraction(24000, 1001), Fraction(10), Fraction(50)):
        frames = np.stack(list(replace(open_video(path), fps=fps).frames()))
        assert len(frames) == round(3 * fps)
        bright = (frames.min(axis=-1) > 180).mean(axis=(1, 2)) > 0.1
        first = np.flatnonzero(bright)[0] / float(fps)
        assert abs(first - 1) <= 0.5 / min(float(fps), 25) + 0.001


def shown_corner(path) -> str:
    frame = next(iter(open_video(path).frames())).astype(int)
    height, width = frame.shape[:2]
    red = {
        f"{row}{column}": frame[y : y + height // 4, x : x + width // 4, 0].mean()
        for row, y in (("upper ", height // 8), ("lower ", height * 5 // 8))
        for column, x in (("left", width // 8), ("right", width * 5 // 8))
    }
    return max(red, key=red.__getitem__)


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize(
    ("turn", "corner"),
    [
        (("-display_rotation", "90"), "lower left"),
        (("-display_rotation", "180"), "lower right"),
        (("-display_rotation", "-90"), "upper right"),
        (("-display_hflip",), "upper right"),
        (("-display_vflip",), "lower left"),
        (("-display_rotation", "90", "-display_hflip"), None),
    ],
)
def test_a_turned_or_mirrored_film_is_shown_upright(tmp_path, ending, turn, corner):
    plain = make_clap(tmp_path, f"plain.{ending}", options=CONTAINERS[ending])
    path = tmp_path / f"turned.{ending}"
    ffmpeg(*turn, "-i", plain, "-c", "copy", path)
    turned = {"90", "-90"} & set(turn)
    assert open_video(path).size == ((WIDTH, HEIGHT) if turned else (HEIGHT, WIDTH))
    # ffmpeg itself turns what it decodes.
    ffmpeg("-i", path, "-frames:v", "1", tmp_path / "wanted.mkv")
    assert shown_corner(path) == shown_corner(tmp_path / "wanted.mkv")
    if corner:
        assert shown_corner(path) == corner


@pytest.mark.parametrize(
    ("aspect", "size"), [("2", (HEIGHT, 2 * WIDTH)), ("1/2", (2 * HEIGHT, WIDTH)), ("16/15", (HEIGHT, 137))]
)
def test_pixels_become_square(tmp_path, aspect, size):
    path = make_clap(tmp_path, "wide.mp4", options=(*CONTAINERS["mp4"], "-vf", f"setsar={aspect}"))
    video = open_video(path)
    assert video.size == size
    assert next(iter(video.frames())).shape == (*size, 3)


@pytest.mark.parametrize("space", ["bt709", "smpte170m", "bt470bg", "bt2020nc"])
@pytest.mark.parametrize("span", ["tv", "pc"])
@pytest.mark.parametrize("pixels", ["yuv420p", "yuv444p", "yuv420p10le"])
def test_colours_are_those_that_were_filmed(tmp_path, space, span, pixels):
    colours = np.array([[200, 60, 40], [40, 180, 70], [30, 50, 210], [128, 128, 128]], np.uint8)
    frames = np.repeat(np.repeat(colours[None, :, None], 32, 2), 3, 0).repeat(16, 1)
    matrix = {"bt470bg": "bt601", "smpte170m": "bt601", "bt2020nc": "bt2020"}.get(space, space)
    tags = (
        "-vf",
        f"scale=out_color_matrix={matrix}:out_range={span}:flags=accurate_rnd+full_chroma_int,setparams=colorspace={space}:range={span}",
    )
    path = make_clap(
        tmp_path, "colour.mkv", frames=frames, options=(*CONTAINERS["mkv"], *tags, "-crf", "1", "-pix_fmt", pixels)
    )
    frame = next(iter(open_video(path).frames())).reshape(4, 16, 32, 3)[:, 6:10].mean(axis=(1, 2))
    assert np.abs(frame - colours).max() < 2.5


def test_writing_and_reading_does_not_darken(tmp_path):
    torch.manual_seed(0)
    picture = torch.nn.functional.interpolate(torch.rand(1, 3, 12, 16), (96, 128), mode="bicubic").clamp(0.1, 0.9)
    sent = np.round(picture[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    frame = sent
    for generation in range(3):
        with VideoWriter(tmp_path / f"{generation}.mp4", (96, 128), Fraction(25), crf=10) as video:
            video.write(np.repeat(frame[None], 3, 0))
        frame = list(open_video(tmp_path / f"{generation}.mp4").frames())[1]
    shift = (frame.astype(float) - sent).mean(axis=(0, 1))
    assert np.abs(shift).max() < 0.4


def test_written_videos_have_colour_tags(tmp_path):
    import av

    with VideoWriter(tmp_path / "a.mp4", (48, 64), Fraction(25)) as video:
        video.write(np.zeros((3, 48, 64, 3), np.uint8))
    with av.open(str(tmp_path / "a.mp4")) as file:
        codec = file.streams.video[0].codec_context
        assert (codec.colorspace, codec.color_primaries, codec.color_trc, codec.color_range) == (1, 1, 1, 1)


def pq(light: float) -> float:
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    power = (light / 10000) ** m1
    return ((c1 + c2 * power) / (1 + c3 * power)) ** m2


@pytest.mark.parametrize(
    ("transfer", "signals"),
    [("smpte2084", [pq(0.02), pq(26), pq(203), pq(800)]), ("arib-std-b67", [0.02, 0.38, 0.75, 0.97])],
)
def test_high_dynamic_range_is_mapped_to_the_screen(tmp_path, transfer, signals):
    """BT.2408's signals of black, 18 % grey card (26 cd/m2), white (203 cd/m2) and a highlight."""
    rows = np.repeat(np.array(signals), 24)[:, None, None].repeat(64, 1).repeat(3, 2)
    raw = np.round(rows * 65535).astype("<u2")[None].repeat(3, 0)
    path = tmp_path / "hdr.mkv"
    ffmpeg(
        "-f", "rawvideo", "-pix_fmt", "rgb48le", "-s", "64x96", "-r", "25", "-i", "pipe:0", "-vf",
        f"scale=out_color_matrix=bt2020:out_range=tv,setparams=colorspace=bt2020nc:color_primaries=bt2020:color_trc={transfer}:range=tv",
        "-pix_fmt", "yuv420p10le", "-c:v", "libx264", "-crf", "1", path, data=raw.tobytes(),
    )  # fmt: skip
    black, grey, white, highlight = (
        next(iter(open_video(path).frames())).reshape(4, 24, 64, 3)[:, 8:16].mean(axis=(1, 2, 3))
    )
    assert black < 20
    assert 85 < grey < 125
    assert 215 < white < 240
    assert white + 8 < highlight <= 255


def test_what_is_transparent_in_a_film_shows_white(tmp_path):
    rgba = np.zeros((3, 32, 32, 4), np.uint8)
    rgba[..., 0] = 255
    rgba[:, :, 16:, 3] = 255
    raw = ("-f", "rawvideo", "-pix_fmt", "rgba", "-s", "32x32", "-r", "25", "-i", "pipe:0")
    ffmpeg(*raw, "-c:v", "qtrle", "-pix_fmt", "argb", tmp_path / "cut.mov", data=rgba.tobytes())
    video = open_video(tmp_path / "cut.mov")
    assert video.transparent
    frame = next(iter(video.frames()))
    assert frame[4, 4].tolist() == [255, 255, 255]
    assert frame[4, 28].tolist() == [255, 0, 0]


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_what_is_transparent_in_a_webm_film_shows_white(codec, tmp_path):
    rgba = np.zeros((3, 64, 1280, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[:, :, 640:, 3] = 255
    matrix = "bt601" if codec == "libvpx" else "bt709"
    ffmpeg(
        "-f", "rawvideo", "-pix_fmt", "rgba", "-s", "1280x64", "-r", "25", "-i", "pipe:0", "-c:v", codec, "-b:v", "2M",
        "-auto-alt-ref", "0", "-vf", f"scale=out_color_matrix={matrix}", "-pix_fmt", "yuva420p", tmp_path / "cut.webm",
        data=rgba.tobytes(),
    )  # fmt: skip
    video = open_video(tmp_path / "cut.webm")
    assert video.transparent
    frames = np.stack(list(video.frames()))
    assert len(frames) == 3
    assert frames[:, 16:48, 100:500].min() == 255
    assert np.abs(frames[:, 16:48, 800:1200].mean(axis=(0, 1, 2)) - [200, 0, 0]).max() < 4


def test_an_animated_gif_is_a_film(tmp_path):
    ffmpeg(
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-s",
        f"{WIDTH}x{HEIGHT}",
        "-r",
        "25",
        "-i",
        "pipe:0",
        tmp_path / "a.gif",
        data=clap_frames().tobytes(),
    )
    frames, flashes, _ = times(tmp_path / "a.gif")
    assert len(frames) == 75
    assert np.abs(flashes - [1, 2]).max() < 0.02
    assert np.abs(frames[0, 10, 10].astype(int) - CORNER).max() < 40  # of the nearest colour in the palette


@pytest.mark.parametrize(
    ("ending", "codec"),
    [
        ("wav", "pcm_u8"),
        ("wav", "pcm_s24le"),
        ("wav", "pcm_f64le"),
        ("flac", "flac"),
        ("ogg", "libvorbis"),
        ("opus", "libopus"),
        ("m4a", "aac"),
        ("mp3", "mp3"),
        ("aiff", "pcm_s16be"),
        ("wma", "wmav2"),
        ("caf", "pcm_s16le"),
        ("aac", "aac"),
        ("amr", None),
    ],
)
def test_every_common_sound_file_is_read(tmp_path, ending, codec):
    if codec is None:
        pytest.skip("this ffmpeg has no AMR encoder")
    write_wav(tmp_path / "a.wav", clap_sound())
    path = tmp_path / f"b.{ending}"
    ffmpeg("-i", tmp_path / "a.wav", "-c:a", codec, path)
    sound = read_audio(path)
    loud = (sound.waveform[0].abs() > 0.2).nonzero()[:, 0].numpy() / sound.sample_rate
    beeps = loud[np.diff(loud, prepend=-1) > 0.2]
    assert sound.sample_rate == RATE
    assert len(beeps) == 2
    assert np.abs(beeps - [1, 2]).max() < 0.06
    assert abs(float(sound.waveform.abs().max()) - 0.6) < 0.1


def test_a_recording_that_changes_its_rate_keeps_its_length(tmp_path):
    parts = b""
    for rate, channels in (("48000", "2"), ("24000", "1")):
        write_wav(tmp_path / "a.wav", clap_sound())
        ffmpeg("-i", tmp_path / "a.wav", "-ar", rate, "-ac", channels, "-c:a", "aac", tmp_path / "a.aac")
        parts += (tmp_path / "a.aac").read_bytes()
    (tmp_path / "both.aac").write_bytes(parts)
    sound = read_audio(tmp_path / "both.aac")
    assert (sound.sample_rate, sound.waveform.shape[0]) == (48000, 2)
    assert abs(float(sound.seconds) - 6) < 0.2


def test_no_file_reads_another(tmp_path):
    write_wav(tmp_path / "private.wav", clap_sound(1.5))
    ffmpeg("-i", tmp_path / "private.wav", "-c:a", "aac", tmp_path / "private.ts")
    (tmp_path / "in").mkdir()
    lists = {
        "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.5,\n{tmp_path}/private.ts\n#EXT-X-ENDLIST\n",
        "list.mp3": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.5,\n{tmp_path}/private.ts\n#EXT-X-ENDLIST\n",
        "list.ffconcat": f"ffconcat version 1.0\nfile '{tmp_path}/private.wav'\n",
        "list.mp4": f"ffconcat version 1.0\nfile '{tmp_path}/private.wav'\n",
        "film.mpd": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT1.5S">\n<Period><AdaptationSet mimeType="audio/mp4">\n'
        f'<Representation id="1" bandwidth="1"><BaseURL>file:{tmp_path}/private.ts</BaseURL></Representation>\n'
        "</AdaptationSet></Period></MPD>",
        "words.srt": "1\n00:00:00,000 --> 00:00:02,000\nhello\n",
    }
    for name, text in lists.items():
        (tmp_path / "in" / name).write_text(text)
        for read in (read_audio, open_video):
            with pytest.raises(TalkingPortraitError, match="can't be read|no video"):
                read(tmp_path / "in" / name)


@pytest.mark.parametrize("ending", ["mkv", "mp4"])
@pytest.mark.parametrize("of_packets", [4, 1000])
def test_packets_of_sound_that_share_a_time_follow_each_other(tmp_path, caplog, ending, of_packets):
    path = tmp_path / f"shared.{ending}"
    shared = f"setts=ts='floor(N/{of_packets})*{of_packets}*1024'"  # samples of a packet
    write_wav(tmp_path / "a.wav", clap_sound())
    ffmpeg("-i", tmp_path / "a.wav", "-af", "asetnsamples=1024", "-c:a", "flac", "-bsf:a", shared, path)
    sound = read_audio(path)
    loud = (sound.waveform[0].abs() > 0.2).nonzero()[:, 0].numpy() / sound.sample_rate
    assert np.abs(loud[np.diff(loud, prepend=-1) > 0.2] - [1, 2]).max() <= 0.05
    assert abs(float(sound.seconds) - 3) <= 0.05
    assert not caplog.messages


def test_a_sound_of_hours_is_called_too_long(tmp_path):
    path = tmp_path / "hours.mkv"
    late = "setts=ts='if(gt(N,60),PTS+48000*30000,PTS)'"
    ffmpeg("-i", make_clap(tmp_path, "plain.mkv"), "-vn", "-c:a", "aac", "-bsf:a", late, path)
    with pytest.raises(TalkingPortraitError, match="longer than 60 minutes"):
        read_audio(path)


def test_what_an_encoder_adds_at_the_end_is_no_sound(tmp_path):
    write_wav(tmp_path / "a.wav", clap_sound(2.5))
    for ending in ("m4a", "mp4", "mov"):
        ffmpeg("-i", tmp_path / "a.wav", "-c:a", "aac", tmp_path / f"a.{ending}")
        assert abs(float(read_audio(tmp_path / f"a.{ending}").seconds) - 2.5) < 0.001


def test_damage_in_the_middle_is_reported_and_shifts_nothing(tmp_path, caplog):
    path = make_clap(tmp_path, "clap.mkv", options=(*X264, "-c:a", "flac"))
    data = bytearray(path.read_bytes())
    middle = len(data) // 3
    data[middle : middle + 400] = b"\x00" * 400
    path.write_bytes(bytes(data))
    try:
        sound = read_audio(path)
    except TalkingPortraitError as error:
        assert "can't be read" in str(error)  # noqa: PT017
        return
    assert abs(float(sound.seconds) - 3) < 0.2


def test_eight_channels_and_unknown_layouts_are_read(tmp_path):
    sound = Audio(clap_sound(1.5).waveform.repeat(11, 1), RATE)
    write_wav(tmp_path / "many.wav", sound)
    assert read_audio(tmp_path / "many.wav").waveform.shape == sound.waveform.shape
    write_wav(tmp_path / "eight.wav", Audio(sound.waveform[:8], RATE))
    ffmpeg("-i", tmp_path / "eight.wav", "-c:a", "aac", tmp_path / "eight.m4a")
    assert read_audio(tmp_path / "eight.m4a").waveform.shape[0] == 8


def test_planes_of_eight_channels_are_never_listed_as_pyav_19_can_not(tmp_path, monkeypatch):
    many = torch.arange(1, 9)[:, None] / 8 * clap_sound(1.5).waveform
    write_wav(tmp_path / "eight.wav", Audio(many, RATE))
    ffmpeg("-i", tmp_path / "eight.wav", "-c:a", "wavpack", tmp_path / "eight.wv")
    read, planar = sound_files._samples_of, []

    def checked(frame, kind, channels):
        planar.append(frame.format.is_planar)
        return read(frame, kind, channels)

    monkeypatch.setattr(sound_files, "_samples_of", checked)
    torch.testing.assert_close(read_audio(tmp_path / "eight.wv").waveform, many, atol=1e-4, rtol=0)
    assert planar, "the file is read frame by frame"
    assert not any(planar)
