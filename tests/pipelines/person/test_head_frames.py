"""Which frames of the head video are shown, and reading them in any direction."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from talking_portrait.models.errors import TalkingPortraitError
from talking_portrait.pipelines.files.video import VideoWriter, open_video
from talking_portrait.pipelines.person import head_frames
from talking_portrait.pipelines.person.head_frames import (
    forwards_and_backwards,
    longest_stretch,
    open_head_video,
    read_frames,
)

FPS = Fraction(25)


def make_video(path: Path, frames: int, size: tuple[int, int] = (48, 64)) -> Path:
    """Frame n is n of grey, with a moving square."""
    with VideoWriter(path, size, FPS, crf=10) as video:
        for number in range(frames):
            frame = np.full((*size, 3), number % 200, np.uint8)
            frame[8:24, number % 40 : number % 40 + 16] = 250
            video.write(frame)
    return path


@given(st.integers(1, 30), st.integers(1, 200), st.integers(0, 100))
def test_frames_run_up_and_down_without_a_jump(count: int, frames: int, offset: int) -> None:
    numbers = forwards_and_backwards(count, frames, offset)
    assert len(numbers) == frames
    assert numbers.min() >= 0
    assert numbers.max() < count
    assert (np.abs(np.diff(numbers)) == (count > 1)).all()
    if offset < count:
        assert numbers[0] == offset
    if frames >= 2 * count:
        assert set(numbers.tolist()) == set(range(count))


def test_an_end_is_shown_once() -> None:
    assert forwards_and_backwards(4, 9).tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert forwards_and_backwards(1, 3).tolist() == [0, 0, 0]
    assert forwards_and_backwards(2, 4, offset=1).tolist() == [1, 0, 1, 0]


def test_the_longest_stretch_bridges_short_gaps_and_ends_at_cuts() -> None:
    usable = np.ones(100, bool)
    usable[:3] = False
    usable[20:24] = False  # 0.16 s
    usable[50:60] = False  # 0.4 s
    assert longest_stretch(usable, [(0, 100)], FPS) == (3, 50)
    assert longest_stretch(usable, [(0, 30), (30, 100)], FPS) == (60, 100)
    assert longest_stretch(usable, [(10, 11)], FPS) == (10, 11)


def test_a_video_without_a_usable_face_is_refused() -> None:
    with pytest.raises(TalkingPortraitError, match="No frame of the head video"):
        longest_stretch(np.zeros(10, bool), [(0, 10)], FPS)


@pytest.mark.parametrize("held", [1, 7, 1000])
def test_frames_read_backwards_are_those_read_forwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    video = open_video(make_video(tmp_path / "head.mp4", 90))
    every = list(video.frames())
    monkeypatch.setattr(head_frames, "BACKWARDS_BYTES", held * every[0].nbytes)
    numbers = 20 + forwards_and_backwards(60, 170, 45)
    found = list(read_frames(video, numbers))
    assert len(found) == len(numbers)
    for frame, number in zip(found, numbers, strict=True):
        np.testing.assert_array_equal(frame, every[number])  # the same bytes, decoded twice


@pytest.mark.parametrize(
    "numbers", [[0], [5], [5, 4], [4, 5], [3, 3, 3], [2, 3, 2], [89, 88, 87], [1, 4, 4, 9], [2, 30, 31, 30, 80, 89]]
)
def test_short_ways_through_the_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbers: list[int]) -> None:
    monkeypatch.setattr(head_frames, "SEEK_BEYOND", 10)
    video = open_video(make_video(tmp_path / "head.mp4", 90))
    every = list(video.frames())
    found = list(read_frames(video, np.array(numbers)))
    assert len(found) == len(numbers)
    for frame, number in zip(found, numbers, strict=True):
        np.testing.assert_array_equal(frame, every[number])


@pytest.mark.parametrize("ending", ["mp4", "mkv", "mov"])
@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(12), Fraction(50)])
def test_a_video_can_be_read_from_any_frame_at_any_rate(tmp_path: Path, ending: str, rate: Fraction) -> None:
    make_video(tmp_path / f"head.{ending}", 120)
    video = open_head_video(tmp_path / f"head.{ending}", (48, 64), rate)
    every = list(video.frames())
    for start in (0, 1, len(every) // 2, len(every) - 1):
        for one, other in zip(video.frames(start), every[start:], strict=True):
            np.testing.assert_array_equal(one, other)
    assert not list(video.frames(len(every)))


def test_frames_far_into_a_video_are_found_without_decoding_all_before(tmp_path: Path) -> None:
    from talking_portrait.pipelines.files.media_streams import decoded_frames

    video = open_video(make_video(tmp_path / "head.mp4", 1000))
    near = Fraction(35)
    times = [time for _, time in decoded_frames(video.path, video.stream.index, near=near)]
    assert video.origin + 10 < times[0] <= near


def test_a_video_that_is_too_short_or_of_another_size_is_refused(tmp_path: Path) -> None:
    path = make_video(tmp_path / "head.mp4", 10)
    video = open_head_video(path, (48, 64), FPS)
    with pytest.raises(TalkingPortraitError, match="ends after 10 frames, but 12 are needed"):
        list(read_frames(video, np.arange(8, 12)))
    with pytest.raises(TalkingPortraitError, match="64 x 48 pixels, but the model was trained on one of 50 x 40"):
        open_head_video(path, (40, 50), FPS)


def test_an_offset_beyond_what_arrays_hold_goes_on_all_the_same() -> None:
    np.testing.assert_array_equal(
        forwards_and_backwards(3, 4, 2**64 + 1), forwards_and_backwards(3, 4, (2**64 + 1) % 4)
    )
