"""Real files through Pillow and ffmpeg."""

import tempfile
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from talking_portrait.pipelines.audio.waveform import mono, resample
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.files import sound
from talking_portrait.pipelines.files import video as video_file
from talking_portrait.pipelines.files.example import example_portrait, example_speech
from talking_portrait.pipelines.files.images import read_image
from talking_portrait.pipelines.files.scratch import scratch_folder
from talking_portrait.pipelines.files.sound import read_audio, read_speech, write_wav
from talking_portrait.pipelines.files.video import VideoWriter, open_video
from talking_portrait.pipelines.timing import frame_count
from talking_portrait.pipelines.types import Audio


def frames(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A grey level for each frame, so that their order can be read back."""
    return np.broadcast_to(np.linspace(20, 230, count).astype(np.uint8)[:, None, None, None], (count, height, width, 3))


def tone(seconds: float, rate: int, channels: int = 1) -> Audio:
    time = torch.arange(int(seconds * rate)) / rate
    return Audio(torch.sin(2 * torch.pi * 330 * time).expand(channels, -1) * 0.5, rate)


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30000, 1001)])
@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
def test_a_video_comes_back_frame_for_frame(tmp_path, fps, size):
    path = tmp_path / "out.mp4"
    sent = frames(20, *size)
    with VideoWriter(path, size, fps, tone(0.8, 44100, 2)) as video:
        video.write(sent[0])
        video.write(sent[1:])
    assert video.frames == 20
    reopened = open_video(path)
    assert reopened.fps == fps
    assert reopened.size == (48, 64)
    back = np.stack(list(reopened.frames()))
    assert len(back) == 20
    assert np.abs(back.mean((1, 2, 3)) - sent.mean((1, 2, 3))).max() < 2
    decoded = read_audio(path)
    assert (decoded.sample_rate, decoded.waveform.shape[0]) == (44100, 2)
    assert abs(float(decoded.seconds) - 0.8) < 0.06
    assert list(tmp_path.iterdir()) == [path]


def test_a_cancelled_video_leaves_nothing(tmp_path):
    def cancel() -> None:
        with VideoWriter(tmp_path / "out.mp4", (48, 64), Fraction(25)) as video:
            video.write(frames(3))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cancel()
    assert list(tmp_path.iterdir()) == []


def test_a_failed_video_keeps_the_older_file_and_reports_why(tmp_path):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"older")
    with pytest.raises(TalkingPortraitError, match="one size"), VideoWriter(path, (48, 64), Fraction(25)) as video:
        video.write(frames(3, 64, 48))
    assert path.read_bytes() == b"older"
    with pytest.raises(TalkingPortraitError, match="does not exist"):
        VideoWriter(tmp_path / "nowhere" / "out.mp4", (48, 64), Fraction(25))
    with pytest.raises(TalkingPortraitError, match=r"\.mp4"):
        VideoWriter(tmp_path / "out.exe", (48, 64), Fraction(25))


def test_only_ordinary_files_are_replaced(tmp_path):
    (tmp_path / "out.mp4").mkdir()
    with pytest.raises(TalkingPortraitError, match="no ordinary file"):
        VideoWriter(tmp_path / "out.mp4", (48, 64), Fraction(25))


def test_more_channels_than_aac_has_are_folded(tmp_path):
    with VideoWriter(tmp_path / "out.mp4", (48, 64), Fraction(25), tone(0.4, 16000, 9)) as video:
        video.write(frames(10))
    assert read_audio(tmp_path / "out.mp4").waveform.shape[0] == 1


def scratch_with(name: str):
    """A scratch folder in which this file refuses every byte, as on a full disk."""

    @contextmanager
    def made(folder: Path, stem: str):
        with scratch_folder(folder, stem) as scratch:
            (scratch / name).symlink_to("/dev/full")
            yield scratch

    return made


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    path = tmp_path / "out.mp4"
    monkeypatch.setattr(video_file, "scratch_folder", scratch_with("video.mp4"))
    with (
        pytest.raises(TalkingPortraitError, match="free some space in the folder .*0 and"),
        VideoWriter(path, (48, 64), Fraction(25)) as video,
    ):
        video.write(frames(3))
    assert not path.exists()


def test_a_full_disk_is_named_when_the_sound_alone_fills_it(tmp_path, monkeypatch):
    monkeypatch.setattr(video_file, "scratch_folder", scratch_with("sound.pcm"))
    with (
        pytest.raises(
            TalkingPortraitError,
            match=r"The sound of out.mp4 can't be written \(No space left.* check the folder .*0 and its free space",
        ),
        VideoWriter(tmp_path / "out.mp4", (48, 64), Fraction(25), tone(1, 16000)) as video,
    ):
        video.write(frames(3))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (44100, 2), (48000, 8)])
def test_sound_keeps_rate_channels_and_samples(tmp_path, rate, channels):
    sent = tone(0.5, rate, channels)
    write_wav(tmp_path / "a.wav", sent)
    decoded = read_audio(tmp_path / "a.wav")
    assert decoded.sample_rate == rate
    assert torch.equal(decoded.waveform, sent.waveform)


@pytest.mark.parametrize("source", ["memory", "file"])
@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (22050, 3), (48000, 6), (44100, 7), (96000, 8), (16000, 11)])
def test_any_sound_can_be_written_into_a_video(tmp_path, source, rate, channels):
    sent = tone(0.5, rate, channels)
    write_wav(tmp_path / "a.wav", sent)
    speech, track = read_speech(tmp_path / "a.wav", Fraction(25))
    with VideoWriter(tmp_path / "a.mp4", (48, 64), Fraction(25), sent if source == "memory" else track) as video:
        video.write(frames(13))
    decoded = read_audio(tmp_path / "a.mp4")
    assert decoded.waveform.shape[0] == (channels if channels <= 8 else 1)
    assert decoded.sample_rate == rate
    assert abs(float(decoded.seconds) - 0.5) < 0.14
    loud = decoded.waveform.abs().max(dim=0).values > 0.1
    assert float(loud.nonzero()[0]) / rate < 0.03
    assert torch.allclose(speech.waveform, resample(Audio(sent.waveform[:1], rate), 16000).waveform, atol=1e-6)


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30000, 1001), Fraction(120)])
@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 44101, 48000])
def test_speech_is_the_mix_at_another_rate_with_as_many_frames(tmp_path, monkeypatch, fps, rate):
    monkeypatch.setattr(sound, "SOUND_BLOCK", 1000)
    torch.manual_seed(0)
    # A sample more than a whole number of frames, or just as many.
    samples = int(9 * rate / fps) + 1 if rate != 22050 else int(9 * rate / fps)
    sent = Audio(torch.randn(2, samples) * 0.1, rate)
    write_wav(tmp_path / "a.wav", sent)
    speech, _ = read_speech(tmp_path / "a.wav", fps)
    assert speech.sample_rate == 16000
    assert frame_count(speech.samples, 16000, fps) == frame_count(samples, rate, fps)
    whole = resample(Audio(mono(sent)[None], rate), 16000).waveform[:, : speech.samples]
    assert torch.allclose(speech.waveform, whole, atol=1e-6)


def test_a_file_that_was_cut_short_is_reported(tmp_path):
    torch.manual_seed(0)
    sound = Audio(torch.randn(1, 32000) * 0.1, 16000)
    noise = np.random.default_rng(0).integers(0, 255, (50, 48, 64, 3), dtype=np.uint8)
    with VideoWriter(tmp_path / "whole.mp4", (48, 64), Fraction(25), sound) as video:
        video.write(noise)
    whole = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(TalkingPortraitError, match=r"cut.mp4 is damaged or cut short .*breaks off after \d\d frames"):
        list(open_video(tmp_path / "cut.mp4").frames())
    for read in (read_audio, lambda path: read_speech(path, Fraction(25))):
        with pytest.raises(TalkingPortraitError, match="its end is missing"):
            read(tmp_path / "cut.mp4")


def test_a_link_leads_to_the_file_that_is_renewed(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "real.mp4").write_bytes(b"older")
    (tmp_path / "out.mp4").symlink_to(tmp_path / "there" / "real.mp4")
    with VideoWriter(tmp_path / "out.mp4", (48, 64), Fraction(25)) as video:
        video.write(frames(3))
    assert (tmp_path / "out.mp4").is_symlink()
    assert len(list(open_video(tmp_path / "there" / "real.mp4").frames())) == 3
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["out.mp4", "real.mp4", "there"]


def test_circular_links_and_endless_names_are_reported(tmp_path):
    (tmp_path / "a.mp4").symlink_to(tmp_path / "b.mp4")
    (tmp_path / "b.mp4").symlink_to(tmp_path / "a.mp4")
    for name in ("a.mp4", "x" * 250 + ".mp4", "x" * 5000 + ".mp4", "a\0b.mp4"):
        with pytest.raises(TalkingPortraitError, match="name") as raised:
            VideoWriter(tmp_path / name, (48, 64), Fraction(25))
        assert len(str(raised.value)) < 500


def test_the_system_may_have_no_folder_for_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with VideoWriter(tmp_path / "a.mp4", (48, 64), Fraction(25), tone(0.1, 16000)) as video:
        video.write(frames(3))
    assert len(list(open_video(tmp_path / "a.mp4").frames())) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_a_failed_sound_leaves_nothing(tmp_path):
    with pytest.raises(TalkingPortraitError, match="less than 4 GB"):
        write_wav(tmp_path / "a.wav", Audio(torch.zeros(1, 1).expand(2, 1 << 30), 48000))
    (tmp_path / "full.wav").symlink_to("/dev/full")
    with pytest.raises(TalkingPortraitError, match="free space"):
        write_wav(tmp_path / "full.wav", tone(1, 16000))
    assert list(tmp_path.iterdir()) == []


def test_sound_that_is_none_is_refused(tmp_path):
    path = tmp_path / "silent.mp4"
    with VideoWriter(path, (48, 64), Fraction(25)) as video:
        video.write(frames(3))
    with pytest.raises(TalkingPortraitError, match="no sound track"):
        read_audio(path)
    (tmp_path / "text.wav").write_text("hello")
    with pytest.raises(TalkingPortraitError, match="can't be read"):
        read_audio(tmp_path / "text.wav")
    with pytest.raises(TalkingPortraitError, match="does not exist"):
        read_audio(tmp_path / "none.wav")
    with pytest.raises(TalkingPortraitError, match="no video"):
        open_video(tmp_path / "text.wav")


@pytest.mark.parametrize("values", [[0, 65535], [-5.0, 1e9], [float("nan"), 300.0]])
def test_pictures_beyond_any_colour_stay_within_it(tmp_path, values):
    kind = np.uint16 if values[1] == 65535 else np.float32
    Image.fromarray(np.array([values], kind)).save(tmp_path / "p.tif")
    image = read_image(tmp_path / "p.tif")
    assert float(image[0, 0].max()) == 0
    assert float(image[0, 1].min()) > 0


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif", "gif", "bmp"])
def test_damaged_pictures_are_reported_whatever_their_decoder_raises(tmp_path, ending):
    path = tmp_path / f"p.{ending}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    random = np.random.default_rng(1)
    raised = 0
    for _ in range(20):
        damaged = bytearray(whole)
        for place in random.integers(0, min(len(damaged), 400), 6):
            damaged[place] = random.integers(256)
        path.write_bytes(bytes(damaged))
        try:
            read_image(path)
        except TalkingPortraitError as error:
            raised += 1
            assert len(str(error)) < 400  # noqa: PT017
    assert raised


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "I;16", "1"])
def test_every_kind_of_picture_becomes_colour(tmp_path, mode):
    if mode == "I;16":
        picture = Image.fromarray(np.full((5, 7), 40000, np.uint16))
    else:
        picture = Image.new("RGB", (7, 5), (200, 200, 200)).convert(mode)
    path = tmp_path / ("p.tif" if mode in ("CMYK", "I;16") else "p.png")
    picture.save(path)
    image = read_image(path)
    assert image.shape == (5, 7, 3)
    assert image.dtype == torch.float32
    assert 0.55 < float(image.mean()) <= 1


def test_of_an_animation_the_first_frame_that_it_shows_is_taken(tmp_path):
    pictures = [Image.new("RGB", (8, 4), colour) for colour in ("red", "blue", "white")]
    for hidden in (False, True):
        path = tmp_path / f"{hidden}.png"
        pictures[0].save(path, save_all=True, append_images=pictures[1:], default_image=hidden)
        assert read_image(path)[0, 0].tolist() == ([0, 0, 1] if hidden else [1, 0, 0])


def test_transparency_lies_over_white_and_exif_turns(tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert torch.equal(read_image(tmp_path / "clear.png"), torch.ones(4, 4, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (8, 4, 3)


def test_broken_pictures_are_refused(tmp_path):
    (tmp_path / "half.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(TalkingPortraitError, match="can't be read"):
        read_image(tmp_path / "half.png")
    Image.new("1", (9000, 9000)).save(tmp_path / "huge.png")
    with pytest.raises(TalkingPortraitError, match="9000 x 9000"):
        read_image(tmp_path / "huge.png")


def test_the_example_portrait_has_its_landmarks_and_a_speech():
    image, track = example_portrait()
    assert image.shape == (*track.image_size, 3)
    assert track.points.shape == (1, 478, 3)
    assert 0 < track.points[..., :2].min() < track.points[..., :2].max() < 512
    assert 5 < example_speech().seconds < 20
