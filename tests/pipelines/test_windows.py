"""Plans of context windows."""

from __future__ import annotations

import pytest
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.windows import uniform_windows


def test_a_short_clip_is_one_window() -> None:
    assert uniform_windows(1) == [[0]]
    assert uniform_windows(16) == [list(range(16))]


def test_the_last_windows_run_on_into_the_beginning() -> None:
    assert uniform_windows(20) == [list(range(16)), [*range(12, 20), *range(8)]]
    assert uniform_windows(28)[-1] == [24, 25, 26, 27, *range(12)]


@pytest.mark.parametrize("step", [0, 1, 2, 5, 24])
@pytest.mark.parametrize(("size", "overlap"), [(16, 4), (8, 0), (5, 4), (1, 0)])
def test_every_frame_is_in_a_window_whatever_the_length(size: int, overlap: int, step: int) -> None:
    for frames in (*range(1, 70), 301):
        windows = uniform_windows(frames, size, overlap, step=step)
        assert {i for window in windows for i in window} == set(range(frames))
        assert {len(window) for window in windows} == {min(size, frames)}
        assert all(len(set(window)) == len(window) for window in windows)


def test_steps_shift_the_seams() -> None:
    first, second, third = (uniform_windows(64, 16, 4, step=step)[0][0] for step in (0, 1, 2))
    assert (first, second, third) == (0, 32, 16)


def test_wider_spacings_follow_when_asked_for() -> None:
    spacings = [(window[1] - window[0]) % 64 for window in uniform_windows(64, 16, 4, stride=3)]
    assert set(spacings) == {1, 2, 4}
    assert spacings == sorted(spacings)
    assert {(window[1] - window[0]) % 17 for window in uniform_windows(17, 16, 4, stride=9)} == {1, 2}


@pytest.mark.parametrize(("size", "overlap"), [(16, 16), (16, 20), (16, -1), (0, 0)])
def test_impossible_overlaps_are_refused(size: int, overlap: int) -> None:
    with pytest.raises(TalkingPortraitError, match=f"Windows of {size} frames are to overlap by {overlap}"):
        uniform_windows(40, size, overlap)
