"""Real files through Pillow and ffmpeg."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.media import VideoWriter, open_video, read_audio, read_image, write_wav
from talking_portrait.pipelines.sample import sample_portrait, sample_speech
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
    seen = open_video(path)
    assert seen.fps == fps
    assert seen.size == (48, 64)
    back = np.stack(list(seen.frames()))
    assert len(back) == 20
    assert np.abs(back.mean((1, 2, 3)) - sent.mean((1, 2, 3))).max() < 2
    heard = read_audio(path)
    assert (heard.sample_rate, heard.waveform.shape[0]) == (44100, 2)
    assert abs(float(heard.seconds) - 0.8) < 0.06
    assert list(tmp_path.iterdir()) == [path]


def test_a_cancelled_video_leaves_nothing(tmp_path):
    def cancel() -> None:
        with VideoWriter(tmp_path / "out.mp4", (48, 64), Fraction(25)) as video:
            video.write(frames(3))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cancel()
    assert list(tmp_path.iterdir()) == []


def test_a_failed_video_keeps_the_older_file_and_says_why(tmp_path):
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


def test_a_full_disk_is_named(tmp_path):
    path = tmp_path / "out.mp4"
    # /dev/full refuses every byte, as a full disk does.
    (tmp_path / ".out.part.mp4").symlink_to("/dev/full")
    with (
        pytest.raises(TalkingPortraitError, match="free some space"),
        VideoWriter(path, (48, 64), Fraction(25)) as video,
    ):
        video.write(frames(3))
    assert not path.exists()


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (44100, 2), (48000, 8)])
def test_sound_keeps_rate_channels_and_samples(tmp_path, rate, channels):
    sent = tone(0.5, rate, channels)
    write_wav(tmp_path / "a.wav", sent)
    heard = read_audio(tmp_path / "a.wav")
    assert heard.sample_rate == rate
    assert torch.equal(heard.waveform, sent.waveform)


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


def test_the_samples_fit_each_other():
    image, track = sample_portrait()
    assert image.shape == (*track.image_size, 3)
    assert track.points.shape == (1, 478, 3)
    assert 0 < track.points[..., :2].min() < track.points[..., :2].max() < 512
    assert 5 < sample_speech().seconds < 20
