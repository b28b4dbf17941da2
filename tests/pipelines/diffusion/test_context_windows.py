"""Plans of context windows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from talking_portrait.pipelines.diffusion.context_windows import open_windows, triangle_weights, uniform_windows
from talking_portrait.pipelines.errors import TalkingPortraitError


def test_a_short_video_is_one_window() -> None:
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


def test_wider_spacings_follow_when_given() -> None:
    spacings = [(window[1] - window[0]) % 64 for window in uniform_windows(64, 16, 4, stride=3)]
    assert set(spacings) == {1, 2, 4}
    assert spacings == sorted(spacings)
    assert {(window[1] - window[0]) % 17 for window in uniform_windows(17, 16, 4, stride=9)} == {1, 2}


@pytest.mark.parametrize(("size", "overlap"), [(16, 16), (16, 20), (16, -1), (0, 0)])
def test_impossible_overlaps_are_refused(size: int, overlap: int) -> None:
    with pytest.raises(TalkingPortraitError, match=f"Windows of {size} frames are to overlap by {overlap}"):
        uniform_windows(40, size, overlap)


# --- open windows ---


@given(
    frames=st.integers(1, 200),
    size=st.integers(1, 32),
    overlap=st.integers(0, 31),
    step=st.integers(0, 60),
    finished=st.integers(0, 24),
)
def test_open_windows_cover_what_is_not_finished_and_share_their_overlap(frames, size, overlap, step, finished) -> None:
    overlap, finished = min(overlap, size - 1), min(finished, frames - 1)
    windows = open_windows(frames, size, overlap, step=step, finished=finished)
    assert {len(window) for window in windows} == {min(size, frames)}
    assert all(window == list(range(window[0], window[0] + len(window))) for window in windows)
    assert {i for window in windows for i in window} >= set(range(finished, frames))
    assert windows[0][0] >= 0
    assert windows[-1][-1] == frames - 1
    gaps = [later[0] - window[0] for window, later in zip(windows, windows[1:], strict=False)]
    assert all(0 < gap <= size - overlap for gap in gaps)


def test_open_windows_move_with_each_step_and_cost_at_most_one_more() -> None:
    plans = [open_windows(100, 16, 4, step=step) for step in range(12)]
    assert plans[0] == [list(range(start, start + 16)) for start in range(0, 85, 12)]
    assert {len(plan) for plan in plans} == {8, 9}
    assert len({plan[1][0] for plan in plans}) == 8
    finished = [open_windows(100, 16, 4, step=step, finished=12) for step in range(12)]
    assert {len(plan) for plan in finished} == {8}
    assert all(plan[0][-1] >= 16 for plan in (open_windows(100, 16, 4, step=step, finished=16) for step in range(12)))


@pytest.mark.parametrize(("size", "expected"), [(1, [1]), (4, [0.5, 1, 1, 0.5]), (5, [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3])])
def test_weights_rise_to_the_middle(size: int, expected: list[float]) -> None:
    assert triangle_weights(size) == pytest.approx(expected)
